"""R10, R11, R15 and R17 to R19 where the state is in PostgreSQL and the bell is a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pg_writers import assert_chain, query
from postgres import APPLICATION, PostgresServer
from proxy import Proxy
from redis_world import Bot, bot_on, eventually, kill_config
from valkey import Valkey, folder

from tinywindow.safety import KillSwitch, KillSwitchMode
from tinywindow.safety.domain.kill import Latch
from tinywindow.safety.errors import ReleaseRefused
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.location import Location
from tinywindow.safety.stores.ring_value import RING_KEY, ring_of

pytestmark = [pytest.mark.timeout(120)]

CLOSE = KillSwitchMode.CLOSE_POSITIONS
PERP = "BTC/USDT:USDT"
DAY_S = 86_400.0


class MovedClock(SystemClock):
    """The system's clocks, each moved by hand."""

    wall_s = 0.0
    mono_s = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.wall_s)

    def monotonic(self) -> float:
        return super().monotonic() + self.mono_s


@pytest.fixture
def place(durable_url: str, tmp_path: Path) -> Location:
    return Location(durable_url, None, tmp_path / "bot")


@pytest.fixture
async def proxy(durable_postgres_server: PostgresServer) -> AsyncIterator[Proxy]:
    """A way to PostgreSQL that can be cut."""
    with folder() as made:
        target = f"{durable_postgres_server.folder}/.s.PGSQL.5432"
        async with Proxy(target, path=f"{made}/.s.PGSQL.5432") as way:
            yield way


def through(proxy: Proxy, place: Location) -> Location:
    url = f"{place.url.partition('?')[0]}?host={Path(proxy.path).parent}"
    return Location(url, None, place.data_dir)


def latches(url: str) -> list[tuple[str, str]]:
    return query(url, "SELECT mode, source FROM latches")


def activations(url: str) -> int:
    found = "SELECT count(*) FROM audit_log WHERE event_type = 'KILL_SWITCH_ACTIVATE'"
    return int(query(url, found)[0][0])


def journalled(place: Location, kind: str) -> list[dict[str, object]]:
    path = place.data_dir / "journal.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    entries = [json.loads(line) for line in lines]
    return [entry for entry in entries if entry["kind"] == kind]


async def test_R11_without_postgres_the_key_stops_and_closes_and_is_merged_once(
    valkey: Valkey, proxy: Proxy, place: Location
) -> None:
    async with bot_on(valkey.url, through(proxy, place)) as bot:
        assert await bot.entry_is_sent()
        bot.exchange.set_position(PERP, 2)
        await proxy.refuse()
        valkey.raw("SET", RING_KEY, "CLOSE_POSITIONS")
        await eventually(lambda: bot.exchange.position(PERP) == 0)
        assert await bot.switch.is_active()
        assert not await bot.entry_is_sent()
        (entry,) = journalled(place, "latch")
        assert (entry["mode"], entry["source"]) == ("CLOSE_POSITIONS", "REDIS")
        # From here on neither Redis nor its key is needed.
        valkey.raw("FLUSHALL")
        assert await bot.switch.is_active()
        assert latches(place.url) == []
        steps = [str(one["id"]) for one in journalled(place, "audit")]
        await proxy.listen()
        await eventually(lambda: latches(place.url) == [("CLOSE_POSITIONS", "REDIS")])
        await eventually(lambda: activations(place.url) == 1)
        assert await bot.standing() == (entry["id"],)
        assert not await bot.entry_is_sent()
        assert (await bot.switch.wait_flat(20)).flat
    # Whoever starts later in this data directory finds nothing left to merge.
    async with bot_on(valkey.url, place, name="b") as again:
        await again.switch._watch.look()
        assert await again.switch.is_active()
    assert latches(place.url) == [("CLOSE_POSITIONS", "REDIS")]
    assert activations(place.url) == 1
    merged = [row[0] for row in query(place.url, "SELECT id FROM audit_log ORDER BY seq")]
    assert steps
    assert [row for row in merged if row in set(steps)] == list(dict.fromkeys(steps))
    assert_chain(place.url)


