"""Long readings of the audit log show on a terminal how far they are, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinywindow.safety.services import audit_log

Cli = Callable[..., Any]
ROWS = 4


@pytest.fixture(autouse=True)
def _a_log(cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of four rows, read two at a time."""
    for _ in range(2):
        assert cli("stop").code == 0
        assert cli("start").code == 0
    assert cli("audit", "verify", "--json").document["rows"] == ROWS
    monkeypatch.setattr(audit_log, "BATCH_ROWS", 2)
    monkeypatch.setattr(audit_log, "CHUNK_ROWS", 2)


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have rich take what it writes to for a terminal."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")


def commands(folder: Path) -> list[tuple[tuple[str, ...], str]]:
    """The commands that take long on a long log, and what the last line of the moment says."""
    export = str(folder / "log.jsonl")
    return [
        (("audit", "verify"), f"verifying: row {ROWS}"),
        (("audit", "export", export), f"writing: row {ROWS}"),
        (("audit", "verify", export), "verifying " + export),
    ]


@pytest.mark.usefixtures("_terminal")
def test_on_a_terminal_progress_is_shown(cli: Cli, tmp_path: Path) -> None:
    for words, moment in commands(tmp_path):
        answer = cli(*words)
        assert answer.code == 0
        # The line may be coloured, and is written anew until it is taken away.
        assert moment in answer.out, words
        assert answer.out.index(moment) < answer.out.index(f"{ROWS} rows"), words


@pytest.mark.usefixtures("_terminal")
def test_under_json_there_is_the_document_alone(cli: Cli, tmp_path: Path) -> None:
    for words, moment in commands(tmp_path):
        answer = cli(*words, "--json")
        assert answer.document["rows"] == ROWS
        assert moment.partition(":")[0] not in answer.err, words


def test_without_a_terminal_nothing_is_shown(cli: Cli, tmp_path: Path) -> None:
    for words, moment in commands(tmp_path):
        answer = cli(*words)
        assert answer.code == 0
        assert moment.partition(":")[0] not in answer.out + answer.err, words
