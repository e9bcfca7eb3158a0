"""A Cluster of real nodes: the key's own node, and what happens when the key moves to another."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis as sync_redis
from redis.asyncio import RedisCluster
from redis_world import SOAK, Bot, bot_on, eventually
from valkey import Valkey, folder, free_port, until

from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.stores.redis import RedisDoorbell
from tinywindow.safety.stores.ring_value import RING_KEY, envelope

pytestmark = pytest.mark.alone

ANNOUNCED = "127.0.0.2"
"""What the nodes call themselves, which is not where the bot is told to look."""
LATCH = Latch(
    "K1",
    KillSwitchMode.HALT_ONLY,
    "why",
    "who",
    LatchSource.PYTHON,
    datetime(2026, 1, 1, tzinfo=UTC),
)


def free_port_for_a_bus() -> int:
    """A node's bus listens 10,000 above its port."""
    while (port := free_port()) > 55_000:
        pass
    return port


@contextlib.contextmanager
def cluster(size: int, *, empty: int = 0) -> Iterator[list[Valkey]]:
    """Nodes that share the slots, each of which announces another address than it is asked at.

    The last `empty` of them have no slots, as nodes that were just added.
    """
    with folder() as place:
        nodes = [
            Valkey(place, f"c{number}", free_port_for_a_bus()).start(
                *("--cluster-enabled", "yes", "--cluster-config-file", f"c{number}.conf"),
                *("--bind", f"127.0.0.1 {ANNOUNCED}", "--cluster-announce-ip", ANNOUNCED),
            )
            for number in range(size)
        ]
        try:
            share = -(-16384 // (size - empty))
            for number, node in enumerate(nodes):
                last = min((number + 1) * share, 16384) - 1
                if number < size - empty:
                    node.raw("CLUSTER", "ADDSLOTSRANGE", str(number * share), str(last))
                node.raw("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port))
            until(lambda: all(b"cluster_state:ok" in _info(node) for node in nodes))
            yield nodes
        finally:
            for node in nodes:
                node.kill()


def _info(node: Valkey) -> bytes:
    answer = node.raw("CLUSTER", "INFO")
    if isinstance(answer, dict):
        return "\n".join(f"{key}:{value}" for key, value in answer.items()).encode()
    return answer if isinstance(answer, bytes) else str(answer).encode()


def url_of(nodes: list[Valkey]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def owner_of(nodes: list[Valkey]) -> Valkey:
    for node in nodes:
        with contextlib.suppress(sync_redis.ResponseError):
            node.raw("EXISTS", RING_KEY)
            return node
    raise AssertionError("nobody has the slot")


def connections(node: Valkey, address: str) -> int:
    """How many of a node's clients came in at an address."""
    clients = node.raw("CLIENT", "LIST")
    if isinstance(clients, list):
        return sum(one.get("laddr", "").startswith(f"{address}:") for one in clients)
    return str(clients).count(f"laddr={address}:")


async def test_the_keys_own_node_is_asked(tmp_path: Path) -> None:
    with cluster(3) as nodes:
        async with bot_on(url_of(nodes), tmp_path / "t.db") as bot:
            await eventually(bot.entry_is_sent)
            owner = owner_of(nodes)
            assert connections(owner, ANNOUNCED) > 0
            owner.raw("SET", RING_KEY, "1")
            await eventually(bot.latched)
            owner.raw("DEL", RING_KEY)
            await eventually(lambda: owner.raw("EXISTS", RING_KEY))
            await go_on(bot)
            owner.freeze()
            assert await bot.refused_for() == "STATE_UNKNOWN"
            owner.thaw()
            await eventually(bot.entry_is_sent)
        client = RedisCluster(host="127.0.0.1", port=nodes[0].port)
        bell = RedisDoorbell.at(client)
        await bell.ring(LATCH)
        assert owner_of(nodes).raw("GET", RING_KEY) == envelope(LATCH)
        await bell.close()
        await client.aclose()


async def go_on(bot: Bot) -> None:
    """Release, start, and trade again."""
    await bot.restart_trading()
    await bot.feed()
    await eventually(bot.entry_is_sent)


# A node that has no slots yet is one that no client has heard of.
@pytest.mark.parametrize("empty", [1, 0] if SOAK else [1])
async def test_a_key_that_moves_to_another_node_stops_during_and_after(
    tmp_path: Path, empty: int
) -> None:
    """No entry is sent once a SET was acknowledged, whichever node took it."""
    with cluster(2, empty=empty) as nodes:
        source = owner_of(nodes)
        target = next(node for node in nodes if node is not source)
        slot = str(source.raw("CLUSTER", "KEYSLOT", RING_KEY))
        ids = [_text(node.raw("CLUSTER", "MYID")) for node in (source, target)]
        async with bot_on(url_of(nodes), tmp_path / "t.db") as bot:
            await eventually(bot.entry_is_sent)
            target.raw("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            source.raw("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            # The key is on neither node: the old one redirects each look with ASK.
            await eventually(bot.entry_is_sent)
            with pytest.raises(sync_redis.exceptions.AskError):
                source.raw("GET", RING_KEY)
            with target.client() as operator:
                operator.execute_command("ASKING")
                operator.execute_command("SET", RING_KEY, "in the middle")
            seen_s = [await latched_in(bot)]
            await go_on(bot)
            # The slot has moved: from now on the old node answers MOVED.
            for node in (target, source):
                node.raw("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
            assert owner_of(nodes) is target
            await eventually(bot.entry_is_sent)
            target.raw("SET", RING_KEY, "after the move")
            seen_s.append(await latched_in(bot))
            assert min(seen_s) < 0.25, seen_s
            await go_on(bot)
            # And the new node is the one that matters.
            target.freeze()
            assert await bot.refused_for() == "STATE_UNKNOWN"
            target.thaw()
            await eventually(bot.entry_is_sent)


async def latched_in(bot: Bot) -> float:
    """How long a stop that was just acknowledged takes to be latched; meanwhile nothing is sent."""
    begun = time.monotonic()
    assert not await bot.entry_is_sent()
    await eventually(bot.latched)
    return time.monotonic() - begun


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


async def test_a_node_that_announces_what_cannot_be_reached_is_no_redis(tmp_path: Path) -> None:
    with cluster(1) as (node,):
        # For documentation only: nobody answers there.
        node.raw("CONFIG", "SET", "cluster-announce-ip", "192.0.2.1")
        assert "192.0.2.1" in repr(node.raw("CLUSTER", "SLOTS"))
        bot = Bot(url_of([node]), tmp_path / "t.db")
        try:
            await bot.feed()
            assert await bot.refused_for() == "STATE_UNKNOWN"
        finally:
            await bot.close()
