"""The fast `kill`: it latches whatever else is broken, and it starts at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinywindow.cli import kill_wait
from tinywindow.cli.kill_request import read_request

Cli = Callable[..., Any]


def test_a_stop_is_in_the_file_and_in_the_database(cli: Cli, store: Path, data_dir: Path) -> None:
    answer = cli("kill", "--reason", "it misbehaves", "--json")
    assert answer.code == 0
    said = answer.document
    assert (said["latched"], said["durable"], said["in_file"]) == (True, True, True)
    assert (data_dir / "KILL").exists()
    status = cli("status", "--json").document
    assert status["kill_switch"]["active"] is True
    assert status["kill_switch"]["mode"] == "HALT_ONLY"
    assert status["kill_switch"]["reason"] == "it misbehaves"
    assert status["kill_switch"]["latch_ids"] == [said["latch_id"]]
    assert status["trading"] == "STOPPED"


@pytest.mark.parametrize("mode", ["CLOSE_POSITIONS", "close_positions", "close-positions"])
def test_the_mode(cli: Cli, store: Path, mode: str) -> None:
    answer = cli("--json", "kill", "--mode", mode, "--reason=x")
    assert answer.document["mode"] == "CLOSE_POSITIONS"
    weaker = cli("kill", "--reason", "y", "--json").document
    assert (weaker["mode"], weaker["mode_in_force"]) == ("HALT_ONLY", "CLOSE_POSITIONS")


def test_it_says_what_was_latched(cli: Cli, store: Path) -> None:
    answer = cli("kill", "--reason", "odd\n\x1b[31m fills")
    assert answer.out.startswith("Stopped: HALT_ONLY is latched as K")
    assert "odd ?[31m fills" in answer.out
    assert "the file KILL, the database" in answer.out


def test_without_a_database_the_file_and_the_journal_hold_it(cli: Cli, data_dir: Path) -> None:
    answer = cli("kill", "--reason", "x")
    assert answer.code == 0
    assert "there is no database" in answer.err
    assert (data_dir / "KILL").exists()
    assert (data_dir / "journal.jsonl").exists()
    assert cli("status", "--json").document["kill_switch"]["active"] is True


def test_a_damaged_database_is_said_and_the_stop_stands(cli: Cli, data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "tinywindow.db").write_bytes(b"no database at all" * 100)
    answer = cli("kill", "--reason", "x", "--json")
    assert answer.code == 3
    assert answer.document["latched"] is True
    assert answer.document["durable"] is False
    assert answer.document["errors"]


def test_where_nothing_can_be_written_it_says_so(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = cli("kill", "--reason", "x", "--data-dir", str(tmp_path / "file" / "sub"))
    assert answer.code == 3
    assert "NOTHING WAS LATCHED" in answer.err


def test_a_broken_configuration_does_not_hinder_a_stop(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data_dir: Path
) -> None:
    monkeypatch.setenv("TINYWINDOW_NONSENSE", "1")
    (tmp_path / "tinywindow.toml").write_text("x = [")
    answer = cli("kill", "--reason", "x")
    assert answer.code == 0
    assert "passed over" in answer.err
    assert (data_dir / "KILL").exists()


def test_the_places_come_from_option_environment_file(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tinywindow.toml").write_text(f'data_dir = "{tmp_path}/from-file"\n')
    cli("kill", "--reason", "x", "--data-dir", str(tmp_path / "from-option"))
    assert (tmp_path / "from-option" / "KILL").exists()
    monkeypatch.delenv("TINYWINDOW_DATA_DIR")
    cli("kill", "--reason", "x")
    assert (tmp_path / "from-file" / "KILL").exists()
    database = tmp_path / "elsewhere.db"
    monkeypatch.setenv("TINYWINDOW_DATABASE", f"sqlite:///{database}")
    assert cli("db", "upgrade").code == 0
    assert cli("kill", "--reason", "x", "--json").document["durable"] is True


def test_a_replays_directory_is_stopped_too_and_said(cli: Cli, data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "REPLAY").write_text("[]")
    answer = cli("kill", "--reason", "x")
    assert "nothing real trades there" in answer.err
    assert (data_dir / "KILL").exists()


def test_the_reason_is_one_bounded_line() -> None:
    request = read_request(["kill", "--reason", "a\n  b" + "c" * 1000])
    assert request.reason.startswith("a bccc")
    assert len(request.reason) == 500


# --- --wait ------------------------------------------------------------------------------------


def test_waiting_for_what_closes_nothing_ends_at_once(cli: Cli, store: Path) -> None:
    answer = cli("kill", "--reason", "x", "--wait")
    assert answer.code == 0
    assert "nothing to wait for" in answer.out


def test_nobody_is_closing(cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kill_wait, "PATIENCE_S", 0.3)
    answer = cli("kill", "--reason", "x", "--mode", "CLOSE_POSITIONS", "--wait")
    assert answer.code == 1
    assert "NOBODY IS CLOSING" in answer.err


def test_waiting_that_fails_leaves_the_stop_and_says_so(
    cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kill_wait, "wait_until_flat", None)
    answer = cli("kill", "--reason", "x", "--mode", "CLOSE_POSITIONS", "--wait", "--json")
    assert answer.code == 3
    assert answer.document["latched"] is True
    assert answer.document["flat"] is False


def test_it_closes_the_paper_venue_by_itself(cli: Cli, store: Path, data_dir: Path) -> None:
    import asyncio

    from tinywindow.exchanges.paper import PaperExchange, PriceBoard
    from tinywindow.safety.services.clock import SystemClock

    async def open_book() -> None:
        venue = PaperExchange(data_dir / kill_wait.PAPER_BOOK, PriceBoard(), clock=SystemClock())
        await venue.account()
        await venue.close()

    asyncio.run(open_book())
    answer = cli("kill", "--reason", "x", "--mode", "CLOSE_POSITIONS", "--wait", "--json")
    assert answer.code == 0
    assert (answer.document["flat"], answer.document["state"]) == (True, "FLAT")


def test_the_paper_book_is_the_runtimes() -> None:
    from tinywindow.runtime import PAPER_BOOK

    assert kill_wait.PAPER_BOOK == PAPER_BOOK


# --- the start ---------------------------------------------------------------------------------

PROBE = """
import sys
from tinywindow.cli.entry import main
code = main(["kill", "--reason", "x", "--json"])
print(sorted(sys.modules))
sys.exit(code)
"""
HEAVY = {
    *("sqlalchemy", "alembic", "pydantic", "typer", "rich", "asyncio", "structlog", "argparse"),
    *("dataclasses", "decimal", "pathlib", "tomllib", "uuid", "logging", "hashlib"),
    *("inspect", "tinywindow.settings", "tinywindow.safety.domain"),
}


def _environment(data_dir: Path) -> dict[str, str]:
    return {**os.environ, "TINYWINDOW_DATA_DIR": str(data_dir)}


def test_kill_loads_nothing_heavy(store: Path, data_dir: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROBE],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=_environment(data_dir),
    )
    document, modules = done.stdout.splitlines()
    assert json.loads(document)["durable"] is True
    # What an editable installation's own hook brings along is there without us, too.
    bare = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; print(sorted(sys.modules))"],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = set(json.loads(modules.replace("'", '"')))
    already = set(json.loads(bare.stdout.replace("'", '"')))
    assert sorted((HEAVY & loaded) - already) == []


def _best_of(times: int, words: list[str], data_dir: Path) -> float:
    best = float("inf")
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True, env=_environment(data_dir))
        best = min(best, time.perf_counter() - begun)
    return best


def test_a_cold_kill_costs_a_few_bare_starts_of_python(store: Path, data_dir: Path) -> None:
    """The best of several rounds in one run, so that a loaded machine does not decide it."""
    kill = [sys.executable, "-m", "tinywindow.cli", "kill", "--reason", "x"]
    ratio = elapsed = float("inf")
    for _ in range(5):
        bare = _best_of(3, [sys.executable, "-c", "pass"], data_dir)
        elapsed = min(elapsed, _best_of(3, kill, data_dir))
        ratio = min(ratio, elapsed / bare)
        if elapsed <= 0.1:
            break
    print(f"kill cold: {elapsed * 1000:.0f} ms, {ratio:.1f} x python -c pass")
    assert elapsed <= 0.1 or ratio <= 6
