"""The doorbell on a real Valkey: any value rings, and only what is ours is replaced or deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kill_worlds import QUICK, eventually, view_of
from redis.asyncio import Redis
from valkey import Valkey, running, shared_valkey, valkey

from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.errors import ConfigurationError, DoorbellUnavailable
from tinywindow.safety.services.doorbells import doorbell_for
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.stores.redis import RedisDoorbell
from tinywindow.safety.stores.ring_value import RING_KEY, envelope

NOW = datetime(2026, 1, 1, tzinfo=UTC)
__all__ = ["shared_valkey", "valkey"]

HALT, CLOSE = KillSwitchMode.HALT_ONLY, KillSwitchMode.CLOSE_POSITIONS


@pytest.fixture
def socket(valkey: Valkey) -> str:
    return valkey.path


@pytest.fixture
async def redis(socket: str) -> AsyncIterator[Redis]:
    client = Redis(unix_socket_path=socket)
    yield client
    await client.aclose()


@pytest.fixture
async def bell(socket: str) -> AsyncIterator[RedisDoorbell]:
    made = RedisDoorbell.at(f"unix://{socket}")
    yield made
    await made.close()


def latch(latch_id: str, mode: KillSwitchMode = HALT) -> Latch:
    return Latch(latch_id, mode, "why", "who", LatchSource.PYTHON, NOW)


async def test_absent_present_and_every_type(redis: Redis, bell: RedisDoorbell) -> None:
    assert await bell.look(timeout_s=1) is None
    for command, mode in [
        (("SET", RING_KEY, ""), HALT),
        (("SET", RING_KEY, "0"), HALT),
        (("SET", RING_KEY, "CLOSE_POSITIONS"), CLOSE),
        (("SET", RING_KEY, "x" * 10_000_000), HALT),
        (("LPUSH", RING_KEY, "CLOSE_POSITIONS"), HALT),
        (("HSET", RING_KEY, "mode", "CLOSE_POSITIONS"), HALT),
        (("XADD", RING_KEY, "*", "a", "b"), HALT),
    ]:
        await redis.delete(RING_KEY)
        await redis.execute_command(*command)
        ring = await bell.look(timeout_s=1)
        assert ring is not None
        assert (ring.mode, ring.latch_id) == (mode, None)
        assert len(ring.raw) <= 4097
        await bell.ring(latch("K1"), replacing=b"another value")
        assert (await bell.look(timeout_s=1)) == ring
        await bell.ring(latch("K1"))
        assert (await bell.look(timeout_s=1)) == ring
        assert not await bell.silence(["K1"])
        await bell.ring(latch("K1"), replacing=ring.raw)
        replaced = await bell.look(timeout_s=1)
        assert replaced is not None
        assert replaced.latch_id == "K1"


async def test_ours_is_replaced_by_ours_and_deleted_by_name(
    redis: Redis, bell: RedisDoorbell
) -> None:
    await bell.ring(latch("K1"))
    await bell.ring(latch("K2", CLOSE))
    assert await redis.get(RING_KEY) == envelope(latch("K2", CLOSE))
    assert not await bell.silence(["K1"])
    assert await bell.silence(["K2"])
    assert await bell.silence(["K2"])
    assert await redis.exists(RING_KEY) == 0


async def test_a_ring_over_a_key_with_an_expiry_lasts(redis: Redis, bell: RedisDoorbell) -> None:
    await redis.set(RING_KEY, "1", ex=100)
    await bell.ring(latch("K1"), replacing=b"1")
    assert await redis.ttl(RING_KEY) == -1


async def test_a_client_supplies_its_settings_only(socket: str) -> None:
    client = Redis(unix_socket_path=socket, decode_responses=True, db=3)
    bell = doorbell_for(client)
    assert isinstance(bell, RedisDoorbell)
    await bell.ring(latch("K1"))
    assert await client.exists(RING_KEY) == 1
    settings = bell._redis().connection_pool.connection_kwargs
    assert settings["retry"]._retries == 0
    assert not settings["decode_responses"]
    await bell.silence(["K1"])
    await bell.close()
    await client.aclose()


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    bell = RedisDoorbell.at(f"unix://{tmp_path}/none.sock")
    with pytest.raises(DoorbellUnavailable):
        await bell.look(timeout_s=0.2)
    await bell.close()
    with pytest.raises(ConfigurationError):
        RedisDoorbell.at("redis://host:port")


async def test_R8_a_server_that_sleeps_is_unavailable_within_the_bound(
    redis: Redis, bell: RedisDoorbell
) -> None:
    await bell.look(timeout_s=1)
    sleeping = asyncio.ensure_future(redis.execute_command("DEBUG", "SLEEP", "1"))
    try:
        await asyncio.sleep(0.1)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(DoorbellUnavailable):
            await bell.look(timeout_s=0.05)
        assert asyncio.get_running_loop().time() - begun < 0.3
    finally:
        await asyncio.wait({sleeping})
        sleeping.exception()
    assert await bell.look(timeout_s=1) is None


async def test_R9_a_replica_is_refused() -> None:
    with running("--replicaof", "127.0.0.1", "1") as server:
        bell = RedisDoorbell.at(server.url)
        with pytest.raises(DoorbellUnavailable, match="replica"):
            await bell.look(timeout_s=1)
        await bell.close()


async def test_the_documented_key_stops_and_survives_a_flush(
    redis: Redis, socket: str, tmp_path: Path
) -> None:
    async with KillSwitch(redis, None, tmp_path / "t.db", config=QUICK) as switch:
        assert not await switch.is_active()
        await redis.set(RING_KEY, "1")
        assert await switch.is_active()
        await eventually(lambda: _standing(switch))
        await redis.flushall()
        assert await switch.is_active()
        await eventually(lambda: redis.exists(RING_KEY))
        await switch.deactivate()
        assert not await switch.is_active()
        assert await redis.exists(RING_KEY) == 0


async def _standing(switch: KillSwitch) -> bool:
    return bool((await view_of(switch)).standing)
