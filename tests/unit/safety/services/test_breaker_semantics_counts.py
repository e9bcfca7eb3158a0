"""What the semantics say of velocity, error rate and failure streak, sentence by sentence."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from breaker_world import World

from tinywindow.safety.services.breaker_status import MetricStatus
from tinywindow.safety.services.circuit_breaker import CircuitBreaker


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def tripped(breaker: CircuitBreaker) -> bool:
    """Read anew: a type checker takes a property for constant."""
    return breaker.is_tripped


async def metric(breaker: CircuitBreaker, name: str) -> MetricStatus:
    return (await breaker.check_all_metrics()).metrics[name]


async def value(breaker: CircuitBreaker, name: str) -> object:
    return (await metric(breaker, name)).value


# Velocity.


async def test_a_count_that_has_had_nothing_to_count_is_ok(world: World) -> None:
    async with world.breaker() as breaker:
        for name in ("trade_velocity", "error_rate", "consecutive_failures"):
            found = await metric(breaker, name)
            assert (found.state, found.fed_at) == ("OK", None)


async def test_the_51st_order_without_a_gate_trips_in_whichever_process(world: World) -> None:
    async with world.process() as one, world.process() as other:
        for number in range(50):
            await (one if number % 2 else other).record_execution(ok=True)
        assert not tripped(one)
        await other.record_execution(ok=True)
        assert (await one.check_all_metrics()).halt_reason == (
            "TRADE_VELOCITY: 51 orders within an hour are above the limit of 50"
        )


@pytest.mark.parametrize(("age_s", "counted"), [(3_599.999, 1), (3_600, 0)])
async def test_velocity_is_a_sliding_window_of_an_hour(
    world: World, age_s: float, counted: int
) -> None:
    async with world.breaker() as breaker:
        await breaker.record_execution(ok=True)
        world.clock.advance(age_s)
        assert await value(breaker, "trade_velocity") == counted


async def test_cancels_decisions_and_repeated_reports_are_no_orders(world: World) -> None:
    async with world.breaker() as breaker:
        for _ in range(3):
            await breaker.record_call(ok=True, kind="cancel")
            await breaker.record_call(ok=True, kind="decision")
            await breaker.record_execution(None, client_order_id="o")
            await breaker.record_execution(ok=True, client_order_id="o")
            await breaker.record_execution(ok=False, client_order_id="o")
        assert await value(breaker, "trade_velocity") == 1
        assert await value(breaker, "error_rate") == 0
        assert await value(breaker, "consecutive_failures") == 0


async def test_one_order_recorded_by_two_processes_counts_once(world: World) -> None:
    async with world.process() as one, world.process() as other:
        await one.record_execution(ok=False, client_order_id="o")
        await other.record_execution(ok=False, client_order_id="o")
        assert await value(one, "trade_velocity") == 1
        assert await value(one, "consecutive_failures") == 1


async def test_an_order_said_to_lie_ahead_of_the_clock_was_made_now(world: World) -> None:
    async with world.breaker() as breaker:
        ahead = world.clock.now() + timedelta(days=400)
        await breaker.record_execution(ok=False, at=ahead)
        world.clock.advance(3_600)
        assert await value(breaker, "trade_velocity") == 0
        world.clock.advance(86_400)
        assert await value(breaker, "consecutive_failures") == 0
    async with world.breaker() as breaker:
        # Nor does the clock seem to stand before the newest row.
        await breaker.check_all_metrics()
        context = breaker._handle.opened
        assert context is not None
        assert not context.found()


# Error rate.


@pytest.mark.parametrize(
    ("attempts", "failing", "trips"),
    [(19, {0, 1, 2, 3}, False), (20, {0, 1}, True), (20, {0}, False), (21, {0, 20}, False)],
)
async def test_the_error_rate_needs_twenty_attempts_and_trips_at_its_limit(
    world: World, attempts: int, failing: set[int], *, trips: bool
) -> None:
    async with world.breaker() as breaker:
        for number in range(attempts):
            await breaker.record_call(ok=number not in failing, kind="decision")
        assert tripped(breaker) is trips


async def test_an_error_rate_below_its_samples_is_ok_and_says_so(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_call(ok=False, kind="cancel")
        found = await metric(breaker, "error_rate")
        assert (found.state, found.value) == ("OK", Decimal(100))
        assert found.note == "1 of the 20 attempts that it needs"


async def test_an_unknown_outcome_that_turns_out_well_no_longer_counts_as_failed(
    world: World,
) -> None:
    async with world.breaker() as breaker:
        await breaker.record_execution(None, client_order_id="o")
        assert await value(breaker, "error_rate") == 100
        await breaker.record_execution(ok=True, client_order_id="o")
        assert await value(breaker, "error_rate") == 0


async def test_the_error_rate_is_of_the_last_hour(world: World) -> None:
    async with world.breaker() as breaker:
        for _ in range(19):
            await breaker.record_call(ok=False, kind="decision")
        world.clock.advance(3_600)
        await breaker.record_call(ok=False, kind="decision")
        assert not tripped(breaker)


# The streak.


async def test_a_streak_lapses_after_24_h_without_an_attempt_and_not_before(world: World) -> None:
    async with world.breaker() as breaker:
        for _ in range(4):
            await breaker.record_execution(ok=False)
        world.clock.advance(86_399.999)
        assert await value(breaker, "consecutive_failures") == 4
        world.clock.advance(0.001)
        assert await value(breaker, "consecutive_failures") == 0
        await breaker.record_execution(ok=False)
        assert await value(breaker, "consecutive_failures") == 1


async def test_a_streak_of_days_outlives_a_restart(world: World) -> None:
    async with world.breaker() as breaker:
        for _ in range(4):
            await breaker.record_execution(ok=False)
            world.clock.advance(23 * 3_600)
    async with world.process() as breaker:
        await breaker.record_execution(ok=False)
        assert breaker.halt_reason == (
            "CONSECUTIVE_FAILURES: a streak of 5 is at or above the limit of 5"
        )


async def test_a_cancel_that_works_or_a_decision_ends_no_streak(world: World) -> None:
    async with world.breaker() as breaker:
        for _ in range(5):
            assert not tripped(breaker)
            await breaker.record_execution(ok=False)
            await breaker.record_call(ok=True, kind="cancel")
        assert tripped(breaker)


async def test_a_failure_that_is_found_out_late_counts_where_it_was_made(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_execution(None, client_order_id="late")
        await breaker.record_execution(ok=True)
        for _ in range(4):
            await breaker.record_execution(ok=False)
        await breaker.record_execution(ok=False, client_order_id="late")
        assert await value(breaker, "consecutive_failures") == 4


# When each was last fed.


async def test_each_metric_says_when_it_was_last_fed(world: World) -> None:
    async with world.breaker() as breaker:
        start = world.clock.now()
        await breaker.record_equity(100)
        world.clock.advance(1)
        await breaker.record_execution(ok=True)
        world.clock.advance(1)
        await breaker.record_call(ok=True, kind="decision")
        metrics = (await breaker.check_all_metrics()).metrics
        fed = {
            name: None if one.fed_at is None else (one.fed_at - start).total_seconds()
            for name, one in metrics.items()
        }
        assert fed == {
            "daily_pnl": 0,
            "drawdown": 0,
            "trade_velocity": 1,
            "error_rate": 2,
            "consecutive_failures": 1,
        }


@pytest.mark.parametrize("ok", [1, 0, "yes", 0.0])
async def test_an_outcome_is_true_false_or_none(world: World, ok: object) -> None:
    async with world.breaker() as breaker:
        with pytest.raises(ValueError, match="wanted True, False or None"):
            await breaker.record_execution(ok)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="wanted 'cancel' or 'decision'"):
            await breaker.record_call(ok=True, kind="order")
