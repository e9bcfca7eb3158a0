"""One breaker for all processes: what any of them did counts for each, and one trip is one row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pg_writers import SYMBOL, assert_chain, query

from program import FORKS, SOAK, wait_for
from tinywindow.safety import (
    CircuitBreaker,
    CircuitBreakerConfig,
    KillSwitch,
    OrderGate,
    OrderValidator,
    PositionLimitEnforcer,
    PositionLimits,
)
from tinywindow.safety.ports import Clock
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.context import SafetyContext, open_context
from tinywindow.safety.services.location import locate
from tinywindow.testing import ScriptedExchange

pytestmark = [pytest.mark.concurrency, pytest.mark.timeout(120)]

PROCESSES = 4
FAILURES = 5
ORDERS = 5
ROUNDS = 20 if SOAK else 1
QUIET = CircuitBreakerConfig(error_rate_limit=100.0, consecutive_failure_limit=FAILURES)
INTERVAL_S = 1.0


class LateClock(SystemClock):
    """The system's clock, moved on by hand."""

    late_s = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.late_s)

    def monotonic(self) -> float:
        return super().monotonic() + self.late_s


class Fleet:
    """Breakers that share a database and nothing else: each has a store of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.stack = AsyncExitStack()
        self.contexts: list[SafetyContext] = []

    async def breaker(
        self, config: CircuitBreakerConfig = QUIET, clock: Clock | None = None
    ) -> CircuitBreaker:
        folder = self.folder / str(len(self.contexts))
        folder.mkdir(exist_ok=True)
        context = await open_context(locate(self.url, data_dir=folder))
        self.contexts.append(context)
        self.stack.push_async_callback(context.close)
        made = CircuitBreaker(None, context, config, clock=clock)
        self.stack.push_async_callback(made.close)
        return made

    async def gate(
        self, breaker: CircuitBreaker, venue: ScriptedExchange, clock: Clock | None = None
    ) -> tuple[OrderGate, PositionLimitEnforcer]:
        """A gate to a venue beside the breaker that was made last, on the same store."""
        context = self.contexts[-1]
        switch = KillSwitch(None, {venue.name: venue}, context, clock=clock)
        self.stack.push_async_callback(switch.close)
        ages = PositionLimits(price_max_age=60)
        limits = PositionLimitEnforcer(context, limits=ages, clock=clock)
        self.stack.push_async_callback(limits.close)
        return OrderGate(breaker, switch, limits, OrderValidator(), venue), limits


@pytest.fixture
async def fleet(durable_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    made = Fleet(durable_url, tmp_path)
    async with made.stack:
        yield made


def trips(url: str) -> list[str]:
    return [row[0] for row in query(url, "SELECT metric FROM trips")]


def rows(url: str) -> int:
    found = "SELECT count(*) FROM audit_log WHERE event_type = 'CIRCUIT_BREAKER_TRIP'"
    return int(query(url, found)[0][0])


async def test_failures_spread_over_processes_trip_all_of_them(fleet: Fleet) -> None:
    breakers = [await fleet.breaker() for _ in range(PROCESSES)]
    await breakers[0].record_equity(1_000)
    for number in range(FAILURES):
        assert trips(fleet.url) == []
        await breakers[number % PROCESSES].record_execution(ok=False, client_order_id=f"o{number}")
    assert trips(fleet.url) == ["consecutive_failures"]
    for breaker in breakers:
        status = await breaker.check_all_metrics()
        assert status.is_halted
        assert status.metrics["consecutive_failures"].value == FAILURES
        assert breaker.is_halted
    assert rows(fleet.url) == 1
    assert_chain(fleet.url)


async def test_marks_of_every_process_count_in_the_losses_of_each(fleet: Fleet) -> None:
    breakers = [await fleet.breaker() for _ in range(PROCESSES)]
    # Each process reports an account of its own; together they are one portfolio.
    for number, breaker in enumerate(breakers):
        await breaker.record_equity(1_000, account=f"account-{number}")
    for number, breaker in enumerate(breakers):
        assert trips(fleet.url) == []
        await breaker.record_equity(895, account=f"account-{number}")
    assert trips(fleet.url) == ["daily_pnl"]
    for breaker in breakers:
        assert (await breaker.check_all_metrics()).is_halted
    assert rows(fleet.url) == 1


async def test_orders_of_every_process_count_in_the_velocity_of_each(fleet: Fleet) -> None:
    """None of them alone sends more than the limit; the first order above it trips, once."""
    few = CircuitBreakerConfig(max_trades_per_hour=ORDERS, monitor_interval=30)
    order = {"symbol": SYMBOL, "side": "BUY", "amount": "1", "type": "MARKET"}
    venue = ScriptedExchange()
    breakers, gates = [], []
    for _ in range(2):
        breakers.append(await fleet.breaker(few))
        gate, limits = await fleet.gate(breakers[-1], venue)
        gates.append(gate)
    await breakers[0].record_equity(1_000_000)
    await limits.set_reference_price(SYMBOL, 100)
    for breaker in breakers:
        await breaker.check_all_metrics()
    for number in range(ORDERS):
        sent = await gates[number % 2].submit(order)
        assert getattr(sent, "accepted", False), sent
    assert trips(fleet.url) == []
    refused = [await gates[(ORDERS + number) % 2].submit(order) for number in range(2)]
    codes = [getattr(one, "reason_code", None) for one in refused]
    assert codes == ["TRADE_VELOCITY", "CIRCUIT_BREAKER_TRIPPED"], refused
    assert len(venue.sent) == ORDERS
    assert trips(fleet.url) == ["trade_velocity"]
    for breaker in breakers:
        assert (await breaker.check_all_metrics()).is_halted
    assert rows(fleet.url) == 1
    assert_chain(fleet.url)


def _evaluate(url: str, folder: str, go: str, number: int) -> None:
    asyncio.run(_evaluate_when_told(url, Path(folder), Path(go), number))


async def _evaluate_when_told(url: str, folder: Path, go: Path, number: int) -> None:
    folder.mkdir()
    context = await open_context(locate(url, data_dir=folder))
    strict = CircuitBreakerConfig(error_rate_limit=100.0, consecutive_failure_limit=2)
    breaker = CircuitBreaker(None, context, strict)
    await context.store.read(lambda tx: tx.head())
    go.with_name(f"ready-{number}").touch()
    while not go.exists():
        await asyncio.sleep(0.001)
    status = await breaker.check_all_metrics()
    assert status.is_halted
    assert status.trip is not None
    go.with_name(f"saw-{number}").write_text(status.trip.id)
    await breaker.close()
    await context.close()


@pytest.mark.parametrize("attempt", range(ROUNDS))
async def test_processes_that_evaluate_at_once_trip_once(fleet: Fleet, attempt: int) -> None:
    """The insert is conditional: whoever comes second finds the trip of the first."""
    lax = CircuitBreakerConfig(error_rate_limit=100.0, consecutive_failure_limit=50)
    breaker = await fleet.breaker(lax)
    await breaker.record_equity(1_000)
    for number in range(3):
        await breaker.record_execution(ok=False, client_order_id=f"o{number}")
    assert trips(fleet.url) == []
    go = fleet.folder / "go"
    processes = []
    for number in range(PROCESSES):
        words = (fleet.url, str(fleet.folder / f"p{number}"), str(go), number)
        processes.append(FORKS.Process(target=_evaluate, args=words, daemon=True))
        processes[-1].start()
    ready = [fleet.folder / f"ready-{number}" for number in range(PROCESSES)]
    await asyncio.to_thread(wait_for, lambda: all(one.exists() for one in ready), "all are ready")
    go.touch()
    for process in processes:
        await asyncio.to_thread(process.join, 30)
        assert process.exitcode == 0
    assert trips(fleet.url) == ["consecutive_failures"]
    assert rows(fleet.url) == 1
    seen = {(fleet.folder / f"saw-{number}").read_text() for number in range(PROCESSES)}
    assert seen == {row[0] for row in query(fleet.url, "SELECT id FROM trips")}
    assert_chain(fleet.url)


async def test_a_process_whose_evaluations_hang_refuses_entries_after_three_intervals(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its reads hang; orders would still be decided, from a state that nobody looks after."""
    clock = LateClock()
    config = CircuitBreakerConfig(monitor_interval=INTERVAL_S)
    breaker = await fleet.breaker(config, clock)
    context = fleet.contexts[0]
    venue = ScriptedExchange()
    gate, limits = await fleet.gate(breaker, venue, clock)
    order = {"symbol": SYMBOL, "side": "BUY", "amount": "1", "type": "MARKET"}
    await breaker.record_equity(1_000_000)
    await limits.set_reference_price(SYMBOL, 100)
    await breaker.check_all_metrics()
    sent = await gate.submit(order)
    assert getattr(sent, "accepted", False), sent

    hung = asyncio.Event()
    read = context.store.read

    async def hanging(script: object) -> object:
        if getattr(script, "__qualname__", "").startswith("CircuitBreaker"):
            await hung.wait()
        return await read(script)  # type: ignore[arg-type]

    monkeypatch.setattr(context.store, "read", hanging)
    checking = asyncio.ensure_future(breaker.check_all_metrics())
    await asyncio.sleep(0)
    assert not breaker.is_halted
    clock.late_s = 3 * INTERVAL_S + 0.001
    assert breaker.is_halted
    assert "MONITOR_STALE" in (breaker.halt_reason or "")
    refused = await gate.submit(order)
    assert refused.reason_code == "MONITOR_STALE", refused
    assert len(venue.sent) == 1
    # Nothing is latched: with the next look it trades again, here as in every other process.
    assert trips(fleet.url) == []
    hung.set()
    assert not (await checking).is_halted
    again = await gate.submit(order)
    assert getattr(again, "accepted", False), again


def test_no_trip_is_written_twice_even_by_hand(durable_url: str) -> None:
    """The database holds at most one standing trip, whoever writes."""
    insert = (
        "INSERT INTO trips (id, metric, value, limit_value, sentence, tripped_ms, standing)"
        " VALUES (%s, 'drawdown', '-16', '-15', 'x', 1, 1) RETURNING id"
    )
    assert query(durable_url, insert, "one")
    with pytest.raises(Exception, match="unique"):
        query(durable_url, insert, "two")
