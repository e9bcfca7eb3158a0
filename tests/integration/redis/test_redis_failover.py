"""R3, R4, R17, R18: failovers, old primaries and processes that slept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis.asyncio.sentinel import Sentinel
from redis_world import Bot, bot_on, eventually
from valkey import Sentinels, Valkey, folder, free_port, until

from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.errors import ConfigurationError, DoorbellUnavailable
from tinywindow.safety.services import kill_watch
from tinywindow.safety.stores.redis import RedisDoorbell
from tinywindow.safety.stores.ring_value import RING_KEY, ring_of

CLOSE = KillSwitchMode.CLOSE_POSITIONS


def latch(latch_id: str, mode: KillSwitchMode = KillSwitchMode.HALT_ONLY) -> Latch:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Latch(latch_id, mode, "why", "who", LatchSource.PYTHON, at)


@pytest.fixture
def pair() -> Iterator[tuple[Valkey, Valkey]]:
    """A primary and its replica, both on TCP."""
    with folder() as place:
        quick = ("--save", "", "--repl-diskless-sync-delay", "0")
        primary = Valkey(place, "p", free_port(), quick).start()
        replica = Valkey(place, "r", free_port(), quick).start()
        try:
            replica.replicate(primary)
            yield primary, replica
        finally:
            primary.kill()
            replica.kill()


async def test_R3_a_replica_that_missed_the_write_is_promoted_and_rung_again(
    pair: tuple[Valkey, Valkey], tmp_path: Path
) -> None:
    primary, replica = pair
    # The address that the bot knows moves over to the replica, as a name in DNS does.
    moving = f"{primary.folder}/moving.sock"
    Path(moving).symlink_to(primary.path)
    async with bot_on(f"unix://{moving}", tmp_path / "t.db") as bot:
        await eventually(bot.entry_is_sent)
        # The link breaks: it stays a replica, of nobody whom it could reach.
        replica.raw("REPLICAOF", "127.0.0.1", str(free_port()))
        primary.raw("SET", RING_KEY, "1")
        await eventually(bot.latched)
        assert replica.raw("EXISTS", RING_KEY) == 0
        primary.kill()
        replica.promote()
        Path(moving).unlink()
        Path(moving).symlink_to(replica.path)
        assert await bot.switch.is_active()
        assert not await bot.entry_is_sent()
        await eventually(lambda: replica.raw("EXISTS", RING_KEY))


async def test_R4_an_old_primary_returns_with_a_released_envelope_and_never_closes(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kill_watch, "RELEASE_GRACE_S", 0.2)
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        await bot.switch.activate(CLOSE)
        old = valkey.raw("GET", RING_KEY)
        assert isinstance(old, bytes)
        assert ring_of(old).mode is CLOSE
        await bot.restart_trading()
        await bot.feed()
        await eventually(bot.entry_is_sent)
        await asyncio.sleep(0.3)
        sent = len(bot.exchange.sent)
        valkey.raw("SET", RING_KEY, old)  # type: ignore[arg-type]
        await eventually(bot.latched)
        status = await bot.switch.get_status()
        assert status.mode == "HALT_ONLY"
        assert status.latch_ids[0].startswith("again-")
        assert "is back in Redis" in str(status.reason)
        await asyncio.sleep(0.3)
        assert len(bot.exchange.sent) == sent
        assert bot.exchange.position("BTC/USDT") > 0
        await bot.switch.deactivate()
        assert not await bot.switch.is_active()


async def test_R17_a_process_that_slept_rings_a_released_close_again(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It re-reads the latch after its SET, and takes the ring back; if it dies between: HALT."""
    monkeypatch.setattr(kill_watch, "RELEASE_GRACE_S", 0.2)
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        report = await bot.switch.activate(CLOSE)
        sleeper_knew = (await bot.switch.get_status()).latches[-1]
        await bot.restart_trading()
        await asyncio.sleep(0.3)
        # With its second look: nothing stays.
        register = bot.switch._register
        await register.ring(sleeper_knew)
        await bot.switch._watch._take_back_if_released(sleeper_knew)
        assert valkey.raw("EXISTS", RING_KEY) == 0
        # Without it: a halt, and no close.
        bell = RedisDoorbell.at(valkey.url)
        await bell.ring(sleeper_knew)
        await bell.close()
        await eventually(bot.latched)
        assert (await bot.switch.get_status()).mode == "HALT_ONLY"
        assert report.latch_id not in await bot.standing()


