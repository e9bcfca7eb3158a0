"""R1 to R7, R10, R12: however the key is lost, and whatever it holds, a stop seen stands."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis_world import bot_on, eventually
from structlog.testing import capture_logs
from valkey import Valkey, running

from tinywindow.safety.stores.ring_value import RING_KEY, ring_of


def flush(server: Valkey) -> None:
    server.raw("FLUSHALL")


def delete(server: Valkey) -> None:
    server.raw("DEL", RING_KEY)


def expire(server: Valkey) -> None:
    server.raw("PEXPIRE", RING_KEY, "1")


def shutdown(server: Valkey) -> None:
    server.shutdown_nosave()
    server.start()


def power_cut(server: Valkey) -> None:
    server.restart()


def evict(server: Valkey) -> bool:
    """Fill a server that may evict anything; says whether our key is gone."""
    server.raw("DEBUG", "POPULATE", "200", f"filler:{time.monotonic_ns()}", "50000")
    server.raw("SET", "the last straw", "1")
    return server.raw("EXISTS", RING_KEY) == 0


LOSSES = [
    pytest.param(flush, id="R1-FLUSHALL"),
    pytest.param(delete, id="R1-R10-DEL"),
    pytest.param(shutdown, id="R2-SHUTDOWN-NOSAVE"),
    pytest.param(power_cut, id="R2-killed-without-persistence"),
    pytest.param(expire, id="R6-expired"),
]


@pytest.mark.parametrize("lose", LOSSES)
async def test_a_key_that_was_seen_outlives_its_loss_and_is_rung_again(
    lose: Callable[[Valkey], None], tmp_path: Path
) -> None:
    with running() as server:
        async with bot_on(server.url, tmp_path / "t.db") as bot:
            await eventually(bot.entry_is_sent)
            server.raw("SET", RING_KEY, "1")
            await eventually(bot.latched)
            lose(server)
            assert await bot.switch.is_active()
            assert not await bot.entry_is_sent()
            # R12: the database says active, Redis is empty: it is rung again within a bound.
            again_s = await eventually(lambda: server.raw("EXISTS", RING_KEY), 3.0)
            print(f"rung again after {again_s * 1000:.0f} ms")
            value = server.raw("GET", RING_KEY)
            assert isinstance(value, bytes)
            assert ring_of(value).latch_id in await bot.standing()
            # Service resumes without a restart, and only because somebody released the stop.
            await eventually(lambda: _readable(bot.switch))
            await bot.restart_trading()
            assert server.raw("EXISTS", RING_KEY) == 0
            await bot.feed()
            await eventually(bot.entry_is_sent)


async def _readable(switch: object) -> bool:
    return not (await switch.get_status()).unknown  # type: ignore[attr-defined]


async def test_R5_evicted_under_maxmemory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running("--maxmemory", "6mb", "--maxmemory-policy", "allkeys-random") as server:
        async with bot_on(server.url, tmp_path / "t.db") as bot:
            server.raw("SET", RING_KEY, "1")
            await eventually(bot.latched)
            with monkeypatch.context() as patch:
                # Nobody rings again meanwhile.
                await bot.switch._watch.stop()
                patch.setattr(bot.switch._watch, "start", lambda: None)
                await eventually(lambda: evict(server))
                assert await bot.switch.is_active()
                assert await bot.refused_for() == "KILL_SWITCH_ACTIVE"
            assert await bot.switch.is_active()
            await eventually(lambda: server.raw("EXISTS", RING_KEY))


async def test_R5_a_process_warns_of_a_redis_that_may_evict_the_key(tmp_path: Path) -> None:
    with (
        running("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru") as server,
        capture_logs() as logged,
    ):
        async with bot_on(server.url, tmp_path / "t.db"):
            await eventually(lambda: "redis_settings" in [one["event"] for one in logged])
    (warning,) = [one for one in logged if one["event"] == "redis_settings"]
    assert warning["log_level"] == "warning"
    assert "maxmemory-policy is allkeys-lru" in warning["what"]
    assert "noeviction" in warning["mend"]


async def test_R6_a_value_with_an_expiry_is_latched_and_rung_without_one(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        valkey.raw("SET", RING_KEY, "1", "PX", "400")
        await eventually(bot.latched)
        await eventually(lambda: valkey.raw("PTTL", RING_KEY) == -1)
        assert await bot.switch.is_active()


VALUES = [
    (("SET", RING_KEY, "0"), "HALT_ONLY"),
    (("SET", RING_KEY, ""), "HALT_ONLY"),
    (("SET", RING_KEY, "false"), "HALT_ONLY"),
    (("SET", RING_KEY, "close_positions"), "HALT_ONLY"),
    (("SET", RING_KEY, '{"mode": ["CLOSE_POSITIONS"'), "HALT_ONLY"),
    (("SET", RING_KEY, "CLOSE_POSITIONS"), "CLOSE_POSITIONS"),
    (("SET", RING_KEY, '{"mode": "CLOSE_POSITIONS"}'), "CLOSE_POSITIONS"),
    (("SET", RING_KEY, "CLOSE_POSITIONS" * 700_000), "HALT_ONLY"),
    (("RPUSH", RING_KEY, "CLOSE_POSITIONS"), "HALT_ONLY"),
    (("HSET", RING_KEY, "mode", "CLOSE_POSITIONS"), "HALT_ONLY"),
    (("SADD", RING_KEY, "CLOSE_POSITIONS"), "HALT_ONLY"),
    (("ZADD", RING_KEY, "1", "CLOSE_POSITIONS"), "HALT_ONLY"),
    (("XADD", RING_KEY, "*", "mode", "CLOSE_POSITIONS"), "HALT_ONLY"),
    (("SETBIT", RING_KEY, "7", "1"), "HALT_ONLY"),
    (("PFADD", RING_KEY, "a"), "HALT_ONLY"),
]


async def test_R7_any_value_of_any_type_and_size_is_a_stop(valkey: Valkey, tmp_path: Path) -> None:
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        for command, mode in VALUES:
            valkey.raw(*command)
            assert await bot.refused_for() == "KILL_SWITCH_ACTIVE"
            await eventually(bot.latched)
            assert (await bot.switch.get_status()).mode == mode, command[:2]
            # It is replaced by an envelope that names the latch, and is small.
            await eventually(lambda: valkey.raw("TYPE", RING_KEY) == b"string")
            await eventually(lambda: int(str(valkey.raw("STRLEN", RING_KEY))) < 4096)
            await bot.switch.deactivate(force=True)
            assert not await bot.switch.is_active(), command[:2]


async def test_the_command_kill_rings_nothing_and_the_next_process_does(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with bot_on(valkey.url, tmp_path / "tinywindow.db"):
        pass
    command = [sys.executable, "-m", "tinywindow.cli", "kill", "--data-dir", str(tmp_path)]
    subprocess.run([*command, "--reason", "test"], check=True, capture_output=True)
    assert valkey.raw("EXISTS", RING_KEY) == 0
    async with bot_on(valkey.url, tmp_path / "tinywindow.db") as bot:
        await eventually(lambda: valkey.raw("EXISTS", RING_KEY))
        assert await bot.latched()
