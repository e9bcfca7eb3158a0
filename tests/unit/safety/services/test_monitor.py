"""The monitor: checks on time and at once, outlives faults, and is missed when it is gone."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest
from breaker_world import World

from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.services.breaker_status import CircuitBreakerStatus
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.monitor import run_circuit_breaker_monitor


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Counted(CircuitBreaker):
    """A breaker that counts its checks, and fails as many as it is told to."""

    checks = 0
    to_fail = 0

    async def _check(self) -> CircuitBreakerStatus:
        self.checks += 1
        if self.to_fail:
            self.to_fail -= 1
            raise RuntimeError("a bug")
        return await super()._check()


def counted(world: World) -> Counted:
    return Counted(None, world.database, clock=world.clock)


def halted(breaker: Counted) -> bool:
    """Read anew: a type checker takes a property for constant."""
    return breaker.is_halted


async def until(breaker: Counted, checks: int) -> None:
    async with asyncio.timeout(5):
        while breaker.checks < checks:
            await asyncio.sleep(0.002)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_checks_again_and_again_until_it_is_cancelled(world: World) -> None:
    breaker = counted(world)
    task = asyncio.create_task(run_circuit_breaker_monitor(breaker, interval=0.03))
    await until(breaker, 4)
    assert not task.done()
    await stop(task)
    await breaker.close()


async def test_it_checks_at_once_when_something_arrives(world: World) -> None:
    breaker = counted(world)
    task = asyncio.create_task(run_circuit_breaker_monitor(breaker, interval=1.0))
    await until(breaker, 1)
    await asyncio.sleep(0.1)
    before = breaker.checks
    loop = asyncio.get_running_loop()
    began = loop.time()
    await breaker.record_equity(100)
    await until(breaker, before + 1)
    assert loop.time() - began < 0.5
    await stop(task)
    await breaker.close()


async def test_it_outlives_faults_and_three_in_a_row_halt(world: World) -> None:
    breaker = counted(world)
    breaker.to_fail = 3
    task = asyncio.create_task(run_circuit_breaker_monitor(breaker, interval=0.02))
    await until(breaker, 3)
    assert breaker.failed_checks == 3
    assert halted(breaker)
    assert "a bug" in (breaker.halt_reason or "")
    await until(breaker, 5)
    assert not halted(breaker)
    await stop(task)
    await breaker.close()


async def test_a_monitor_that_is_gone_is_a_halt(world: World) -> None:
    breaker = counted(world)
    task = asyncio.create_task(run_circuit_breaker_monitor(breaker, interval=0.02))
    await until(breaker, 2)
    await stop(task)
    assert not halted(breaker)
    world.clock.advance(3.1)
    assert halted(breaker)
    assert (breaker.halt_reason or "").startswith("MONITOR_STALE: ")
    await breaker.close()


async def test_nobody_needs_to_keep_the_task(world: World) -> None:
    breaker = counted(world)
    asyncio.create_task(run_circuit_breaker_monitor(breaker, interval=0.02))  # type: ignore[unused-awaitable]  # noqa: RUF006 - as the requirement does it
    await until(breaker, 1)
    gc.collect()
    await until(breaker, 4)
    await breaker.close()
    await asyncio.sleep(0.1)


async def test_it_ends_when_its_breaker_is_closed(world: World) -> None:
    breaker = counted(world)
    task = asyncio.create_task(run_circuit_breaker_monitor(breaker, interval=0.02))
    await until(breaker, 1)
    await breaker.close()
    await asyncio.wait_for(task, 5)


async def test_it_never_waits_longer_than_the_breaker_expects(world: World) -> None:
    breaker = Counted(None, world.database, clock=world.clock)
    breaker._config = breaker._config.model_copy(update={"monitor_interval": 0.03})
    task = asyncio.create_task(run_circuit_breaker_monitor(breaker, interval=100))
    await until(breaker, 3)
    await stop(task)
    await breaker.close()


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
async def test_an_interval_must_be_above_zero(world: World, interval: float) -> None:
    with pytest.raises(ConfigurationError):
        await run_circuit_breaker_monitor(counted(world), interval=interval)
