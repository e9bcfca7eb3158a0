"""`tinywindow kill` beyond its host: through PostgreSQL, through Redis, and whichever is there."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pg_drafts import latch
from pg_writers import query
from postgres import PostgresServer
from proxy import Proxy
from valkey import Valkey, folder

from program import SOAK, Said, forked, tinywindow
from tinywindow.safety import KillSwitch, PositionLimitEnforcer
from tinywindow.safety.domain.audit import utc_text
from tinywindow.safety.services.location import Location
from tinywindow.safety.stores.latch_fields import activation_draft, latch_to_fields
from tinywindow.safety.stores.migrate import upgrade_sqlite
from tinywindow.safety.stores.pg.stop import PostgresStop
from tinywindow.safety.stores.postgres import PostgresStore
from tinywindow.safety.stores.ring_value import RING_KEY

pytestmark = [pytest.mark.timeout(120)]

ORDER = {"symbol": "BTC/USDT", "side": "BUY", "amount": "0.001", "client_order_id": "after"}


async def until(met: Callable[[], Awaitable[Any]], what: str) -> Any:
    deadline = time.monotonic() + 20
    while True:
        found = await met()
        if found:
            return found
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


def operator(tmp_path: Path, **places: str) -> dict[str, str]:
    """Another host's surroundings: a data directory that no bot looks at."""
    named = {f"TINYWINDOW_{name.upper()}": value for name, value in places.items()}
    return {**os.environ, "TINYWINDOW_DATA_DIR": str(tmp_path / "operator"), **named}


async def kill(environ: dict[str, str], *words: str) -> Said:
    return await asyncio.to_thread(
        tinywindow, "kill", "--reason", "odd fills", "--json", *words, env=environ
    )


async def told_by(environ: dict[str, str], *words: str) -> tuple[int, str]:
    """Run a command in a fork, without paying for its imports; its exit code and what it said."""
    log = Path(environ["TINYWINDOW_DATA_DIR"]) / f"said-{time.monotonic_ns()}"
    process = forked(*words, log=log, environ=environ)
    await asyncio.to_thread(process.join, 60)
    assert process.exitcode is not None, words
    return process.exitcode, log.read_text()


def rows_of(url: str, latch_id: str) -> tuple[int, int]:
    """How often the database has a stop, and how often the audit log or the outbox tells of it."""
    latches = query(url, "SELECT id FROM latches WHERE id = %s", latch_id)
    name = f"activate-{latch_id}"
    told = query(
        url,
        "SELECT id FROM audit_log WHERE id = %s UNION ALL SELECT id FROM outbox WHERE id = %s",
        name,
        name,
    )
    return len(latches), len(told)


@pytest.fixture
async def proxied(
    durable_postgres_server: PostgresServer, durable_url: str
) -> AsyncIterator[tuple[Proxy, str]]:
    """The same database behind a proxy that can hang and refuse."""
    with folder() as place:
        target = f"{durable_postgres_server.folder}/.s.PGSQL.5432"
        async with Proxy(target, path=f"{place}/.s.PGSQL.5432") as proxy:
            yield proxy, durable_url.partition("?")[0] + f"?host={place}"


async def test_a_bot_on_another_host_is_stopped_through_postgres_alone(
    durable_url: str, tmp_path: Path
) -> None:
    bot = Location(durable_url, None, tmp_path / "bot")
    async with KillSwitch(None, (), bot) as switch, PositionLimitEnforcer(bot) as limits:
        assert not await switch.is_active()
        said = await kill(operator(tmp_path, database=durable_url))
        assert said.code == 0, said
        told = said.document
        assert (told["in_file"], told["durable"], told["in_redis"]) == (True, True, None)
        # No look at any file: the order itself reads the database.
        refused = await limits.check_order_allowed(ORDER)
        assert refused.reason_code == "KILL_SWITCH_ACTIVE"
        status = await switch.get_status()
        assert (status.latch_ids, status.reason) == ((told["latch_id"],), "odd fills")
        assert not (tmp_path / "bot" / "KILL").exists()
    assert query(durable_url, "SELECT trading FROM head") == [("STOPPED",)]
    assert rows_of(durable_url, told["latch_id"]) == (1, 1)
    print(f"PostgreSQL held the stop {said.took_s * 1000:.0f} ms after the command's start")


