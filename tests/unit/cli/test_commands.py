"""The commands on a store: trading, release, check, audit, doctor, db, replay."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinywindow.safety.services.position_limits import PositionLimitEnforcer

Cli = Callable[..., Any]
ORDER = '{"symbol": "BTC/USDT", "side": "BUY", "amount": 0.01}'


# --- trading and release -----------------------------------------------------------------------


def test_start_and_stop(cli: Cli, store: Path) -> None:
    assert cli("start", "--json").document == {"trading": "RUNNING", "changed": False}
    assert cli("stop", "--json", "--reason", "lunch").document["changed"] is True
    assert cli("status", "--json").document["trading"] == "STOPPED"
    assert cli("start", "--json").document == {"trading": "RUNNING", "changed": True}


def test_a_stop_must_be_released_and_trading_started(cli: Cli, store: Path, data_dir: Path) -> None:
    cli("kill", "--reason", "odd")
    refused = cli("start")
    assert refused.code == 1
    assert "odd" in refused.err
    released = cli("release", "--reason", "looked at", "--json")
    assert released.code == 0
    assert released.document["active"] is False
    assert not (data_dir / "KILL").exists()
    assert cli("status", "--json").document["trading"] == "STOPPED"
    assert cli("start").code == 0
    again = cli("release", "--reason", "x")
    assert again.code == 0
    assert "nothing to release" in again.out


def test_two_persons_release_through_the_api(
    cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYWINDOW_KILL_SWITCH__TWO_PERSON", "true")
    cli("kill", "--reason", "x")
    answer = cli("release", "--reason", "x")
    assert answer.code == 1
    assert "two operators" in answer.out
    assert cli("status", "--json").document["kill_switch"]["active"] is True


# --- status ------------------------------------------------------------------------------------


def test_status_has_the_promised_keys_with_and_without_a_store(cli: Cli, data_dir: Path) -> None:
    bare = cli("status", "--json").document
    assert not data_dir.exists()
    cli("db", "upgrade")
    for document in (bare, cli("status", "--json").document):
        assert (document["kill_switch"]["active"], document["kill_switch"]["mode"]) == (False, None)
        breaker = document["circuit_breaker"]
        assert (breaker["is_halted"], breaker["halt_reason"]) == (False, None)
        limits = {"daily_pnl": "-10", "drawdown": "-15", "trade_velocity": "50"}
        limits.update(error_rate="10", consecutive_failures="5")
        assert {name: m["limit"] for name, m in breaker["metrics"].items()} == limits
        states = {name: m["state"] for name, m in breaker["metrics"].items()}
        assert states.pop("daily_pnl") == states.pop("drawdown") == "UNKNOWN"
        assert set(states.values()) == {"OK"}
        assert document["trading"] == "RUNNING"
        assert document["limits"]["max_total_exposure"] == "50000"
        assert document["venues"] == {}


def test_status_for_people_escapes_what_came_from_outside(cli: Cli, store: Path) -> None:
    cli("kill", "--reason", "[red]not markup[/red]")
    answer = cli("status")
    assert "[red]not markup[/red]" in answer.out
    assert "HALT_ONLY" in answer.out


# --- check -------------------------------------------------------------------------------------


def _fed(store: Path) -> None:
    async def feed() -> None:
        async with PositionLimitEnforcer(store) as limits:
            await limits.record_equity(20_000)
            await limits.set_reference_price("BTC/USDT", 50_000)

    asyncio.run(feed())


def _counts(store: Path) -> tuple[int, ...]:
    connection = sqlite3.connect(store)
    tables = ("orders", "executions", "audit_log", "outbox", "trips", "latches")
    counts = tuple(
        connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables
    )
    connection.close()
    return counts


def test_check_answers_and_reserves_nothing(cli: Cli, store: Path) -> None:
    _fed(store)
    before = _counts(store)
    passed = cli("check", ORDER, "--json")
    assert passed.code == 0, passed
    assert passed.document["allowed"] is True
    too_large = cli("check", ORDER.replace("0.01", "1"), "--json")
    assert too_large.code == 1
    assert too_large.document["reason_code"] == "POSITION_SIZE"
    assert _counts(store) == before


def test_check_reads_standard_input_and_lists_every_fault(
    cli: Cli, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO('{"symbol": "x", "side": "HOLD", "amount": 0}'))
    answer = cli("check", "-")
    assert answer.code == 1
    assert answer.out.count("VALIDATION_FAILED") == 3


def test_check_under_a_stop(cli: Cli, store: Path) -> None:
    cli("kill", "--reason", "x")
    assert cli("check", ORDER, "--json").document["reason_code"] == "KILL_SWITCH_ACTIVE"


# --- audit -------------------------------------------------------------------------------------


@pytest.fixture
def chain(cli: Cli, store: Path) -> Path:
    for word in ("stop", "start", "stop", "start"):
        assert cli(word).code == 0
    return store


def test_an_intact_chain(cli: Cli, chain: Path) -> None:
    answer = cli("audit", "verify", "--json")
    assert answer.code == 0
    assert (answer.document["intact"], answer.document["rows"]) == (True, 4)
    assert answer.document["anchors"] >= 1


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_an_export_verifies_and_a_changed_one_does_not(
    cli: Cli, chain: Path, tmp_path: Path, name: str
) -> None:
    export = tmp_path / name
    assert cli("audit", "export", str(export), "--json").document["rows"] == 4
    anchor = str(chain.with_name(chain.name + ".anchor"))
    assert cli("audit", "verify", str(export), "--anchor", anchor).code == 0
    whole = export.read_text()
    export.write_text(whole.replace("TRADING_STOPPED", "TRADING_STARTED", 1))
    changed = cli("audit", "verify", str(export))
    assert changed.code == 1
    assert "BROKEN" in changed.out
    lines = whole.splitlines(keepends=True)
    export.write_text("".join(lines[:-1]))
    assert cli("audit", "verify", str(export)).code == 0
    cut = cli("audit", "verify", str(export), "--anchor", anchor)
    assert cut.code == 1
    assert "was anchored" in cut.out
    del lines[-2]
    export.write_text("".join(lines))
    assert cli("audit", "verify", str(export)).code == 1


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "seq\n1\n"])
def test_what_is_no_export_is_said(cli: Cli, tmp_path: Path, content: str) -> None:
    export = tmp_path / "x.csv"
    export.write_text(content)
    assert cli("audit", "verify", str(export)).code == (2 if content else 0)
    (tmp_path / "x.jsonl").write_text("[]\n")
    assert cli("audit", "verify", str(tmp_path / "x.jsonl")).code == 2
    (tmp_path / "x.txt").write_text("")
    assert cli("audit", "verify", str(tmp_path / "x.txt")).code == 2


def test_a_changed_database_is_found(cli: Cli, chain: Path) -> None:
    connection = sqlite3.connect(chain)
    connection.execute("DROP TRIGGER audit_log_no_update")
    connection.execute("UPDATE audit_log SET actor = 'nobody' WHERE seq = 2")
    connection.commit()
    connection.close()
    answer = cli("audit", "verify", "--json")
    assert answer.code == 1
    assert answer.document["faults"][0] == {
        "seq": 2,
        "message": "the content is not what was hashed",
    }


def _damage(database: Path, statements: str) -> None:
    connection = sqlite3.connect(database)
    for name in ("no_update", "no_delete", "chain"):
        connection.execute(f"DROP TRIGGER audit_log_{name}")
    connection.executescript(statements)
    connection.close()


def test_a_log_of_another_revision_is_verified_and_nothing_is_made_of_it(
    cli: Cli, chain: Path
) -> None:
    _damage(chain, "UPDATE alembic_version SET version_num = '9999'; DROP TABLE positions")
    before = {path.name: path.stat().st_mtime_ns for path in chain.parent.iterdir()}
    answer = cli("audit", "verify", "--json")
    assert (answer.code, answer.document["rows"]) == (0, 4)
    assert cli("audit", "tail", "-n", "1", "--json").document[0]["seq"] == 4
    after = {path.name: path.stat().st_mtime_ns for path in chain.parent.iterdir()}
    volatile = {"tinywindow.db-shm", "tinywindow.db-wal"}
    assert {n: t for n, t in after.items() if n not in volatile} == {
        n: t for n, t in before.items() if n not in volatile
    }
    assert cli("status").code == 3


@pytest.mark.parametrize(
    ("statements", "seq"),
    [
        ("UPDATE audit_log SET actor = CAST(x'ff00fe' AS TEXT) WHERE seq = 2", 2),
        ("UPDATE audit_log SET data = x'00ff' WHERE seq = 3", 3),
        ("UPDATE audit_log SET data = 17 WHERE seq = 3", 3),
        ("DELETE FROM head", 4),
    ],
)
def test_whatever_stands_in_a_row_it_is_verified_shown_and_exported(
    cli: Cli, chain: Path, tmp_path: Path, statements: str, seq: int
) -> None:
    _damage(chain, statements)
    answer = cli("audit", "verify", "--json")
    assert answer.code == 1
    assert [fault["seq"] for fault in answer.document["faults"]] == [seq]
    assert cli("audit", "tail").code == 0
    assert len(cli("audit", "tail", "--json").document) == 4
    for name in ("log.csv", "log.jsonl"):
        assert cli("audit", "export", str(tmp_path / name)).code == 0
        verified = cli("audit", "verify", str(tmp_path / name), "--json")
        assert verified.code == (0 if "head" in statements else 1)


def test_a_page_that_is_damaged_is_said_with_what_could_be_read(
    cli: Cli, chain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinywindow.safety.services import audit_log

    monkeypatch.setattr(audit_log, "CHUNK_ROWS", 2)
    monkeypatch.setattr(audit_log, "BATCH_ROWS", 2)
    _damage(
        chain,
        "UPDATE audit_log SET data = hex(zeroblob(9000)) WHERE seq = 4;"
        "PRAGMA wal_checkpoint(TRUNCATE)",
    )
    connection = sqlite3.connect(chain)
    size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    raw = chain.read_bytes()
    # The first page that row 4 overflows into says that the next one is where there is none.
    page = raw.index(b"0" * (size - 4)) // size * size
    chain.write_bytes(raw[:page] + b"\xff" * 4 + raw[page + 4 :])
    answer = cli("audit", "verify", "--json")
    assert answer.code == 1, answer
    (fault,) = answer.document["faults"]
    assert fault["seq"] == 2
    assert "cannot be read" in fault["message"]
    assert answer.document["rows"] == 2


def test_what_waits_in_the_outbox_is_said(cli: Cli, chain: Path) -> None:
    cli("kill", "--reason", "x")
    answer = cli("audit", "verify")
    assert answer.code == 0
    assert "1 rows of stops wait" in answer.out


def test_the_anchor_is_looked_for_where_it_is_kept(
    cli: Cli, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the file `KILL`, also where the database lies elsewhere."""
    monkeypatch.setenv("TINYWINDOW_DATABASE", f"sqlite:///{tmp_path}/elsewhere/other.db")
    assert cli("stop").code == 0
    assert (data_dir / "other.db.anchor").exists()
    assert cli("audit", "verify", "--json").document["anchors"] == 1
    findings = cli("doctor", "--json").document["findings"]
    (anchor,) = [one for one in findings if one["subject"] == "anchor"]
    assert anchor["level"] == "OK"


