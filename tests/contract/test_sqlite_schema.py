"""The migrations make what the tables say, and the files are durable."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.stores import schema
from tinywindow.safety.stores.migrate import current_revision, upgrade_sqlite
from tinywindow.safety.stores.sqlite import SqliteStore, connect


def _definitions(path: Path) -> dict[str, list[str]]:
    """Each table, index and trigger with the parts of its definition, whatever their order."""
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'"
    ).fetchall()
    connection.close()
    parts = {}
    for name, text in rows:
        words = re.sub(r"\s+", " ", text)
        lines = re.split(r", (?=CONSTRAINT|[a-z_]+ [A-Z])|\( | ?\)$", words)
        parts[name] = sorted(line.strip() for line in lines if line.strip())
    return parts


def test_the_migration_makes_exactly_what_the_tables_say(tmp_path: Path) -> None:
    migrated, made = tmp_path / "migrated.db", tmp_path / "made.db"
    assert upgrade_sqlite(migrated)
    engine = create_engine(f"sqlite:///{made}")
    schema.metadata.create_all(engine)
    with engine.begin() as connection:
        for trigger in schema.AUDIT_TRIGGERS_SQLITE:
            connection.exec_driver_sql(trigger)
    engine.dispose()
    assert _definitions(migrated) == _definitions(made)


def test_alembic_finds_nothing_left_to_migrate(tmp_path: Path) -> None:
    path = tmp_path / "migrated.db"
    upgrade_sqlite(path)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


def test_upgrading_twice_does_nothing_the_second_time(tmp_path: Path) -> None:
    path = tmp_path / "twice.db"
    assert current_revision(path) is None
    assert upgrade_sqlite(path)
    assert not upgrade_sqlite(path)
    assert current_revision(path) == schema.SCHEMA_REVISION


async def test_every_connection_is_as_durable_as_promised(tmp_path: Path) -> None:
    path = tmp_path / "durable.db"
    store = await SqliteStore.open(path)
    await store.close()
    connection = connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("asked", "answer", "told"),
    [
        ("PRAGMA journal_mode=WAL", "'delete'", "mode 'delete' with synchronous=2"),
        ("PRAGMA journal_mode=WAL", "'memory'", "mode 'memory' with synchronous=2"),
        ("PRAGMA synchronous", "1", "mode 'wal' with synchronous=1"),
        ("PRAGMA synchronous", "0", "mode 'wal' with synchronous=0"),
    ],
)
def test_a_connection_that_is_not_durable_is_refused_and_closed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    answer: str,
    told: str,
    *,
    read_only: bool,
) -> None:
    made: list[sqlite3.Connection] = []
    opened = sqlite3.connect

    class Careless(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return super().execute(f"SELECT {answer}" if sql == asked else sql, *values)

    def careless(*words: Any, **options: Any) -> sqlite3.Connection:
        made.append(opened(*words, factory=Careless, **options))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", careless)
    with pytest.raises(StoreUnavailable, match=told):
        connect(tmp_path / "careless.db", read_only=read_only)
    (connection,) = made
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