async def test_a_bot_on_the_same_host_makes_no_second_stop_of_it(
    durable_url: str, valkey: Valkey, tmp_path: Path
) -> None:
    bot = Location(durable_url, None, tmp_path / "operator")
    async with KillSwitch(valkey.url, (), bot) as switch:
        assert not await switch.is_active()
        said = await kill(operator(tmp_path, database=durable_url, redis=valkey.url))
        told = said.document
        assert (said.code, told["in_redis"], told["durable"]) == (0, True, True), said
        await until(lambda: _drained(durable_url), "the audit row follows")
        assert (await switch.get_status()).latch_ids == (told["latch_id"],)
        assert query(durable_url, "SELECT id FROM latches") == [(told["latch_id"],)]
        assert rows_of(durable_url, told["latch_id"]) == (1, 1)
        with valkey.client() as reader:
            envelope = json.loads(reader.get(RING_KEY) or "")
        assert [one["id"] for one in envelope["latches"]] == [told["latch_id"]]


async def _drained(url: str) -> bool:
    return not query(url, "SELECT 1 FROM outbox") and bool(query(url, "SELECT 1 FROM audit_log"))


@pytest.mark.parametrize("how", ["refuses", "hangs"] if SOAK else ["refuses"])
async def test_with_the_database_down_redis_alone_stops_a_bot_elsewhere(
    proxied: tuple[Proxy, str], durable_url: str, valkey: Valkey, tmp_path: Path, how: str
) -> None:
    proxy, url = proxied
    surroundings = operator(tmp_path, database=url, redis=valkey.url)
    async with KillSwitch(valkey.url, (), Location(url, None, tmp_path / "bot")) as switch:
        assert not await switch.is_active()
        proxy.hang = how == "hangs"
        if how == "refuses":
            await proxy.refuse()
        said = await kill(surroundings)
        told = said.document
        assert said.code == 3
        places = ("latched", "in_file", "journalled", "durable", "in_redis")
        assert [told[name] for name in places] == [True, True, True, False, True]
        (error,) = told["errors"]
        assert "the database could not take the latch" in error
        status = await switch.get_status()
        assert any(one.source.value == "REDIS" for one in status.latches), status
        assert query(durable_url, "SELECT id FROM latches") == []
        proxy.hang = False
        if how == "refuses":
            await proxy.listen()
        stop_id = told["latch_id"]
        await until(lambda: _stands(durable_url, stop_id), "the bot latches what it heard")
        # The operator's host merges its file and its journal when anything runs there.
        code, shown = await told_by(surroundings, "status")
        assert code == 0, shown
        assert "HALT_ONLY" in shown
        assert rows_of(durable_url, stop_id) == (1, 1)
        if not SOAK:
            return
        code, shown = await told_by(surroundings, "release", "--reason", "seen")
        assert code == 0, shown
        assert stop_id in shown
        await until(lambda: _inactive(switch), "the release reaches the bot")
    # Neither the file nor the journal brings a released stop back.
    _, shown = await told_by(surroundings, "status")
    assert "not active" in shown
    assert rows_of(durable_url, stop_id) == (1, 1)


async def _stands(url: str, latch_id: str) -> bool:
    return bool(query(url, "SELECT 1 FROM latches WHERE id = %s", latch_id))


async def _inactive(switch: KillSwitch) -> bool:
    return not await switch.is_active()


async def test_an_sqlite_stop_rings_redis_too(valkey: Valkey, tmp_path: Path) -> None:
    surroundings = operator(tmp_path, redis=valkey.url)
    (tmp_path / "operator").mkdir()
    upgrade_sqlite(tmp_path / "operator" / "tinywindow.db")
    said = await kill(surroundings)
    told = said.document
    assert (said.code, told["durable"], told["in_redis"], told["journalled"]) == (
        *(0, True, True, False),
    ), said
    # A bot that shares nothing but Redis, with a database of its own.
    async with KillSwitch(valkey.url, (), tmp_path / "elsewhere" / "own.db") as switch:
        assert await switch.is_active()
        await until(lambda: _knows(switch, told["latch_id"]), "latched under its own id")


async def _knows(switch: KillSwitch, latch_id: str) -> bool:
    return (await switch.get_status()).latch_ids == (latch_id,)


async def test_it_writes_what_the_store_writes(
    durable_postgres_server: PostgresServer, durable_url: str
) -> None:
    stop = latch("K1")
    other = durable_postgres_server.url(durable_postgres_server.new_database())
    store = await PostgresStore.open(other)

    def script(tx: Any) -> None:
        if tx.add_latch(stop):
            tx.outbox(activation_draft(stop))

    await store.transact(script)
    await store.close()
    fast = PostgresStop(durable_url)
    for _ in range(2):  # the second time it is known
        await asyncio.to_thread(fast.latch, latch_to_fields(stop), utc_text(stop.activated_at))
    fast.close()
    for statement in ("SELECT * FROM latches", "SELECT * FROM head", "SELECT * FROM outbox"):
        assert query(durable_url, statement) == query(other, statement), statement