def test_what_cannot_be_read_or_written_is_said(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    for words in (("verify",), ("tail",), ("export", str(tmp_path / "x.csv"))):
        answer = cli("audit", *words)
        assert (answer.code, "there is no database" in answer.err) == (3, True)
    assert not data_dir.exists()
    assert cli("db", "upgrade").code == 0
    assert cli("audit", "export", str(tmp_path / "no" / "x.csv")).code == 3
    assert cli("audit", "verify", str(data_dir)).code == 2
    (data_dir / "tinywindow.db").write_bytes(b"no database" * 1000)
    assert cli("audit", "verify").code == 3


def test_the_tail(cli: Cli, chain: Path) -> None:
    rows = cli("audit", "tail", "-n", "2", "--json").document
    assert [row["seq"] for row in rows] == [3, 4]
    assert rows[1]["event_type"] == "TRADING_STARTED"
    assert len(cli("audit", "tail").out.splitlines()) == 4


# --- doctor and db -----------------------------------------------------------------------------


def test_a_healthy_house(cli: Cli, chain: Path) -> None:
    answer = cli("doctor", "--json")
    assert answer.code == 0
    assert answer.document["healthy"] is True
    subjects = {finding["subject"] for finding in answer.document["findings"]}
    assert {"configuration", "data directory", "database", "anchor", "clock", "kill switch"} <= (
        subjects
    )
    assert any(row["name"] == "run.port" for row in answer.document["settings"])
    assert "Nothing is wrong." in cli("doctor").out


def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(
    cli: Cli, chain: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYWINDOW_POSITION_LIMITS__ALLOWED_SYMBOLS", "BTC/EUR")
    data_dir.chmod(0o777)
    (data_dir / "tokens.json").write_text("{}")
    (data_dir / "tokens.json").chmod(0o644)
    anchor = chain.with_name(chain.name + ".anchor")
    anchor.write_text(json.dumps({"seq": 99, "hash": "x", "time": "x"}) + "\n")
    answer = cli("doctor", "--json")
    assert answer.code == 1
    wrong = [one for one in answer.document["findings"] if one["level"] == "WRONG"]
    assert len(wrong) == 4
    assert all(one["mend"] for one in wrong)


def test_the_doctor_keeps_secrets(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYWINDOW_REDIS", "redis://:hunter2@127.0.0.1:1/0")
    for words in (("doctor",), ("doctor", "--json")):
        answer = cli(*words)
        assert "hunter2" not in answer.out + answer.err
        assert "TINYWINDOW_REDIS" in answer.out


def test_db(cli: Cli) -> None:
    before = cli("db", "current", "--json")
    assert (before.code, before.document["revision"]) == (1, None)
    assert cli("db", "upgrade", "--json").document["upgraded"] is True
    assert cli("db", "upgrade", "--json").document["upgraded"] is False
    after = cli("db", "current", "--json")
    assert (after.code, after.document["up_to_date"]) == (0, True)


# --- replay ------------------------------------------------------------------------------------


def test_replay_finds_the_first_breaches(cli: Cli, candles: Path, data_dir: Path) -> None:
    (found,) = cli("replay", str(candles), "--json").document
    assert (found["symbol"], found["rows"], found["interval_ms"]) == ("BTC/USDT", 6, 60_000)
    assert found["daily_pnl"] == {"first_breach_ms": 180_000, "worst": "-16.0000"}
    assert found["drawdown"] == {"first_breach_ms": 240_000, "worst": "-16.0000"}
    assert not data_dir.exists()


def test_replay_with_other_limits(cli: Cli, candles: Path) -> None:
    words = ("replay", str(candles), "--daily-loss-limit", "-9", "--drawdown-limit=-50", "--json")
    (found,) = cli(*words).document
    assert found["daily_pnl"]["first_breach_ms"] == 120_000
    assert found["drawdown"]["first_breach_ms"] is None
    wrong = cli("replay", str(candles), "--daily-loss-limit", "9", "--drawdown-limit", "0")
    assert wrong.code == 2
    assert "daily_loss_limit" in wrong.err
    assert "drawdown_limit" in wrong.err


def test_replay_for_people_and_of_what_is_no_candle_file(cli: Cli, candles: Path) -> None:
    assert "1970-01-01 00:03" in cli("replay", str(candles)).out
    candles.write_text("timestamp_ms,open,high,low,close,volume\nx\n")
    assert cli("replay", str(candles)).code == 2