async def test_R17_a_sighting_from_before_a_release_never_closes(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        valkey.raw("SET", RING_KEY, "CLOSE_POSITIONS")
        await eventually(bot.latched)
        await bot.restart_trading()
        register = bot.switch._register
        notes, ring = register.notes, ring_of(b"CLOSE_POSITIONS")
        before = register.clock.now() - timedelta(hours=1)
        # The very stop that was released since: nothing is latched again.
        notes.heard(ring, register.clock.monotonic() - 3600, before)
        await bot.switch._watch.look()
        assert not await bot.switch.is_active()
        # Another one, seen then and by nobody else: a stop, but it closes nothing any more.
        other = replace(ring, raw=b'{"mode": "CLOSE_POSITIONS"}')
        notes.heard(other, register.clock.monotonic() - 3600, before)
        assert await bot.switch.is_active()
        await bot.switch._watch.look()
        assert await bot.latched()
        assert (await bot.switch.get_status()).mode == "HALT_ONLY"


async def test_R18_yesterdays_journal_is_history_after_todays_release(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        report = await bot.switch.activate(CLOSE)
        bot.switch._register.write_journal((await bot.switch.get_status()).latches[-1])
        await bot.restart_trading()
        assert not await bot.latched()
    async with bot_on(valkey.url, tmp_path / "t.db", name="b") as again:
        await again.switch._watch.look()
        assert not await again.switch.is_active()
        assert report.latch_id not in await again.standing()


async def test_R19_R14_a_stop_in_redis_during_a_release_stands(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        await bot.switch.activate()
        seen = await bot.switch.get_status()
        valkey.raw("SET", RING_KEY, "a newer stop")
        await bot.switch.deactivate(seen=seen)
        assert await bot.switch.is_active()
        await eventually(bot.latched)
        await eventually(lambda: valkey.raw("EXISTS", RING_KEY))


async def test_a_start_rings_what_is_missing(valkey: Valkey, tmp_path: Path) -> None:
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        await bot.switch.activate()
    valkey.raw("FLUSHALL")
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        await eventually(lambda: valkey.raw("EXISTS", RING_KEY))
        assert not await bot.entry_is_sent()


async def test_two_databases_on_one_redis_the_stop_wins(valkey: Valkey, tmp_path: Path) -> None:
    """Another database's envelope names a stop that ours does not know: it is one."""
    async with (
        bot_on(valkey.url, tmp_path / "a.db", name="a") as one,
        bot_on(valkey.url, tmp_path / "b.db", name="b") as other,
    ):
        report = await one.switch.activate(reason="in the first")
        await eventually(other.latched)
        assert await other.standing() == (report.latch_id,)


async def test_sentinels_name_the_new_primary_and_the_stop_stands(
    pair: tuple[Valkey, Valkey], tmp_path: Path
) -> None:
    primary, replica = pair
    sentinels = Sentinels(primary.folder, primary).start()
    try:
        client = Sentinel([("127.0.0.1", port) for port in sentinels.ports]).master_for("tw")
        async with (
            bot_on(sentinels.url, tmp_path / "t.db") as bot,
            bot_on(client, tmp_path / "t.db", name="b") as other,
        ):
            await eventually(bot.entry_is_sent)
            await eventually(other.entry_is_sent)
            primary.kill()
            # No stop was made: entries are refused until the new primary answers, then go on.
            assert await bot.refused_for() == "STATE_UNKNOWN"
            until(lambda: sentinels.primary_port() == replica.port)
            for one in (bot, other):
                await one.feed()
                await eventually(one.entry_is_sent, 15)
            replica.raw("SET", RING_KEY, "1")
            await eventually(bot.latched)
            assert not await other.entry_is_sent()
        await client.aclose()
    finally:
        sentinels.stop()


def test_a_sentinel_client_of_replicas_is_refused() -> None:
    client = Sentinel([("127.0.0.1", 1)]).slave_for("tw")
    with pytest.raises(ConfigurationError, match="replicas"):
        RedisDoorbell.at(client)


async def test_a_plain_replica_is_refused(pair: tuple[Valkey, Valkey]) -> None:
    bell = RedisDoorbell.at(pair[1].tcp_url)
    with pytest.raises(DoorbellUnavailable, match="replica"):
        await bell.look(timeout_s=1)
    await bell.close()


async def test_a_bot_on_a_replica_refuses(pair: tuple[Valkey, Valkey], tmp_path: Path) -> None:
    bot = Bot(pair[1].tcp_url, tmp_path / "t.db")
    try:
        await bot.feed()
        assert await bot.refused_for() == "STATE_UNKNOWN"
    finally:
        await bot.close()


async def test_what_was_seen_without_the_database_is_the_stop_that_others_latched(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose database is slow makes no second stop of one that was released since."""
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        watch, register = bot.switch._watch, bot.switch._register
        held: list[str] = []
        hold = type(register).hold
        monkeypatch.setattr(
            type(register), "hold", lambda self, one: (held.append(one.id), hold(self, one))
        )
        for value in (b"by hand", None):
            if value is None:
                await bot.switch.activate()
                value = valkey.raw("GET", RING_KEY)  # noqa: PLW2901 - what stands there now
                assert isinstance(value, bytes)
            else:
                valkey.raw("SET", RING_KEY, value.decode())
                await eventually(bot.latched)
            # The watch of this process would know the latch by now; the slow one has not seen it.
            monkeypatch.setattr(watch, "_standing", frozenset())
            await watch._hold_offline(ring_of(value), set())
            assert held.pop().startswith("seen-")
            await bot.restart_trading()
            assert not await bot.latched()
            assert not register.local()
            await bot.feed()
            await eventually(bot.entry_is_sent)


async def test_a_ring_that_could_not_be_checked_is_checked_again(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        await bot.switch.activate()
        known = (await bot.switch.get_status()).latches[-1]
        await bot.restart_trading()
        watch, register = bot.switch._watch, bot.switch._register
        await register.ring(known)
        watch._unchecked[known.id] = known
        await eventually(lambda: valkey.raw("EXISTS", RING_KEY) == 0)
        await eventually(lambda: not watch._unchecked)
        assert not await bot.latched()
