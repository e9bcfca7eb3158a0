"""R8 to R10, R13: a Redis that is away, slow, or lies refuses entries, and never an exit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from proxy import Proxy
from redis.asyncio import Redis
from redis_world import Bot, bot_on, eventually
from valkey import Valkey, folder, free_port, running

from tinywindow.safety.config import KillSwitchConfig
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.errors import DoorbellUnavailable, ReleaseRefused
from tinywindow.safety.services import bell_watch
from tinywindow.safety.services.outcome import Outcome, Refused
from tinywindow.safety.stores import redis as redis_store
from tinywindow.safety.stores.redis import CHANNEL, RedisDoorbell
from tinywindow.safety.stores.ring_value import RING_KEY, ring_of

pytestmark = pytest.mark.alone

MARGIN_S = 0.15
"""What a shared machine may add to a bound, at the quickest of a few tries."""
TRIES = 4


def latch(latch_id: str) -> Latch:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Latch(latch_id, KillSwitchMode.HALT_ONLY, "why", "who", LatchSource.PYTHON, at)


@pytest.fixture
async def proxy(valkey: Valkey) -> AsyncIterator[Proxy]:
    with folder() as place:
        async with Proxy(valkey.path, f"{place}/p.sock") as made:
            yield made


async def fails_closed(bot: Bot, reason: str = "") -> None:
    """Entries refused in time, exits sent, `is_active` True in time, and no stop latched."""
    held = sum(order.amount * order.side.sign for order, _ in bot.exchange.sent)
    assert held > 0
    refused_s, known_s = [], []
    for _ in range(TRIES):
        begun = time.monotonic()
        assert await bot.refused_for() == "STATE_UNKNOWN"
        refused_s.append(time.monotonic() - begun)
        begun = time.monotonic()
        assert await bot.switch.is_active()
        known_s.append(time.monotonic() - begun)
        if refused_s[-1] < 0.05 + MARGIN_S and known_s[-1] < 0.5 + MARGIN_S:
            break
    assert min(refused_s) < 0.05 + MARGIN_S
    assert min(known_s) < 0.5 + MARGIN_S
    status = await bot.switch.get_status()
    assert status.unknown
    assert reason in str(status.unknown)
    exit_sent = await bot.order("SELL", "0.0001")
    assert isinstance(exit_sent, Outcome), exit_sent
    assert bot.exchange.sent[-1][0].side == "SELL"
    assert not await bot.latched()
    with pytest.raises(ReleaseRefused, match=r"Redis|STATE_UNKNOWN"):
        await bot.switch.deactivate()


async def is_well_again(bot: Bot) -> None:
    """Service resumes by itself: nothing was latched, so nothing is to be released."""
    await eventually(lambda: _inactive(bot))
    await bot.feed()
    await eventually(bot.entry_is_sent)


async def _inactive(bot: Bot) -> bool:
    return not await bot.switch.is_active()


async def test_R8_a_hung_connection(valkey: Valkey, proxy: Proxy, tmp_path: Path) -> None:
    async with bot_on(f"unix://{proxy.path}", tmp_path / "t.db") as bot:
        await eventually(bot.entry_is_sent)
        await eventually(bot.entry_is_sent)
        proxy.hang = True
        assert KillSwitchConfig().order_timeout == 0.05
        refused = await bot.order()
        assert isinstance(refused, Refused), refused
        assert "did not answer within 0.05 s" in refused.breaches[0].message
        await fails_closed(bot, "did not answer")
        proxy.hang = False
        proxy.reset()
        await is_well_again(bot)


async def test_R8_a_server_that_is_frozen(tmp_path: Path) -> None:
    with running() as server:
        async with bot_on(server.url, tmp_path / "t.db") as bot:
            await eventually(bot.entry_is_sent)
            await eventually(bot.entry_is_sent)
            server.freeze()
            try:
                await fails_closed(bot, "did not answer")
            finally:
                server.thaw()
            await is_well_again(bot)


async def test_R8_refused_connections(valkey: Valkey, proxy: Proxy, tmp_path: Path) -> None:
    async with bot_on(f"unix://{proxy.path}", tmp_path / "t.db") as bot:
        await eventually(bot.entry_is_sent)
        await eventually(bot.entry_is_sent)
        await proxy.refuse()
        await fails_closed(bot)
        # A stop needs no Redis; and it is rung there when it is back.
        report = await bot.switch.activate(reason="test")
        assert report.durable
        assert any("Redis" in error for error in report.errors)
        Path(proxy.path).unlink(missing_ok=True)
        await proxy.listen()
        await eventually(lambda: valkey.raw("EXISTS", RING_KEY))
        await eventually(lambda: _readable(bot))
        await bot.restart_trading()
        await is_well_again(bot)


async def _readable(bot: Bot) -> bool:
    return not (await bot.switch.get_status()).unknown


@pytest.mark.parametrize(
    "reply",
    [
        b"-LOADING Valkey is loading the dataset in memory\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-NOPERM User default has no permissions to run the 'eval' command\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"-BUSY Valkey is busy running a script.\r\n",
        b"+OK\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
    ids=lambda reply: reply.split()[0].decode().strip("-+"),
)
async def test_R8_a_server_that_answers_wrongly(
    reply: bytes, valkey: Valkey, proxy: Proxy, tmp_path: Path
) -> None:
    async with bot_on(f"unix://{proxy.path}", tmp_path / "t.db") as bot:
        await eventually(bot.entry_is_sent)
        await eventually(bot.entry_is_sent)
        proxy.reply_with = reply
        await fails_closed(bot)
        proxy.reply_with = None
        proxy.reset()
        await is_well_again(bot)


async def test_R8_a_server_that_loads_its_data(tmp_path: Path) -> None:
    with folder() as place:
        slow = ("--key-load-delay", "300", "--loading-process-events-interval-bytes", "1024")
        server = Valkey(place, options=("--save", "", *slow)).start()
        try:
            async with bot_on(server.url, tmp_path / "t.db") as bot:
                await eventually(bot.entry_is_sent)
                await eventually(bot.entry_is_sent)
                server.raw("DEBUG", "POPULATE", "50000")
                server.raw("SAVE")
                server.kill()
                server.launch()
                await eventually(lambda: _loading(server))
                await fails_closed(bot, "oading")
                server.kill()
                Path(f"{place}/{server.name}.rdb").unlink()
                server.start()
                await is_well_again(bot)
        finally:
            server.kill()


def _loading(server: Valkey) -> bool:
    try:
        return server.info("persistence")["loading"] == 1
    except Exception:
        return False


async def test_R8_auth_lost(tmp_path: Path) -> None:
    with running("--requirepass", "right") as server:
        operator = Redis(unix_socket_path=server.path, password="right")
        async with bot_on(f"unix://:right@{server.path}", tmp_path / "t.db") as bot:
            await eventually(bot.entry_is_sent)
            await eventually(bot.entry_is_sent)
            await operator.config_set("requirepass", "other")
            await operator.client_kill_filter(_type="normal", skipme=True)
            await fails_closed(bot)
            await operator.config_set("requirepass", "right")
            await is_well_again(bot)
        await operator.aclose()


async def test_R9_a_primary_that_becomes_a_replica_is_refused(tmp_path: Path) -> None:
    with running() as server:
        async with bot_on(server.url, tmp_path / "t.db") as bot:
            await eventually(bot.entry_is_sent)
            await eventually(bot.entry_is_sent)
            server.raw("REPLICAOF", "127.0.0.1", str(free_port()))
            await fails_closed(bot, "replica")
            server.promote()
            await is_well_again(bot)


async def stands_again(bot: Bot, latch_id: str) -> None:
    """A halt stands in place of what was released in part, and an operator can release that."""
    await eventually(lambda: _readable(bot))
    assert await bot.switch.is_active()
    (standing,) = await bot.standing()
    assert standing != latch_id
    assert await bot.refused_for() == "KILL_SWITCH_ACTIVE"


async def test_R10_a_release_that_redis_refuses_is_none(valkey: Valkey, tmp_path: Path) -> None:
    valkey.raw("ACL", "SETUSER", "tw", "reset", "on", ">x", "~*", "&*", "+@all")
    try:
        async with bot_on(f"unix://tw:x@{valkey.path}", tmp_path / "t.db") as bot:
            await eventually(bot.entry_is_sent)
            report = await bot.switch.activate(reason="test")
            assert report.durable
            # Everything can be read, and the key cannot be deleted.
            valkey.raw("ACL", "SETUSER", "tw", "-del")
            with pytest.raises(ReleaseRefused, match="Redis could not be cleared"):
                await bot.switch.deactivate()
            await stands_again(bot, report.latch_id)
            valkey.raw("ACL", "SETUSER", "tw", "+del")
            await bot.restart_trading()
            assert valkey.raw("EXISTS", RING_KEY) == 0
            await is_well_again(bot)
    finally:
        valkey.raw("ACL", "DELUSER", "tw")


async def test_R10_a_release_whose_answer_from_redis_is_lost_is_none(
    valkey: Valkey, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is gone and the latch a tombstone: without another one, nothing would stand."""
    async with bot_on(f"unix://{proxy.path}", tmp_path / "t.db") as bot:
        await eventually(bot.entry_is_sent)
        report = await bot.switch.activate(reason="test")
        assert report.durable
        run = RedisDoorbell._run

        async def losing(self: RedisDoorbell, script: str, *rest: Any, timeout_s: float) -> Any:
            if script == redis_store._SILENCE:
                proxy.drop_replies = 1_000
            return await run(self, script, *rest, timeout_s=timeout_s)

        deleted = _calls(valkey, "del")
        with monkeypatch.context() as patch:
            patch.setattr(RedisDoorbell, "_run", losing)
            with pytest.raises(ReleaseRefused, match="Redis could not be cleared"):
                await bot.switch.deactivate()
        assert _calls(valkey, "del") > deleted
        proxy.drop_replies = 0
        await stands_again(bot, report.latch_id)
        # It is rung as well, for those who know of Redis alone.
        await eventually(lambda: valkey.raw("EXISTS", RING_KEY))
        await bot.restart_trading()
        await is_well_again(bot)


