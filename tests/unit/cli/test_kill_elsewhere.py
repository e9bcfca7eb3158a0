"""`kill` with PostgreSQL and Redis configured: what it says of each place, and of who closes.

That bots on other hosts are stopped by it is shown in tests/integration.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from valkey import Valkey

from tinywindow.cli import closing_look, kill_wait
from tinywindow.cli.kill_elsewhere import Elsewhere
from tinywindow.safety.stores.ring_value import RING_KEY

Cli = Callable[..., Any]
Setenv = Callable[..., None]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Setenv:
    monkeypatch.setattr(closing_look, "LOOK_FOR_S", 0.2)

    def configure(**places: str) -> None:
        for name, value in places.items():
            monkeypatch.setenv(f"TINYWINDOW_{name.upper()}", value)

    return configure


def query(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    connection = psycopg.connect(url, autocommit=True)
    try:
        return connection.execute(statement.encode(), values).fetchall()
    finally:
        connection.close()


def test_redis_down_hides_no_latch_and_is_said(
    cli: Cli, configured: Setenv, durable_url: str, tmp_path: Path
) -> None:
    configured(database=durable_url, redis=f"unix://{tmp_path}/nothing.sock")
    said = cli("kill", "--reason", "x", "--json")
    told = said.document
    assert (said.code, told["durable"], told["in_redis"]) == (3, True, False)
    assert ["Redis could not be rung" in error for error in told["errors"]] == [True]
    assert query(durable_url, "SELECT id FROM latches") == [(told["latch_id"],)]


def test_the_database_down_hides_no_ring_and_is_said(
    cli: Cli, configured: Setenv, valkey: Valkey
) -> None:
    configured(database="postgresql://u:hunter2@127.0.0.1:1/x", redis=valkey.url)
    said = cli("kill", "--reason", "x", "--json")
    told = said.document
    places = ("latched", "in_file", "journalled", "durable", "in_redis")
    assert said.code == 3
    assert [told[name] for name in places] == [True, True, True, False, True]
    assert "hunter2" not in said.out + said.err


def test_a_data_directory_that_takes_nothing_hides_neither(
    cli: Cli, configured: Setenv, durable_url: str, valkey: Valkey, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    configured(database=durable_url, redis=valkey.url, data_dir=str(tmp_path / "file" / "sub"))
    said = cli("kill", "--reason", "x", "--json")
    told = said.document
    assert said.code == 0
    places = ("latched", "in_file", "journalled", "durable", "in_redis")
    assert [told[name] for name in places] == [True, False, False, True, True]
    said = cli("kill", "--reason", "x")
    assert "NOTHING WAS LATCHED" not in said.err
    assert said.out.startswith("Stopped: HALT_ONLY is latched as K")
    assert "held by PostgreSQL" in said.out


def test_where_nothing_at_all_takes_the_stop_it_says_so(
    cli: Cli, configured: Setenv, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    nowhere = f"unix://{tmp_path}/nothing.sock"
    configured(redis=nowhere, data_dir=str(tmp_path / "file" / "sub"))
    said = cli("kill", "--reason", "x")
    assert (said.code, "Stopped" in said.out) == (3, False)
    assert said.err.count("NOTHING WAS LATCHED") == 1


def test_a_schema_that_is_missing_is_said(cli: Cli, configured: Setenv, durable_url: str) -> None:
    configured(database=durable_url.replace("/t", "/template1?x=t", 1).partition("?x")[0]
               + "?" + durable_url.partition("?")[2])  # fmt: skip
    said = cli("kill", "--reason", "x", "--json")
    assert (said.code, said.document["durable"], said.document["journalled"]) == (3, False, True)


@pytest.mark.parametrize(("mode", "code"), [("HALT_ONLY", 0), ("CLOSE_POSITIONS", 3)])
def test_a_stop_that_somebody_rang_by_hand_is_left_to_be_seen(
    cli: Cli, configured: Setenv, valkey: Valkey, mode: str, code: int
) -> None:
    configured(redis=valkey.url)
    with valkey.client() as hand:
        hand.set(RING_KEY, "1")
        said = cli("kill", "--reason", "x", "--json", "--mode", mode)
        assert (said.code, said.document["in_redis"]) == (code, False), said
        assert "another stop" in said.out
        assert hand.get(RING_KEY) == b"1"


def test_for_people_it_says_each_place(cli: Cli, configured: Setenv, durable_url: str) -> None:
    configured(database=durable_url, redis="redis://:hunter2@127.0.0.1:1/0")
    said = cli("kill", "--reason", "x")
    assert said.code == 3
    assert "held by the file KILL, the journal" in said.out
    assert "  held by PostgreSQL\n  NOT held by Redis\n" in said.out
    assert "Redis could not be rung" in said.err
    assert "hunter2" not in said.out + said.err


def test_nobody_closes_and_somebody_does(cli: Cli, configured: Setenv, durable_url: str) -> None:
    configured(database=durable_url)
    words = ("kill", "--reason", "x", "--json", "--mode", "CLOSE_POSITIONS")
    alone = cli(*words)
    assert (alone.code, alone.document["closing"]) == (1, False)
    assert "NOBODY IS CLOSING" in alone.err
    query(
        durable_url,
        "INSERT INTO leases (name, owner, fence, heartbeat_ms) VALUES ('flatten/v', 'o', 1, %s)"
        " RETURNING 1",
        int(time.time() * 1000) + 60_000,
    )
    answered = cli(*words)
    assert (answered.document["closing"], answered.err) == (True, "")


def test_waiting_on_postgres_says_that_nobody_closes(
    cli: Cli, configured: Setenv, durable_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(database=durable_url)
    monkeypatch.setattr(kill_wait, "PATIENCE_S", 0.3)
    said = cli("kill", "--reason", "x", "--mode", "CLOSE_POSITIONS", "--wait", "--json")
    assert (said.code, said.document["error"]) == (1, "NOBODY IS CLOSING")
    assert said.document["durable"] is True


def test_the_key_is_taken_back_where_the_stop_was_released_meanwhile(valkey: Valkey) -> None:
    gone: dict[str, object] = {
        "id": "Kgone",
        "mode": "HALT_ONLY",
        "reason": "x",
        "actor": "x",
        "source": "CLI",
        "activated_ms": 4,
    }
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "CREATE TABLE latches (id, released_ms); INSERT INTO latches VALUES ('Kgone', 5)"
    )
    told = Elsewhere(gone, "", None, valkey.url, lambda text: connection.execute(text).fetchall())
    told.tell()
    connection.close()
    assert (told.in_redis, told.redis_failed, told.errors) == (False, False, [])
    assert "released this stop meanwhile" in told.notes[0]
    with valkey.client() as reader:
        assert reader.get(RING_KEY) is None
