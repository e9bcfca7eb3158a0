"""The fast `kill`: it latches whatever else is broken, and it starts at once."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinywindow.cli import closing, closing_look, kill_wait
from tinywindow.cli.kill_request import read_request

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def _short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing_look, "LOOK_FOR_S", 0.2)


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


# --- who closes --------------------------------------------------------------------------------


def _write(database: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(database)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def test_a_close_that_nobody_takes_up_is_said(cli: Cli, store: Path) -> None:
    answer = cli("kill", "--reason", "x", "--mode", "CLOSE_POSITIONS")
    assert answer.code == 1
    assert "NOBODY IS CLOSING" in answer.err
    assert answer.out.startswith("Stopped: CLOSE_POSITIONS")
    # A weaker stop beside it says so, too: what is in force is the close.
    later = cli("kill", "--reason", "x", "--json")
    assert later.document["closing"] is False
    assert "NOBODY IS CLOSING" in later.err


def test_a_close_that_somebody_took_up_is_not(cli: Cli, store: Path) -> None:
    lease = "INSERT INTO leases (name, owner, fence, heartbeat_ms) VALUES ('flatten/v', 'o', 1, ?)"
    _write(store, lease, int(time.time() * 1000) - 1_000)
    words = ("kill", "--reason", "x", "--mode", "CLOSE_POSITIONS", "--json")
    # A heart that beat before the stop, and not since, has nothing to do with it.
    assert cli(*words).document["closing"] is False
    _write(store, "UPDATE leases SET heartbeat_ms = ?", int(time.time() * 1000) + 60_000)
    answer = cli(*words)
    assert (answer.document["closing"], answer.err) == (True, "")


def test_where_it_cannot_be_known_nothing_is_said_of_who_closes(
    cli: Cli, store: Path, data_dir: Path
) -> None:
    assert cli("kill", "--reason", "x", "--json").document["closing"] is None
    _write(store, "DROP TABLE leases")
    answer = cli("kill", "--reason", "x", "--mode", "CLOSE_POSITIONS", "--json")
    assert (answer.code, answer.document["closing"]) == (0, None)
    store.unlink()
    answer = cli("kill", "--reason", "x", "--mode", "CLOSE_POSITIONS", "--json")
    assert (answer.document["closing"], "NOBODY" in answer.err) == (None, False)


def test_the_latch_is_committed_and_told_before_anybody_is_looked_for(
    cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[object] = []

    def look(query: Callable[[str], list[Any]], **_: object) -> None:
        seen.extend(query("SELECT mode FROM latches"))
        seen.append(capsys.readouterr().out.splitlines()[0].partition(":")[0])

    monkeypatch.setattr(closing_look, "somebody_closes", look)
    assert cli("kill", "--reason", "x", "--mode", "CLOSE_POSITIONS").code == 0
    assert seen == [("CLOSE_POSITIONS",), "Stopped"]


def test_status_says_that_nobody_closes(
    cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("kill", "--reason", "x", "--mode", "CLOSE_POSITIONS")
    # Within moments of the stop, whoever can close may still be on the way.
    assert cli("status", "--json").document["kill_switch"]["closing"] is None
    monkeypatch.setattr(closing, "PATIENCE_MS", 0)
    assert cli("status", "--json").document["kill_switch"]["closing"] is False
    assert "NOBODY IS CLOSING" in cli("status").out
    _write(
        store,
        "INSERT INTO close_progress (venue, state, report, updated_ms)"
        " VALUES ('v', 'CLOSING', ?, 1)",
        json.dumps(
            {
                "positions": [],
                "cancelled": [],
                "errors": [],
                "resting": 0,
                "unresolved": 0,
                "latch_ids": [],
                "rounds": 1,
            }
        ),
    )
    lease = "INSERT INTO leases (name, owner, fence, heartbeat_ms) VALUES ('flatten/v', 'o', 1, ?)"
    _write(store, lease, int(time.time() * 1000))
    assert cli("status", "--json").document["kill_switch"]["closing"] is True
    assert "NOBODY" not in cli("status").out


# --- elsewhere ---------------------------------------------------------------------------------


def test_an_address_that_cannot_be_read_is_said_and_the_host_holds_the_stop(
    cli: Cli, store: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value, words in (
        ("DATABASE", "postgresql://u:hunter2@/", "names no database"),
        ("DATABASE", "mysql://u:hunter2@h/x", "neither SQLite nor PostgreSQL"),
        ("REDIS", "http://u:hunter2@h", "a URL starts with"),
    ):
        with monkeypatch.context() as here:
            here.setenv(f"TINYWINDOW_{name}", value)
            answer = cli("kill", "--reason", "x")
            assert answer.code == 3, answer
            assert words in answer.err
            assert "hunter2" not in answer.out + answer.err
            assert "the file KILL" in answer.out


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


def test_kill_loads_nothing_heavy_and_the_standard_library_alone(
    store: Path, data_dir: Path, tmp_path: Path
) -> None:
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
    ours = loaded - already
    assert sorted(HEAVY & ours) == []
    allowed = sys.stdlib_module_names | {"tinywindow"}
    assert sorted(name for name in ours if name.partition(".")[0] not in allowed) == []


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