def _calls(server: Valkey, command: str) -> int:
    found: Any = server.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(found["calls"])


async def test_a_lost_reply_is_not_repeated_and_what_was_done_is_found(
    valkey: Valkey, proxy: Proxy
) -> None:
    bell = RedisDoorbell.at(f"unix://{proxy.path}")
    await bell.look(timeout_s=1)
    sent, before = proxy.requests, valkey.info("commandstats")
    proxy.drop_replies = 1
    with pytest.raises(DoorbellUnavailable):
        await bell.ring(latch("K1"))
    assert proxy.requests == sent + 1
    after = valkey.info("commandstats")
    evals = [one.get("cmdstat_eval", {"calls": 0})["calls"] for one in (before, after)]
    assert evals[1] - evals[0] == 1
    ring = await bell.look(timeout_s=1)
    assert ring is not None
    assert ring.latch_id == "K1"
    await bell.close()


async def test_a_late_reply_is_never_taken_for_the_next_one(valkey: Valkey, proxy: Proxy) -> None:
    bell = RedisDoorbell.at(f"unix://{proxy.path}")
    assert await bell.look(timeout_s=1) is None
    for _ in range(20):
        valkey.raw("DEL", RING_KEY)
        proxy.latency_s = 0.06
        with pytest.raises(DoorbellUnavailable):
            await bell.look(timeout_s=0.03)
        valkey.raw("SET", RING_KEY, "1")
        proxy.latency_s = 0
        assert await bell.look(timeout_s=1) is not None
    await bell.close()