async def test_R11_a_method_rings_redis_while_postgres_is_away(
    valkey: Valkey, proxy: Proxy, place: Location, tmp_path: Path
) -> None:
    """The other host has its own way to the database, and learns of the stop from Redis."""
    elsewhere = Location(place.url, None, tmp_path / "elsewhere")
    async with (
        bot_on(valkey.url, through(proxy, place)) as bot,
        bot_on(valkey.url, elsewhere, name="b") as other,
    ):
        await proxy.refuse()
        report = await bot.switch.activate(reason="cut off", actor="ann")
        assert not report.durable
        await eventually(other.latched)
        assert not await other.entry_is_sent()
        await proxy.listen()
        await eventually(lambda: activations(place.url) == 1)
        assert await other.standing() == (report.latch_id,)
    assert len(latches(place.url)) == 1
    assert_chain(place.url)


async def test_R10_a_release_that_postgres_refuses_is_none(
    valkey: Valkey, place: Location, durable_postgres_server: PostgresServer
) -> None:
    database = str(query(place.url, "SELECT current_database()")[0][0])
    right = f"UPDATE ON latches {{}} {APPLICATION}"
    async with bot_on(valkey.url, place) as bot:
        assert await bot.entry_is_sent()
        report = await bot.switch.activate()
        key = valkey.raw("GET", RING_KEY)
        durable_postgres_server.admin(f"REVOKE {right.format('FROM')}", database=database)
        with pytest.raises(ReleaseRefused, match="the database cannot be written"):
            await bot.switch.deactivate()
        # Nothing was taken away elsewhere either: not the key, and not the file.
        assert await bot.switch.is_active()
        assert await bot.standing() == (report.latch_id,)
        assert valkey.raw("GET", RING_KEY) == key
        assert (place.data_dir / "KILL").exists()
        assert await bot.refused_for() == "KILL_SWITCH_ACTIVE"
        durable_postgres_server.admin(f"GRANT {right.format('TO')}", database=database)
        await bot.restart_trading()
        await bot.feed()
        assert await bot.entry_is_sent()


