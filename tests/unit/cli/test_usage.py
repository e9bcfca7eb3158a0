"""Wrong usage, wrong configuration, and what cannot be reached: exit codes and their words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinywindow import __version__

Cli = Callable[..., Any]


@pytest.mark.parametrize(
    "words",
    [
        ("frob",),
        ("status", "--frob"),
        ("status", "extra"),
        ("reset",),
        ("reset", "--operator", " ", "--reason", "x"),
        ("release",),
        ("release", "--reason", " "),
        ("check",),
        ("check", "{"),
        ("check", '{"symbol": 1, "symbol": 2}'),
        ("run", "--speed", "fast"),
        ("run", "--speed", "0"),
        ("run", "--port", "70000"),
        ("run", "--strategy", "yolo"),
        ("run", "--replay", "/nowhere.csv"),
        ("run", "--adopt-limits", "--change-limits"),
        ("replay",),
        ("audit", "frob"),
        ("audit", "tail", "-n", "0"),
        ("db", "downgrade"),
        ("kill",),
        ("kill", "--reason"),
        ("kill", "--reason", "x", "--mode", "MAYBE"),
        ("kill", "--reason", " "),
        ("kill", "--frob"),
        ("--data-dir",),
    ],
)
def test_wrong_usage_is_exit_code_two_and_a_hint(cli: Cli, words: tuple[str, ...]) -> None:
    answer = cli(*words)
    assert answer.code == 2, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert answer.err.startswith("tinywindow: ")
    assert "--help" in answer.err or "usage:" in answer.err
    assert len(answer.err.splitlines()) <= 2


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version").out == f"tinywindow {__version__}\n"
    listed = cli("--help").out
    for name in ("run", "status", "kill", "release", "start", "stop", "reset", "check", "replay"):
        assert f"\n  {name} " in listed
    for later in ("watchdog", "token", "mcp", "simulate"):
        assert f"\n  {later} " not in listed
    assert "--reason TEXT" in cli("kill", "--help").out


@pytest.mark.parametrize("command", [("status",), ("doctor",), ("start",), ("audit", "verify")])
def test_a_wrong_configuration_is_exit_code_two_with_every_violation(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TINYWINDOW_RUN__PORT", "x")
    monkeypatch.setenv("TINYWINDOW_REDS", "x")
    answer = cli(*command)
    assert answer.code == 2
    assert "run.port" in answer.err
    assert "TINYWINDOW_REDS" in answer.err
    assert len(cli(*command, "--json").document["violations"]) == 2


def test_a_configuration_file_that_is_named_must_exist(cli: Cli) -> None:
    assert cli("--config", "/nowhere.toml", "status").code == 2
    assert cli("status", "--config=/nowhere.toml").code == 2


def test_a_store_that_cannot_be_reached_is_exit_code_three(cli: Cli, data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "tinywindow.db").write_text("this is no database, and far from being one" * 50)
    for words in (("status",), ("start",), ("audit", "verify"), ("db", "current")):
        answer = cli(*words, "--json")
        assert answer.code == 3, words
        assert answer.document["exit_code"] == 3


def test_without_a_database_audit_is_exit_code_three(cli: Cli) -> None:
    assert cli("audit", "verify").code == 3


@pytest.mark.parametrize(
    "words",
    [
        ("start",),
        ("stop",),
        ("doctor",),
        ("db", "current"),
        ("release", "--reason", "x"),
        ("check", '{"symbol": "BTC/USDT", "side": "BUY", "amount": 1}'),
        ("reset", "--operator", "x", "--reason", "x"),
        ("run",),
    ],
)
def test_a_replays_directory_is_refused(cli: Cli, data_dir: Path, words: tuple[str, ...]) -> None:
    data_dir.mkdir()
    (data_dir / "REPLAY").write_text("[]")
    answer = cli(*words)
    assert answer.code == 2
    assert "replay" in answer.err
    assert not (data_dir / "tinywindow.db").exists()


def test_a_replays_directory_may_be_looked_at(cli: Cli, store: Path, data_dir: Path) -> None:
    (data_dir / "REPLAY").write_text("[]")
    assert cli("status", "--json").document["replay"] is True
    assert cli("audit", "verify").code == 0