async def test_many_orders_at_once_share_a_few_connections(valkey: Valkey) -> None:
    bell = RedisDoorbell.at(valkey.url)
    looks = await asyncio.gather(*(bell.look(timeout_s=2) for _ in range(300)))
    assert looks == [None] * 300
    assert int(str(valkey.info("clients")["connected_clients"])) < 20
    await bell.close()


async def test_R13_without_any_notification_a_stop_is_seen_within_the_poll(
    valkey: Valkey, tmp_path: Path
) -> None:
    valkey.raw("CONFIG", "SET", "notify-keyspace-events", "")
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        context = bot.limits.opened
        assert context is not None
        seen_s = []
        for number in range(TRIES):
            valkey.raw("CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(lambda: context.stop_probe() is None)
            valkey.raw("SET", RING_KEY, f"round {number}")
            seen_s.append(await eventually(lambda: context.stop_probe() is not None))
            await eventually(bot.latched)
            await bot.switch.deactivate()
        assert min(seen_s) < 0.25


async def test_announcements_come_with_a_ring_and_with_keyspace_events(valkey: Valkey) -> None:
    valkey.raw("CONFIG", "SET", "notify-keyspace-events", "K$g")
    listening, ringing = RedisDoorbell.at(valkey.url), RedisDoorbell.at(valkey.url)
    heard = asyncio.Queue[None]()

    async def listen() -> None:
        async for _ in listening.announcements():
            heard.put_nowait(None)

    task = asyncio.ensure_future(listen())
    try:
        await eventually(lambda: valkey.raw("PUBSUB", "NUMSUB", CHANNEL)[1] == 1)  # type: ignore[index]
        await ringing.ring(latch("K1"))
        await asyncio.wait_for(heard.get(), 2)
        await eventually(lambda: heard.qsize() or True)
        while not heard.empty():
            heard.get_nowait()
        valkey.raw("SET", RING_KEY, "by hand")
        await asyncio.wait_for(heard.get(), 2)
    finally:
        task.cancel()
        await asyncio.wait({task})
        await listening.close()
        await ringing.close()
        valkey.raw("CONFIG", "SET", "notify-keyspace-events", "")


@pytest.mark.parametrize("events", ["", "K$"], ids=["channel", "keyspace"])
async def test_R13_what_is_announced_is_heard_long_before_the_next_look(
    events: str, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell_watch, "LOOK_INTERVAL_S", 30.0)
    valkey.raw("CONFIG", "SET", "notify-keyspace-events", events)
    try:
        async with bot_on(valkey.url, tmp_path / "t.db", watch_interval=30) as bot:
            await eventually(lambda: valkey.raw("PUBSUB", "NUMSUB", CHANNEL)[1] == 1)  # type: ignore[index]
            await eventually(bot.entry_is_sent)
            # A word without a key has us look, and stops nothing.
            looks = _calls(valkey, "eval")
            valkey.raw("PUBLISH", CHANNEL, "CLOSE_POSITIONS")
            await eventually(lambda: _calls(valkey, "eval") > looks, 1.0)
            assert await bot.entry_is_sent()
            assert not await bot.latched()
            # From here on nobody here asks for anything.
            valkey.raw("SET", RING_KEY, "1")
            if not events:
                valkey.raw("PUBLISH", CHANNEL, "1")
            await eventually(bot.latched, 1.0)
    finally:
        valkey.raw("CONFIG", "SET", "notify-keyspace-events", "")


async def test_no_order_commits_on_a_look_that_is_too_old(valkey: Valkey, tmp_path: Path) -> None:
    """A process that was paused between its look at Redis and its commit, here made by hand."""
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        await eventually(bot.entry_is_sent)
        context = bot.limits.opened
        assert context is not None
        assert context.stop_probe() is None
        await bot.switch._watch.stop()
        assert await bot.switch._register.look(timeout_s=1) is None
        # The loop stands still meanwhile, as in a pause.
        time.sleep(0.3)
        probed = context.stop_probe()
        assert probed is not None
        assert "last read" in probed.breaches[0].message


async def test_the_database_number_is_part_of_the_url(valkey: Valkey, tmp_path: Path) -> None:
    """A key in another database is another key; what is seen by one process stops all."""
    async with (
        bot_on(f"{valkey.url}?db=3", tmp_path / "t.db", name="wrong") as wrong,
        bot_on(valkey.url, tmp_path / "t.db", name="right") as right,
    ):
        valkey.raw("SET", RING_KEY, "1")
        await eventually(right.latched)
        # The database that both share carries the stop over.
        assert await wrong.refused_for() == "KILL_SWITCH_ACTIVE"
        await eventually(wrong.switch.is_active)


async def test_a_foreign_value_that_was_seen_by_an_order_alone_is_latched(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is gone again before the watcher looks: whoever saw it has observed it."""
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        await bot.switch._watch.stop()
        monkeypatch.setattr(bot.switch._watch, "start", lambda: None)
        valkey.raw("SET", RING_KEY, "1")
        assert await bot.refused_for() == "KILL_SWITCH_ACTIVE"
        valkey.raw("DEL", RING_KEY)
        assert await bot.switch.is_active()
        assert not await bot.latched()
        await bot.switch._watch.look()
        assert await bot.latched()
        value = valkey.raw("GET", RING_KEY)
        assert isinstance(value, bytes)
        assert ring_of(value).latch_id is not None
