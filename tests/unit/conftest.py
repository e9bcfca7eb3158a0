"""New databases as copies of an empty one."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

import pytest

from tinywindow.safety.stores import sqlite
from tinywindow.safety.stores.migrate import upgrade_sqlite


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the newest schema and nothing in it."""
    made = tmp_path_factory.mktemp("empty") / "empty.db"
    upgrade_sqlite(made)
    return made


def _copy_to(empty: Path, database: Path) -> None:
    copy = database.with_name(f"{database.name}.{secrets.token_hex(4)}")
    shutil.copyfile(empty, copy)
    # Whole or not at all, and never over one that somebody made meanwhile.
    with contextlib.suppress(FileExistsError):
        os.link(copy, database)
    copy.unlink()


@pytest.fixture(autouse=True)
def _made_by_copying(empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy where a file would be made.

    How a file is made is shown by tests of its own; here it would be a third of the work.
    """

    def upgraded(database: Path) -> bool:
        if not database.exists():
            with contextlib.suppress(OSError):  # what is wrong there is the real one's to say
                _copy_to(empty_database, database)
        return upgrade_sqlite(database)

    monkeypatch.setattr(sqlite, "upgrade_sqlite", upgraded)
