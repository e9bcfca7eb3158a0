"""What the semantics say of accounts, equity, NAV, days and the clock, sentence by sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from breaker_world import NOON, FakeClock, World

from tinywindow.safety.domain.breaker_documents import nav_point
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.errors import ResetRefused
from tinywindow.safety.services import breaker_scripts
from tinywindow.safety.services.breaker_status import CircuitBreakerStatus
from tinywindow.safety.services.circuit_breaker import CircuitBreaker


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def daily(status: CircuitBreakerStatus) -> object:
    return status.metrics["daily_pnl"].value


def drawdown(status: CircuitBreakerStatus) -> object:
    return status.metrics["drawdown"].value


def state(status: CircuitBreakerStatus) -> str:
    return status.metrics["daily_pnl"].state.value


def tripped(breaker: CircuitBreaker) -> bool:
    """Read anew: a type checker takes a property for constant."""
    return breaker.is_tripped


def at(day: int, hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, minute, second, tzinfo=UTC)


# Accounts.


async def test_portfolio_equity_is_the_sum_of_the_accounts_last_marks(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100, account="a")
        await breaker.record_equity(100, account="b")
        await breaker.record_equity(88, account="a")
        assert daily(await breaker.check_all_metrics()) == -6


async def test_an_accounts_first_mark_is_a_flow_and_not_a_profit(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100, account="a")
        await breaker.record_equity(1_000, account="b")
        status = await breaker.check_all_metrics()
        assert (daily(status), drawdown(status)) == (0, 0)
        await breaker.record_equity(-50, account="c")
        assert daily(await breaker.check_all_metrics()) == 0


async def test_the_portfolio_is_trusted_when_all_accounts_are(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100, account="a")
        await breaker.record_equity(100, account="b")
        world.clock.advance(40)
        await breaker.record_equity(100, account="a")
        assert state(await breaker.check_all_metrics()) == "OK"
        world.clock.advance(21)
        assert state(await breaker.check_all_metrics()) == "UNKNOWN"
        await breaker.record_equity(100, account="b")
        assert state(await breaker.check_all_metrics()) == "OK"


# Flows.


@pytest.mark.parametrize("flow", [900, -99, "-99.99"])
async def test_both_losses_ignore_flows_across_a_restart(world: World, flow: object) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(Decimal(100) + Decimal(str(flow)), cash_flow=flow)
    async with world.breaker() as breaker:
        status = await breaker.check_all_metrics()
        assert (daily(status), drawdown(status)) == (0, 0)


async def test_a_loss_made_together_with_a_deposit_is_the_loss(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(190, cash_flow=100)
        assert breaker.halt_reason == "DAILY_PNL: -10.00 % is at or beyond the limit of -10.00 %"


@pytest.mark.parametrize("equity", [0, -5])
async def test_at_a_nav_of_zero_or_less_flows_are_refused_until_a_rebaseline(
    world: World, equity: int
) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(equity)
        status = await breaker.check_all_metrics()
        assert (daily(status), drawdown(status)) == (-100, -100)
        with pytest.raises(ValueError, match="NAV is zero or less"):
            await breaker.record_equity(100, cash_flow=100 - equity)
        pending = breaker.reset()
        assert pending.still_breached == ("daily_pnl", "drawdown")
        await pending.confirm("ann", "paid in again", rebaseline=True)
        await breaker.record_equity(100, cash_flow=100 - equity)
        status = await breaker.check_all_metrics()
        assert (daily(status), drawdown(status), status.is_halted) == (0, 0, False)


# Trust.


@pytest.mark.parametrize(
    ("age_s", "estimated", "trusted"),
    [
        (60, False, True),
        (60.001, False, False),
        (-2, False, True),
        (-2.001, False, False),
        (0, True, False),
    ],
)
async def test_what_makes_a_mark_untrusted(
    world: World, age_s: float, *, estimated: bool, trusted: bool
) -> None:
    async with world.breaker() as breaker:
        moment = world.clock.now() - timedelta(seconds=age_s)
        await breaker.record_equity(100, at=moment, estimated=estimated)
        assert (state(await breaker.check_all_metrics()) == "OK") is trusted


async def test_an_untrusted_mark_raises_no_peak_and_lowers_no_loss(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(95)
        await breaker.record_equity(200, estimated=True)
        status = await breaker.check_all_metrics()
        assert (daily(status), drawdown(status)) == (-5, -5)
        await breaker.record_equity(95)
        assert drawdown(await breaker.check_all_metrics()) == -5


async def test_a_late_trusted_mark_does_not_make_a_newer_estimate_believed(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        late = world.clock.now() + timedelta(seconds=5)
        world.clock.advance(20)
        await breaker.record_equity(92, estimated=True)
        await breaker.record_equity(99, estimated=True)
        assert daily(await breaker.check_all_metrics()) == -8
        await breaker.record_equity(100, at=late)
        assert daily(await breaker.check_all_metrics()) == -8


async def test_entries_need_a_trusted_mark_and_is_halted_waits_a_minute(world: World) -> None:
    async with world.breaker(monitor_interval=100) as breaker:
        await breaker.record_equity(100)
        world.clock.advance(60)
        assert state(await breaker.check_all_metrics()) == "OK"
        world.clock.advance(0.5)
        status = await breaker.check_all_metrics()
        assert state(status) == "UNKNOWN"
        assert status.halt_reason is not None
        assert status.halt_reason.startswith("METRIC_UNKNOWN: ")
        await breaker.record_equity(100)
        assert not (await breaker.check_all_metrics()).is_halted


async def test_a_mark_that_may_be_trusted_longer_does_not_halt_while_it_is(world: World) -> None:
    async with world.breaker(monitor_interval=1_000, equity_max_age=300) as breaker:
        await breaker.record_equity(100)
        for seconds, halts in ((300, False), (1, True)):
            world.clock.advance(seconds)
            status = await breaker.check_all_metrics()
            assert (status.is_halted, state(status) == "UNKNOWN") == (halts, halts)


# Thinning.


async def test_marks_are_thinned_and_what_something_stands_on_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_scripts, "THIN_EVERY", 50)
    async with world.breaker(daily_loss_limit=-90, drawdown_limit=-90) as breaker:
        peak = 7
        for number in range(49):
            await breaker.record_equity(150 if number == peak else 100)
            world.clock.advance(1)
        world.clock.advance(26 * 3_600)
        await breaker.record_equity(100)
        context = breaker._handle.opened
        assert context is not None
        marks = await context.store.read(lambda tx: tx.marks(since_ms=0, limit=1_000))
        point = nav_point(await world.documents())
        ids = {mark.id for mark in marks}
        assert len(marks) < 10
        assert {point.ids.peak, point.ids.trusted} <= ids
        assert drawdown(await breaker.check_all_metrics()) == Decimal("-33.333333333334")


async def test_marks_that_no_breaker_looked_at_are_not_thinned(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_scripts, "THIN_EVERY", 20)
    async with world.enforcer() as enforcer:
        await enforcer.record_equity(100)
        world.clock.advance(1)
        # A withdrawal that went missing would look like a loss of half.
        await enforcer.record_equity(50, cash_flow=-50)
        for _ in range(17):
            world.clock.advance(1)
            await enforcer.record_equity(50)
        world.clock.advance(26 * 3_600)
        await enforcer.record_equity(50)
    async with world.breaker() as breaker:
        assert not tripped(breaker)
        assert drawdown(await breaker.check_all_metrics()) == 0


async def test_a_breaker_that_slept_for_days_walks_no_thinned_marks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_scripts, "THIN_EVERY", 20)
    async with world.breaker() as awake, world.process() as asleep:
        await awake.record_equity(100)
        await asleep.check_all_metrics()
        world.clock.advance(1)
        await awake.record_equity(100)
        world.clock.advance(1)
        await awake.record_equity(50, cash_flow=-50)
        for _ in range(17):
            world.clock.advance(1)
            await awake.record_equity(50)
        world.clock.advance(26 * 3_600)
        for _ in range(20):
            await awake.record_equity(50)
        await asleep.check_all_metrics()
        assert not tripped(asleep)


# The day.


async def test_the_day_opens_at_midnight_utc_on_the_last_trusted_mark_before_it(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, FakeClock(at(4, 23, 30)))
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        world.clock.advance(1_799)
        await breaker.record_equity(96)
        assert daily(await breaker.check_all_metrics()) == -4
        world.clock.advance(1)
        assert daily(await breaker.check_all_metrics()) == 0
        world.clock.advance(1)
        await breaker.record_equity("86.41")
        assert not tripped(breaker)
        await breaker.record_equity("86.40")
        assert tripped(breaker)


@pytest.mark.parametrize(("first", "loss"), [(105, -4), (90, 0)])
async def test_an_old_mark_yields_to_a_higher_first_mark_of_the_day(
    tmp_path: Path, first: int, loss: int
) -> None:
    world = World(tmp_path, FakeClock(at(4, 20)))
    async with world.breaker(daily_loss_limit=-50, drawdown_limit=-50) as breaker:
        await breaker.record_equity(100)
        world.clock.advance(5 * 3_600)
        await breaker.record_equity(first)
        baseline = max(Decimal(first), Decimal(100))
        await breaker.record_equity(baseline * (100 + loss) / 100)
        assert daily(await breaker.check_all_metrics()) == loss


async def test_without_any_mark_before_the_baseline_is_the_first_and_said_to_be_estimated(
    world: World,
) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        status = await breaker.check_all_metrics()
        assert status.metrics["daily_pnl"].note == "estimated baseline"
    async with world.breaker() as breaker:
        status = await breaker.check_all_metrics()
        assert status.metrics["daily_pnl"].note == "estimated baseline"


async def test_a_mark_that_comes_late_over_midnight_may_only_raise_the_baseline(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, FakeClock(at(4, 23, 59, 30)))
    async with world.breaker(daily_loss_limit=-50) as breaker:
        await breaker.record_equity(100)
        world.clock.advance(40)
        await breaker.record_equity(100)
        await breaker.record_equity(90, at=at(4, 23, 59, 50))
        assert daily(await breaker.check_all_metrics()) == 0
        await breaker.record_equity(110, at=at(4, 23, 59, 55))
        value = daily(await breaker.check_all_metrics())
        assert isinstance(value, Decimal)
        assert round(value, 2) == Decimal("-9.09")


@pytest.mark.parametrize(
    ("before", "after", "rolls"),
    [
        # Spring forward: 8 March 2026 has 23 hours in New York, and opens at 05:00 UTC.
        (datetime(2026, 3, 8, 4, 59, 30, tzinfo=UTC), datetime(2026, 3, 8, 5, tzinfo=UTC), True),
        (datetime(2026, 3, 9, 3, 59, 30, tzinfo=UTC), datetime(2026, 3, 9, 4, tzinfo=UTC), True),
        (
            datetime(2026, 3, 9, 3, 58, 30, tzinfo=UTC),
            datetime(2026, 3, 9, 3, 59, tzinfo=UTC),
            False,
        ),
        # Fall back: 1 November 2026 has 25 hours.
        (datetime(2026, 11, 2, 3, 59, 30, tzinfo=UTC), datetime(2026, 11, 2, 4, tzinfo=UTC), False),
        (datetime(2026, 11, 2, 4, 59, 30, tzinfo=UTC), datetime(2026, 11, 2, 5, tzinfo=UTC), True),
    ],
)
async def test_a_local_day_opens_at_local_midnight_on_the_days_the_clocks_change(
    tmp_path: Path, before: datetime, after: datetime, *, rolls: bool
) -> None:
    world = World(tmp_path, FakeClock(before - timedelta(seconds=20)))
    async with world.breaker(day_timezone="America/New_York") as breaker:
        await breaker.record_equity(100)
        world.clock.advance(20)
        await breaker.record_equity(96)
        world.clock.advance((after - before).total_seconds())
        assert daily(await breaker.check_all_metrics()) == (0 if rolls else -4)


# The clock.


async def test_a_clock_set_forward_erases_no_loss_in_any_object_on_the_store(world: World) -> None:
    async with world.breaker() as breaker, world.enforcer() as enforcer:
        await breaker.record_equity(100)
        await breaker.record_equity(95)
        world.clock.jump(86_400)
        await breaker.check_all_metrics()
        assert Reason.CLOCK_UNTRUSTED in _faults(breaker)
        await enforcer.record_equity(95)
        assert daily(await breaker.check_all_metrics()) == -5
        await breaker.record_equity(90)
        assert tripped(breaker)


async def test_a_clock_set_forward_over_a_restart_and_back_erases_no_loss(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(95)
    world.clock.jump(86_400)
    async with world.breaker() as breaker:
        # After a restart this looks like downtime only.
        await breaker.record_equity(95)
        assert daily(await breaker.check_all_metrics()) == 0
    world.clock.jump(-86_400)
    async with world.breaker() as breaker:
        await breaker.record_equity(95)
        assert daily(await breaker.check_all_metrics()) == -5
        assert Reason.CLOCK_UNTRUSTED in _faults(breaker)


def _faults(breaker: CircuitBreaker) -> list[Reason]:
    context = breaker._handle.opened
    assert context is not None
    return [fault.code for fault in context.found()]


async def test_a_clock_set_back_opens_no_day_and_lowers_no_baseline(tmp_path: Path) -> None:
    world = World(tmp_path, FakeClock(at(5, 0, 0, 10)))
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        world.clock.jump(-20)
        await breaker.record_equity(95)
        await breaker.record_equity(90)
        assert tripped(breaker)


async def test_the_day_does_not_roll_until_five_minutes_of_agreement(world: World) -> None:
    async with world.breaker(drawdown_limit=-90, daily_loss_limit=-50) as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(95)
        world.clock.jump(86_400)
        await breaker.record_equity(95)
        for seconds, loss in ((299, -5), (1, 0)):
            world.clock.advance(seconds)
            await breaker.record_equity(95)
            await breaker.check_all_metrics()
            assert daily(await breaker.check_all_metrics()) == loss


async def test_an_operator_may_say_that_the_clock_is_right(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        world.clock.jump(3)
        await breaker.check_all_metrics()
        with pytest.raises(ValueError, match="must be named"):
            await breaker.trust_clock(" ", "checked")
        await breaker.trust_clock("ann", "checked against the wall")
        context = breaker._handle.opened
        assert context is not None
        assert not context.found()


async def test_after_a_rebaseline_under_an_untrusted_clock_the_next_day_is_measured_from_it(
    world: World,
) -> None:
    async with world.breaker(drawdown_limit=-90) as breaker:
        await breaker.record_equity(100)
        world.clock.jump(86_400)
        await breaker.record_equity(88)
        assert tripped(breaker)
        with pytest.raises(ResetRefused):
            await breaker.reset().confirm("ann", "seen")
        await breaker.reset().confirm("ann", "seen", rebaseline=True)
        await breaker.trust_clock("ann", "checked")
        await breaker.record_equity(88)
        status = await breaker.check_all_metrics()
        assert (daily(status), status.is_halted) == (0, False)


async def test_a_restart_changes_no_metric_at_any_moment(world: World) -> None:
    world.clock.wall = NOON
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(103)
        await breaker.record_equity("95.5")
        for number in range(7):
            await breaker.record_execution(number % 3 > 0, client_order_id=f"o{number}")
            await breaker.record_call(ok=True, kind="decision")
        before = (await breaker.check_all_metrics()).metrics
    async with world.breaker() as breaker:
        assert (await breaker.check_all_metrics()).metrics == before
