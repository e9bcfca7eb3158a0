"""What a check costs: it depends on what is new, never on the length of history."""

from __future__ import annotations

import statistics
import time
from decimal import Decimal
from pathlib import Path

import pytest
from breaker_world import World

from tinywindow.safety.domain.records import MarkRecord
from tinywindow.safety.domain.windows import ExecutionKind, Outcome
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.times import to_ms

CHECK_MS_MAX = 100
"""What a full check may take at 10,000 trades a day."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def check_ms(breaker: CircuitBreaker) -> float:
    """The median of some checks with nothing new."""
    seen = []
    for _ in range(25):
        start_s = time.perf_counter()
        await breaker.check_all_metrics()
        seen.append((time.perf_counter() - start_s) * 1_000)
    return statistics.median(seen)


async def grow(context: SafetyContext, now_ms: int, *, trades: int, marks: int) -> None:
    """Write a day's history: trades evenly, marks a second apart and longer ago."""

    def script(tx: Tx) -> None:
        for number in range(trades):
            tx.put_execution(
                kind=ExecutionKind.ORDER.value,
                at_ms=now_ms - number * 86_400_000 // trades,
                outcome=Outcome.OK,
                resolved_ms=now_ms,
                client_order_id=f"{marks}-{number}",
            )
        for number in range(marks):
            at_ms = now_ms - (marks - number) * 1_000
            tx.add_mark(
                MarkRecord(
                    id=0,
                    account="default",
                    equity=Decimal(100),
                    cash_flow=Decimal(0),
                    at_ms=at_ms,
                    received_ms=at_ms,
                    trusted=True,
                    nav=Decimal(100),
                )
            )

    await context.store.transact(script)


async def test_a_check_after_long_history_costs_what_it_costs_after_a_short_one(
    world: World,
) -> None:
    async with world.breaker(max_trades_per_hour=20_000) as breaker:
        context = breaker._handle.opened
        assert context is not None
        now_ms = to_ms(world.clock.now())
        await grow(context, now_ms, trades=100, marks=100)
        await breaker.record_equity(100)
        short_ms = await check_ms(breaker)
        await grow(context, now_ms, trades=10_000, marks=100_000)
        await breaker.record_equity(100)
        # A noisy machine makes single checks slow, and a cost that grows makes all of them so.
        assert await check_ms(breaker) < 3 * short_ms + 1
    first_ms = []
    for _ in range(3):
        async with world.process(max_trades_per_hour=20_000) as breaker:
            start_s = time.perf_counter()
            await breaker.check_all_metrics()
            first_ms.append((time.perf_counter() - start_s) * 1_000)
            assert await check_ms(breaker) < 3 * short_ms + 1
    # What else runs on the machine makes one first look slow, and a cost that is too high all.
    assert min(first_ms) < CHECK_MS_MAX