async def test_R17_a_ring_that_crosses_a_release_is_taken_back(
    valkey: Valkey, place: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host had seen a stop and was about to ring for it, and slept until it was released."""
    about, awake = asyncio.Event(), asyncio.Event()
    landed: list[object] = []
    slept = Location(place.url, None, tmp_path / "sleeper")
    async with bot_on(valkey.url, slept, name="s", write_timeout=30) as sleeper:
        sleeper.exchange.set_position(PERP, 2)
        bell = sleeper.switch._register.doorbell
        assert bell is not None
        ring = bell.ring

        async def late(latch: Latch, *, replacing: bytes | None = None) -> None:
            about.set()
            await awake.wait()
            await ring(latch, replacing=replacing)
            landed.append(valkey.raw("GET", RING_KEY))

        monkeypatch.setattr(bell, "ring", late)
        # From a host without Redis, so that whoever sees it first has to ring for it.
        without = Location(place.url, None, tmp_path / "without")
        async with KillSwitch(None, {}, without, config=kill_config()) as operator:
            report = await operator.activate(CLOSE)
        await asyncio.wait_for(about.wait(), 10)
        async with bot_on(valkey.url, place) as bot:
            await bot.restart_trading()
            assert valkey.raw("EXISTS", RING_KEY) == 0
            awake.set()
            await eventually(lambda: landed)
            assert isinstance(landed[0], bytes)
            assert ring_of(landed[0]).latch_id == report.latch_id
            # It rang for a stop that is history, and takes that back by itself.
            await eventually(lambda: valkey.raw("EXISTS", RING_KEY) == 0)
            for one in (bot, sleeper):
                await one.feed()
                await eventually(one.entry_is_sent)
        assert sleeper.exchange.position(PERP) == 2
    assert latches(place.url) == [("CLOSE_POSITIONS", "PYTHON")]


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S], ids=["forward", "back"])
async def test_R15_a_clock_that_jumps_refuses_entries_and_ends_no_stop(
    valkey: Valkey, place: Location, jump_s: float
) -> None:
    clock = MovedClock()
    async with bot_on(valkey.url, place, clock=clock) as bot:
        assert await bot.entry_is_sent()
        clock.wall_s = jump_s
        assert await bot.refused_for() == "CLOCK_UNTRUSTED"
        valkey.raw("SET", RING_KEY, "1")
        await eventually(bot.latched)
        valkey.raw("FLUSHALL")
        for clock.wall_s in (0.0, jump_s, -jump_s):
            assert await bot.switch.is_active()
            assert await bot.refused_for() == "KILL_SWITCH_ACTIVE"
        assert len(bot.exchange.sent) == 1
    assert len(latches(place.url)) == 1


async def test_R15_after_a_pause_everything_is_read_again_before_an_order(
    valkey: Valkey, place: Location, tmp_path: Path
) -> None:
    """A machine that slept: both clocks went on, and what was known is old."""
    clock = MovedClock()
    elsewhere = Location(place.url, None, tmp_path / "elsewhere")
    async with (
        bot_on(valkey.url, place, clock=clock) as bot,
        bot_on(valkey.url, elsewhere, name="b") as other,
    ):
        assert await bot.entry_is_sent()
        clock.wall_s = clock.mono_s = 600.0
        assert not await bot.entry_is_sent()
        # Until it was looked after again, and fed.
        await bot.feed()
        assert await bot.entry_is_sent()
        # What came while it slept, and has gone from Redis since, is found in PostgreSQL.
        await other.switch.activate(reason="while it slept")
        valkey.raw("FLUSHALL")
        clock.wall_s = clock.mono_s = 1_200.0
        await bot.feed()
        assert await bot.refused_for() == "KILL_SWITCH_ACTIVE"
    assert activations(place.url) == 1


async def test_R18_yesterdays_journal_is_history_after_todays_release(
    valkey: Valkey, place: Location
) -> None:
    async with bot_on(valkey.url, place) as bot:
        report = await bot.switch.activate(CLOSE)
        latch = (await bot.switch.get_status()).latches[-1]
        await bot.restart_trading()
        # As if the line had been written by a process that was cut off, and read only now.
        bot.switch._register.write_journal(latch)
        await bot.switch._watch.look()
        assert not await bot.switch.is_active()
    async with bot_on(valkey.url, place, name="b") as again:
        await again.switch._watch.look()
        assert not await again.switch.is_active()
        assert await again.standing() == ()
        assert await again.entry_is_sent()
    assert query(place.url, "SELECT id FROM latches") == [(report.latch_id,)]
    assert activations(place.url) == 1


async def _release(bot: Bot) -> None:
    seen = await bot.switch.get_status()
    await bot.switch.deactivate(seen=seen, reason="seen", actor="operator")


async def test_R19_a_stop_in_redis_during_a_release_stands(valkey: Valkey, place: Location) -> None:
    async with bot_on(valkey.url, place) as bot:
        first = await bot.switch.activate()
        seen = await bot.switch.get_status()
        valkey.raw("SET", RING_KEY, "a newer stop")
        await bot.switch.deactivate(seen=seen)
        assert await bot.switch.is_active()
        await eventually(bot.latched)
        assert first.latch_id not in await bot.standing()
        assert not await bot.entry_is_sent()
        await _release(bot)
        await eventually(lambda: not valkey.raw("EXISTS", RING_KEY))
        assert not await bot.switch.is_active()
    assert len(latches(place.url)) == 2
