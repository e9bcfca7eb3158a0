"""Every command on a PostgreSQL database: the same words as on SQLite, and the same answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres import APPLICATION, OWNER, PostgresServer

from tinywindow.cli.findings import Finding, Level
from tinywindow.cli.postgres_findings import postgres
from tinywindow.safety import CircuitBreaker, PositionLimitEnforcer
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.location import Location
from tinywindow.safety.stores.pg.ddl import needed_rights

pytestmark = [pytest.mark.timeout(120)]

ORDER = '{"symbol": "BTC/USDT", "side": "BUY", "amount": 0.01}'


Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def _on_postgres(durable_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYWINDOW_DATABASE", durable_url)


def query(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    connection = psycopg.connect(url, autocommit=True)
    try:
        return connection.execute(statement.encode(), values).fetchall()
    finally:
        connection.close()


def test_a_day_of_an_operator(cli: Cli, durable_url: str, data_dir: Path) -> None:
    async def feed() -> None:
        async with PositionLimitEnforcer(Location(durable_url, None, data_dir)) as limits:
            await limits.record_equity(20_000)
            await limits.set_reference_price("BTC/USDT", 50_000)

    asyncio.run(feed())
    assert cli("check", ORDER, "--json").document["allowed"] is True
    too_large = cli("check", ORDER.replace("0.01", "1"), "--json")
    assert (too_large.code, too_large.document["reason_code"]) == (1, "POSITION_SIZE")
    assert query(durable_url, "SELECT 1 FROM orders") == []
    assert cli("stop", "--reason", "lunch", "--json").document["changed"] is True
    assert cli("start", "--json").document == {"trading": "RUNNING", "changed": True}
    stopped = cli("kill", "--reason", "odd", "--json").document
    assert (stopped["durable"], stopped["in_file"]) == (True, True)
    assert cli("start").code == 1
    status = cli("status", "--json").document
    assert status["kill_switch"]["latch_ids"] == [stopped["latch_id"]]
    assert (status["kill_switch"]["closing"], status["trading"]) == (None, "STOPPED")
    assert status["limits"]["max_total_exposure"] == "50000"
    released = cli("release", "--reason", "looked at", "--json")
    assert (released.code, released.document["active"]) == (0, False)
    assert not (data_dir / "KILL").exists()
    assert cli("start").code == 0
    events = [row["event_type"] for row in cli("audit", "tail", "--json").document]
    wanted = {"KILL_SWITCH_ACTIVATE", "KILL_SWITCH_DEACTIVATE", "TRADING_STARTED"}
    assert wanted <= set(events)
    assert cli("db", "current", "--json").document["up_to_date"] is True


def test_a_trip_is_reset(cli: Cli, durable_url: str, data_dir: Path) -> None:
    async def trip() -> None:
        async with CircuitBreaker(None, Location(durable_url, None, data_dir)) as breaker:
            for n in range(5):
                await breaker.record_execution(ok=False, client_order_id=f"o{n}")
            assert (await breaker.check_all_metrics()).is_halted

    asyncio.run(trip())
    halted = cli("status", "--json").document["circuit_breaker"]
    assert "CONSECUTIVE_FAILURES" in halted["halt_reason"]
    reset = cli("reset", "--operator", "ann", "--reason", "mended", "--yes", "--json")
    assert (reset.code, reset.document["reset"]) == (0, True), reset
    assert cli("status", "--json").document["circuit_breaker"]["is_halted"] is False


def test_the_audit_log_is_read_and_a_change_is_found(
    cli: Cli, durable_url: str, durable_postgres_server: PostgresServer, tmp_path: Path
) -> None:
    for word in ("stop", "start", "stop", "start"):
        assert cli(word).code == 0
    whole = cli("audit", "verify", "--json")
    assert (whole.code, whole.document["rows"]) == (0, 4)
    assert whole.document["anchors"] >= 1
    export = tmp_path / "log.csv"
    assert cli("audit", "export", str(export), "--json").document["rows"] == 4
    assert cli("audit", "verify", str(export)).code == 0
    database = durable_url.partition("@/")[2].partition("?")[0]
    # Whatever revision the schema has, and whatever else is gone, the log is verified.
    durable_postgres_server.admin(
        "UPDATE alembic_version SET version_num = '9999'",
        "DROP TABLE positions, orders CASCADE",
        database=database,
    )
    assert cli("audit", "verify").code == 0
    assert cli("status").code == 3
    durable_postgres_server.admin(
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "UPDATE audit_log SET actor = 'nobody' WHERE seq = 2",
        database=database,
    )
    broken = cli("audit", "verify", "--json")
    assert broken.code == 1
    assert [fault["seq"] for fault in broken.document["faults"]] == [2]


def test_an_auditor_needs_no_more_than_to_read(
    cli: Cli,
    durable_url: str,
    durable_postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cli("stop").code == 0
    database = durable_url.partition("@/")[2].partition("?")[0]
    durable_postgres_server.admin(
        "DO $$ BEGIN CREATE ROLE tw_auditor LOGIN; EXCEPTION WHEN duplicate_object THEN END $$",
        "GRANT SELECT ON audit_log, head TO tw_auditor",
        database=database,
    )
    auditor = durable_postgres_server.url(database, "tw_auditor")
    monkeypatch.setenv("TINYWINDOW_DATABASE", auditor)
    found = cli("audit", "verify", "--json")
    assert (found.code, found.document["rows"], found.document["waiting"]) == (0, 1, None)


def test_a_server_that_is_away_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYWINDOW_DATABASE", "postgresql://u:hunter2@127.0.0.1:1/x")
    for words in (("audit", "verify"), ("db", "current"), ("stop",), ("check", ORDER)):
        answer = cli(*words)
        assert (answer.code, answer.out) == (3, ""), words
        assert "hunter2" not in answer.err
    doctor = cli("doctor")
    assert (doctor.code, "cannot be asked" in doctor.out) == (1, True)
    assert "hunter2" not in doctor.out + doctor.err


def test_status_tells_what_this_host_knows_while_the_server_is_away(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYWINDOW_DATABASE", "postgresql://u:hunter2@127.0.0.1:1/x")
    bare = cli("status", "--json")
    told = bare.document
    assert (bare.code, told["exit_code"]) == (3, 3)
    # No file is no word that nothing stands.
    assert (told["kill_switch"]["active"], told["trading"]) == (None, "UNKNOWN")
    assert (told["entries_refused"], told["circuit_breaker"]) == (True, None)
    assert "says nothing of stops in the database" in cli("status").out
    stop = ("kill", "--reason", "[b]odd[/b]", "--mode", "CLOSE_POSITIONS", "--json")
    latch_id = cli(*stop).document["latch_id"]
    switch = cli("status", "--json").document["kill_switch"]
    assert (switch["active"], switch["mode"]) == (True, "CLOSE_POSITIONS")
    assert (switch["latch_ids"], switch["reason"]) == ([latch_id], "[b]odd[/b]")
    shown = cli("status")
    assert shown.code == 3
    for word in (latch_id, "CLOSE_POSITIONS", "[b]odd[/b]", "entries are refused", "UNKNOWN"):
        assert word in shown.out
    assert "hunter2" not in shown.out + shown.err + bare.out + bare.err


# --- db and doctor -----------------------------------------------------------------------------


def test_the_schema_is_made_by_its_owner(
    cli: Cli, durable_postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = durable_postgres_server.new_database(empty=True)
    monkeypatch.setenv("TINYWINDOW_DATABASE", durable_postgres_server.url(name))
    assert cli("db", "current").code == 1
    assert "has no schema" in cli("start").err
    assert "no schema of ours" in cli("doctor").out
    monkeypatch.setenv("TINYWINDOW_DATABASE", durable_postgres_server.url(name, OWNER))
    words = ("db", "upgrade", "--grant-to", APPLICATION, "--json")
    assert [cli(*words).document["upgraded"] for _ in range(2)] == [True, False]
    monkeypatch.setenv("TINYWINDOW_DATABASE", durable_postgres_server.url(name))
    assert cli("start").code == 0
    assert cli("db", "upgrade", "--grant-to", "Robert'); DROP").code == 2


def found(url: str, data_dir: Path) -> dict[Level, list[Finding]]:
    levels: dict[Level, list[Finding]] = {level: [] for level in Level}
    for one in postgres(Location(url, None, data_dir), SystemClock().now()):
        levels[one.level].append(one)
        assert one.mend or one.level is not Level.WRONG, one
    return levels


def test_a_healthy_server(cli: Cli) -> None:
    assert cli("stop").code == 0
    answer = cli("doctor", "--json")
    assert answer.code == 0, answer.document
    said = " ".join(one["what"] for one in answer.document["findings"])
    for words in ("PostgreSQL 1", "durable", "the newest", "neither change nor delete", "anchored"):
        assert words in said


def test_what_is_wrong_with_a_server_and_its_rights(
    durable_url: str, durable_postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    (fsync,) = [one for one in found(postgres_url, tmp_path)[Level.WRONG] if "fsync" in one.what]
    assert "set fsync = on" in fsync.mend
    database = durable_url.partition("@/")[2].partition("?")[0]
    assert found(durable_url, tmp_path)[Level.WRONG] == []
    durable_postgres_server.admin(
        f"ALTER DATABASE {database} SET synchronous_commit = off",
        f"GRANT UPDATE ON audit_log TO {APPLICATION}",
        f"REVOKE INSERT ON latches FROM {APPLICATION}",
        f"REVOKE ALL ON SEQUENCE marks_id_seq FROM {APPLICATION}",
        "ALTER TABLE audit_log DISABLE TRIGGER audit_log_no_change",
        database=database,
    )
    (tmp_path / "audit.anchor").write_text('{"seq": 9, "hash": "x", "time": "x"}\n')
    wrong = " ".join(one.what for one in found(durable_url, tmp_path)[Level.WRONG])
    for words in (
        "synchronous_commit is off",
        "may change or delete audit rows",
        "lacks INSERT ON latches, USAGE ON marks_id_seq",
        "are gone or switched off",
        "does not hold the anchored row 9",
    ):
        assert words in wrong
    owner = found(durable_postgres_server.url(database, OWNER), tmp_path)[Level.NOTE]
    assert any("owns the tables" in one.what for one in owner)
    root = found(durable_postgres_server.url(database, "postgres"), tmp_path)[Level.NOTE]
    assert any("superuser" in one.what for one in root)
    durable_postgres_server.admin(
        f"ALTER DATABASE {database} SET default_transaction_read_only = on"
    )
    wrong = " ".join(one.what for one in found(durable_url, tmp_path)[Level.WRONG])
    assert "read-only" in wrong


def test_the_rights_that_are_looked_for_are_those_that_are_granted(durable_url: str) -> None:
    held = query(
        durable_url,
        "SELECT privilege_type, table_name FROM information_schema.role_table_grants"
        " WHERE grantee = current_user",
    )
    tables = {(right, name) for kind, right, name in needed_rights() if kind == "table"}
    assert tables == set(held)
