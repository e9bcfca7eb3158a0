"""How a breaker learns of what other processes commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from breaker_world import World

from tinywindow.safety.services import breaker_core
from tinywindow.safety.services.circuit_breaker import CircuitBreaker


class Reads:
    """A store's reads, each of which waits until it is let go."""

    def __init__(self, breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch) -> None:
        context = breaker._handle.opened
        assert context is not None
        self.store = context.store
        self.begun = 0
        self.let_go = asyncio.Semaphore(0)
        self.over = False
        self.stops = 0
        self._read = self.store.read
        monkeypatch.setattr(self.store, "read", self.read)
        monkeypatch.setattr(self.store, "stop_token", lambda: self.stops)
        # Nobody but the test tells this breaker of commits.
        context.listeners.remove(breaker._on_commit)
        breaker._stops = 0

    async def read(self, script: Callable[[Any], Any]) -> Any:
        if not self.over:
            self.begun += 1
            await self.let_go.acquire()
        return await self._read(script)

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(5):
            while self.begun < count:
                await asyncio.sleep(0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_what_is_committed_during_a_look_is_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.breaker() as breaker:
        await breaker.check_all_metrics()
        reads = Reads(breaker, monkeypatch)
        for number in (1, 2):
            # The second comes while the first look waits: its snapshot knows nothing of it.
            reads.stops += 1
            breaker._on_commit()
            if number == 1:
                await reads.reach(1)
        reads.let_go.release()
        await reads.reach(2)
        reads.let_go.release()
        assert breaker._look is not None
        await breaker._look
        assert reads.begun == 2
        reads.over = True


async def test_a_stop_is_looked_at_at_once_and_the_rest_is_gathered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_core, "LOOK_GAP_S", 3_600.0)
    async with world.breaker() as breaker:
        await breaker.check_all_metrics()
        reads = Reads(breaker, monkeypatch)
        for _ in range(20):
            breaker._on_commit()
            await asyncio.sleep(0)
        assert reads.begun == 0
        reads.stops += 1
        breaker._on_commit()
        await reads.reach(1)
        reads.let_go.release()
        assert breaker._look is not None
        await breaker._look
        assert reads.begun == 1
        reads.over = True
