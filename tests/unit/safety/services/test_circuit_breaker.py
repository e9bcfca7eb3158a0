"""The circuit breaker on a real store: boundaries, the latch, resets, and what fails closed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from breaker_world import World

from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.domain.order import PositionKey
from tinywindow.safety.domain.records import Position, TradingState, Trip
from tinywindow.safety.domain.windows import Outcome
from tinywindow.safety.errors import ConfigurationError, ResetRefused, StoreUnavailable
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.breaker_scripts import record_mark
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.context import ContextHandle, SafetyContext


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def halted(breaker: CircuitBreaker) -> bool:
    """Read anew: a type checker takes a property for constant."""
    return breaker.is_halted


def tripped_now(breaker: CircuitBreaker) -> bool:
    return breaker.is_tripped


async def context_of(breaker: CircuitBreaker) -> SafetyContext:
    await breaker.check_all_metrics()
    context = breaker._handle.opened
    assert context is not None
    return context


# Each metric at, below and above its boundary.


@pytest.mark.parametrize(
    ("equity", "tripped"),
    [
        ("90.01", False),
        ("90.000000000001", False),
        ("90.00", True),
        ("89.999999999999", True),
        ("89.99", True),
    ],
)
async def test_daily_loss_trips_at_its_limit(world: World, equity: str, *, tripped: bool) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(equity)
        assert breaker.is_tripped is tripped
        status = await breaker.check_all_metrics()
        assert status.is_halted is tripped
        assert status.metrics["daily_pnl"].value == Decimal(equity) - 100


@pytest.mark.parametrize(
    ("equity", "tripped"),
    [
        ("85.01", False),
        ("85.000000000001", False),
        ("85", True),
        ("84.999999999999", True),
        ("84", True),
    ],
)
async def test_drawdown_trips_at_its_limit(world: World, equity: str, *, tripped: bool) -> None:
    async with world.breaker(daily_loss_limit=-50) as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(equity)
        assert breaker.is_tripped is tripped
        status = await breaker.check_all_metrics()
        assert status.metrics["drawdown"].value == Decimal(equity) - 100


async def test_fifty_orders_an_hour_pass_and_the_next_trips(world: World) -> None:
    async with world.breaker() as breaker:
        for number in range(50):
            await breaker.record_execution(ok=True, client_order_id=f"o{number}")
        assert not halted(breaker)
        await breaker.record_execution(ok=True, client_order_id="o50")
        assert breaker.halt_reason == (
            "TRADE_VELOCITY: 51 orders within an hour are above the limit of 50"
        )


async def test_velocity_slides(world: World) -> None:
    async with world.breaker() as breaker:
        for _ in range(50):
            await breaker.record_execution(ok=True)
        world.clock.advance(3_600)
        await breaker.record_execution(ok=True)
        assert not tripped_now(breaker)


@pytest.mark.parametrize(("failed", "tripped"), [(1, False), (2, True)])
async def test_error_rate_trips_at_its_limit(world: World, failed: int, *, tripped: bool) -> None:
    async with world.breaker() as breaker:
        for _ in range(failed):
            await breaker.record_call(ok=False, kind="decision")
        for _ in range(20 - failed):
            assert not tripped_now(breaker)
            await breaker.record_call(ok=True, kind="cancel")
        assert breaker.is_tripped is tripped


async def test_an_unknown_outcome_counts_as_failed_in_the_error_rate(world: World) -> None:
    async with world.breaker() as breaker:
        for _ in range(18):
            await breaker.record_call(ok=True, kind="decision")
        await breaker.record_execution(None, client_order_id="a")
        await breaker.record_execution(None, client_order_id="b")
        assert breaker.halt_reason == "ERROR_RATE: 10.00 % is at or above the limit of 10.00 %"


@pytest.mark.parametrize(("failures", "tripped"), [(4, False), (5, True)])
async def test_failures_in_a_row_trip_at_their_limit(
    world: World, failures: int, *, tripped: bool
) -> None:
    async with world.breaker() as breaker:
        for _ in range(failures):
            await breaker.record_execution(ok=False)
        assert breaker.is_tripped is tripped


async def test_a_success_ends_the_streak_and_an_unknown_outcome_does_neither(world: World) -> None:
    async with world.breaker() as breaker:
        for ok in (False, False, False, False, None, True, False, False, False, False, None):
            await breaker.record_execution(ok)
        assert not tripped_now(breaker)
        await breaker.record_execution(ok=False)
        assert breaker.is_tripped


async def test_an_execution_is_recorded_once_by_its_id_and_may_become_known(world: World) -> None:
    async with world.breaker() as breaker:
        for _ in range(3):
            await breaker.record_execution(None, client_order_id="a")
        status = await breaker.check_all_metrics()
        assert status.metrics["trade_velocity"].value == 1
        assert status.metrics["consecutive_failures"].value == 0
        await breaker.record_execution(ok=False, client_order_id="a")
        await breaker.record_execution(ok=True, client_order_id="a")
        status = await breaker.check_all_metrics()
        assert status.metrics["trade_velocity"].value == 1
        assert status.metrics["consecutive_failures"].value == 1


async def test_an_order_proven_unsent_gives_its_slot_back(world: World) -> None:
    async with world.breaker() as breaker:
        context = await context_of(breaker)

        def take(tx: Tx) -> None:
            tx.put_execution(
                kind="order",
                at_ms=int(world.clock.now().timestamp() * 1000),
                outcome=Outcome.PENDING,
                resolved_ms=None,
                client_order_id="a",
            )

        await context.store.transact(take)
        status = await breaker.check_all_metrics()
        assert status.metrics["trade_velocity"].value == 1
        now = world.clock.now()
        await context.store.transact(
            lambda tx: breaker.record_attempt(tx, "a", Outcome.VOID, now=now)
        )
        status = await breaker.check_all_metrics()
        assert status.metrics["trade_velocity"].value == 0


# The latch.


async def test_a_trip_outlives_recovery_midnight_and_restart(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(89)
        await breaker.record_equity(120)
        assert breaker.is_tripped
        world.clock.advance(13 * 3_600)
        await breaker.record_equity(120)
        status = await breaker.check_all_metrics()
        assert status.is_halted
        assert status.metrics["daily_pnl"].state == "OK"
    async with world.breaker() as again:
        reason = "DAILY_PNL: -11.00 % is at or beyond the limit of -10.00 %"
        assert again.halt_reason == reason
        assert again.halt_code is Reason.CIRCUIT_BREAKER_TRIPPED


async def test_a_trip_writes_one_row_with_all_readings_and_stops_trading(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        for _ in range(3):
            await breaker.record_equity(80)
            await breaker.check_all_metrics()
        context = await context_of(breaker)
        head = await context.store.read(lambda tx: tx.head())
        assert head.trading is TradingState.STOPPED
    rows = await world.rows("CIRCUIT_BREAKER_TRIP")
    assert len(rows) == 1
    data = json.loads(rows[0])
    assert (data["metric"], data["value"], data["limit"]) == ("daily_pnl", "-20", "-10")
    assert set(data["metrics"]) == {
        "daily_pnl",
        "drawdown",
        "trade_velocity",
        "error_rate",
        "consecutive_failures",
    }


async def test_midnight_opens_a_new_day_for_an_armed_breaker(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(92)
        world.clock.advance(12 * 3_600 - 10)
        await breaker.record_equity(92)
        world.clock.advance(20)
        await breaker.record_equity(90)
        status = await breaker.check_all_metrics()
        assert not status.is_halted
        value = status.metrics["daily_pnl"].value
        assert value is not None
        assert round(value, 3) == Decimal("-2.174")


async def test_a_restart_changes_no_metric(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(95)
        for ok in (True, False, False):
            await breaker.record_execution(ok)
        before = await breaker.check_all_metrics()
    async with world.breaker() as again:
        after = await again.check_all_metrics()
    assert after.metrics == before.metrics


async def test_deposits_and_withdrawals_are_no_profit(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(1_100, cash_flow=1_000)
        await breaker.record_equity(600, cash_flow=-500)
        status = await breaker.check_all_metrics()
        assert status.metrics["daily_pnl"].value == 0
        assert status.metrics["drawdown"].value == 0


async def test_two_breakers_that_see_one_breach_trip_once(world: World) -> None:
    first, second = world.breaker(), world.breaker()
    await first.record_equity(100)
    await second.check_all_metrics()
    context = await context_of(first)
    now = world.clock.now()
    await context.store.transact(
        lambda tx: record_mark(
            tx,
            equity=Decimal(80),
            cash_flow=Decimal(0),
            account="default",
            at=now,
            now=now,
            estimated=False,
            new_id=lambda: "x",
        )
    )
    await asyncio.gather(
        *(breaker.check_all_metrics() for breaker in (first, second) for _ in range(5))
    )
    assert first.is_tripped
    assert second.is_tripped
    await first.close()
    await second.close()
    assert len(await world.rows("CIRCUIT_BREAKER_TRIP")) == 1


def test_breakers_in_two_loops_trip_once(world: World) -> None:
    async def lose() -> str | None:
        async with world.breaker() as breaker:
            await breaker.record_equity(80)
            return breaker.halt_reason

    async def begin() -> None:
        async with world.breaker() as breaker:
            await breaker.record_equity(100)

    async def both() -> list[str | None]:
        return await asyncio.gather(*(asyncio.to_thread(asyncio.run, lose()) for _ in range(4)))

    asyncio.run(begin())
    reasons = asyncio.run(both())
    assert len(set(reasons)) == 1
    assert reasons[0] is not None
    assert len(asyncio.run(world.rows("CIRCUIT_BREAKER_TRIP"))) == 1


def test_a_trip_of_another_process_shows_within_50_ms(world: World) -> None:
    async def elsewhere() -> None:
        async with world.breaker() as breaker:
            for _ in range(5):
                await breaker.record_execution(ok=False)

    async def here() -> float:
        async with world.breaker() as breaker:
            task = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
            await task
            loop = asyncio.get_running_loop()
            done = loop.time()
            while not breaker.is_tripped and loop.time() - done < 1:
                await asyncio.sleep(0.001)
            return loop.time() - done

    assert asyncio.run(here()) < 0.25  # 0.05 s on a machine of one's own; this one is shared


async def test_any_awaited_read_on_the_store_brings_a_standing_trip_in(world: World) -> None:
    async with world.breaker() as breaker:
        for _ in range(5):
            await breaker.record_execution(ok=False)
    fresh = world.breaker()
    assert not halted(fresh)
    handle = ContextHandle(world.database)
    context = await handle.open()
    await context.store.read(lambda tx: tx.head())
    assert halted(fresh)
    await handle.close()


# Marks of those who have no breaker.


async def test_a_breach_between_two_checks_trips_though_it_has_recovered(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.check_all_metrics()
        context = await context_of(breaker)
        for number, equity in enumerate((89, 101)):
            world.clock.advance(1)
            now = world.clock.now()
            await context.store.transact(
                lambda tx, equity=equity, now=now, number=number: record_mark(  # type: ignore[misc]
                    tx,
                    equity=Decimal(equity),
                    cash_flow=Decimal(0),
                    account="default",
                    at=now,
                    now=now,
                    estimated=False,
                    new_id=lambda: f"x{number}",
                )
            )
        assert not tripped_now(breaker)
        status = await breaker.check_all_metrics()
        assert status.halt_reason == "DAILY_PNL: -11.00 % is at or beyond the limit of -10.00 %"
        assert status.metrics["daily_pnl"].value == 1


async def test_marks_before_the_first_check_are_walked_by_a_later_process(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
    handle = ContextHandle(world.database)
    context = await handle.open()
    for number, equity in enumerate((85, 100)):
        now = world.clock.now()
        await context.store.transact(
            lambda tx, equity=equity, now=now, number=number: record_mark(  # type: ignore[misc]
                tx,
                equity=Decimal(equity),
                cash_flow=Decimal(0),
                account="default",
                at=now,
                now=now,
                estimated=False,
                new_id=lambda: f"y{number}",
            )
        )
    await handle.close()
    async with world.breaker() as later:
        assert later.is_tripped
    async with world.breaker() as again:
        await again.reset().confirm("ann", "seen")
        await again.check_all_metrics()
        assert not again.is_tripped


async def test_a_peak_after_a_mark_does_not_judge_that_mark(world: World) -> None:
    async with world.breaker(daily_loss_limit=-90) as breaker:
        await breaker.record_equity(100)
        context = await context_of(breaker)
        for number, equity in enumerate((90, 110)):
            now = world.clock.now()
            await context.store.transact(
                lambda tx, equity=equity, now=now, number=number: record_mark(  # type: ignore[misc]
                    tx,
                    equity=Decimal(equity),
                    cash_flow=Decimal(0),
                    account="default",
                    at=now,
                    now=now,
                    estimated=False,
                    new_id=lambda: f"z{number}",
                )
            )
        status = await breaker.check_all_metrics()
        assert not status.is_halted


# Unknown, stale, and broken.


async def test_without_a_mark_losses_are_unknown_and_halt_after_a_minute(world: World) -> None:
    async with world.breaker() as breaker:
        status = await breaker.check_all_metrics()
        assert status.metrics["daily_pnl"].state == "UNKNOWN"
        assert not status.is_halted
        world.clock.advance(60)
        assert not (await breaker.check_all_metrics()).is_halted
        world.clock.advance(1)
        status = await breaker.check_all_metrics()
        assert status.is_halted
        assert breaker.halt_code is Reason.METRIC_UNKNOWN
        await breaker.record_equity(100)
        assert not halted(breaker)
    assert await world.rows("CIRCUIT_BREAKER_TRIP") == []


async def test_an_untrusted_mark_keeps_losses_unknown_and_is_audited_once(world: World) -> None:
    async with world.breaker() as breaker:
        for _ in range(3):
            await breaker.record_equity(100, estimated=True)
        status = await breaker.check_all_metrics()
        assert status.metrics["drawdown"].state == "UNKNOWN"
        await breaker.record_equity(100)
        await breaker.record_equity(130, estimated=True)
        status = await breaker.check_all_metrics()
        assert status.metrics["drawdown"].value == 0
    assert len(await world.rows("MARK_UNTRUSTED")) == 2


async def test_is_halted_has_a_grace_of_three_intervals_before_the_first_check(
    world: World,
) -> None:
    breaker = world.breaker()
    assert not halted(breaker)
    assert breaker.faults()[0].code is Reason.MONITOR_STALE
    world.clock.advance(3)
    assert not halted(breaker)
    world.clock.advance(0.001)
    assert halted(breaker)
    assert breaker.halt_code is Reason.MONITOR_STALE
    await breaker.check_all_metrics()
    assert not halted(breaker)
    assert breaker.faults() == ()
    world.clock.advance(3.001)
    assert halted(breaker)
    await breaker.close()


async def test_three_failed_checks_halt_and_a_good_one_ends_that(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.breaker() as breaker:
        context = await context_of(breaker)

        async def broken(_: object) -> None:
            raise StoreUnavailable("the disk is gone")

        with monkeypatch.context() as patch:
            patch.setattr(context.store, "read", broken)
            for number in range(1, 4):
                with pytest.raises(StoreUnavailable):
                    await breaker.check_all_metrics()
                assert breaker.failed_checks == number
                assert breaker.is_halted is (number == 3)
        assert "the disk is gone" in (breaker.halt_reason or "")
        await breaker.check_all_metrics()
        assert not halted(breaker)
    rows = await world.rows("MONITOR_FAILED")
    assert [json.loads(row)["failures"] for row in rows] == [3]


async def test_a_store_that_is_gone_refuses_and_halts(world: World) -> None:
    breaker = world.breaker()
    await breaker.record_equity(100)
    await breaker.check_all_metrics()
    connection = sqlite3.connect(world.database)
    connection.execute("DROP TABLE head")
    connection.close()
    with pytest.raises(StoreUnavailable):
        await breaker.record_equity(90)
    with pytest.raises(StoreUnavailable):
        await breaker.check_all_metrics()
    world.clock.advance(3.1)
    assert halted(breaker)
    await breaker.close()


async def test_a_closed_breaker_answers_nothing_and_reopens_nothing(world: World) -> None:
    breaker = world.breaker()
    await breaker.check_all_metrics()
    await breaker.close()
    await breaker.close()
    with pytest.raises(StoreUnavailable):
        await breaker.check_all_metrics()


# The clock.


async def test_a_jump_of_the_wall_clock_refuses_entries_and_holds_the_day(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(95)
        context = await context_of(breaker)
        world.clock.jump(24 * 3_600)
        await breaker.record_equity(95)
        status = await breaker.check_all_metrics()
        assert Reason.CLOCK_UNTRUSTED in context.faults
        assert status.metrics["daily_pnl"].value == -5
        world.clock.advance(299)
        await breaker.record_equity(95)
        assert Reason.CLOCK_UNTRUSTED in context.faults
        world.clock.advance(1)
        await breaker.check_all_metrics()
        assert context.faults == {}
    rows = await world.rows("CLOCK_UNTRUSTED")
    assert [json.loads(row)["trusted"] for row in rows] == [False, True]


async def test_at_start_the_clock_is_compared_with_the_newest_row(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
    world.clock.jump(-3_600)
    async with world.breaker() as breaker:
        context = await context_of(breaker)
        assert Reason.CLOCK_UNTRUSTED in context.faults
        await breaker.trust_clock("ann", "the battery was empty")
        assert context.faults == {}
    world.clock.jump(30 * 86_400)
    async with world.breaker() as breaker:
        assert (await context_of(breaker)).faults == {}


# Resets.


async def trip_by_failures(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        await breaker.record_execution(ok=False)


async def test_reset_clears_nothing_and_confirm_does(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await trip_by_failures(breaker)
        pending = breaker.reset()
        assert breaker.is_tripped
        assert pending.still_breached == ()
        assert "CONSECUTIVE_FAILURES" in (pending.halt_reason or "")
        assert pending.expires_at == world.clock.now() + timedelta(minutes=10)
        await pending.confirm("ann", "the venue was down")
        assert not halted(breaker)
        status = await breaker.check_all_metrics()
        assert not status.is_halted
        assert status.metrics["consecutive_failures"].value == 0
        assert status.metrics["trade_velocity"].value == 0
        assert status.metrics["error_rate"].value is None
        context = await context_of(breaker)
        head = await context.store.read(lambda tx: tx.head())
        assert head.trading is TradingState.STOPPED
    rows = [json.loads(row) for row in await world.rows("CIRCUIT_BREAKER_RESET")]
    assert [(row["operator"], row["reason"]) for row in rows] == [("ann", "the venue was down")]


async def test_cleared_counts_stay_cleared_after_a_restart(world: World) -> None:
    async with world.breaker() as breaker:
        await trip_by_failures(breaker)
        await breaker.reset().confirm("ann", "seen")
    async with world.breaker() as again:
        status = await again.check_all_metrics()
        assert not again.is_tripped
        assert status.metrics["consecutive_failures"].value == 0


async def test_a_loss_needs_a_rebaseline(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(80)
        pending = breaker.reset()
        assert pending.still_breached == ("daily_pnl", "drawdown")
        assert pending.still_breached[0].sentence.startswith("DAILY_PNL: -20.00 %")
        with pytest.raises(ResetRefused, match="rebaseline"):
            await pending.confirm("ann", "seen")
        assert breaker.is_tripped
        await pending.confirm("ann", "seen", rebaseline=True)
        status = await breaker.check_all_metrics()
        assert not status.is_halted
        assert status.metrics["daily_pnl"].value == 0
        assert status.metrics["drawdown"].value == 0
        await breaker.record_equity(72)
        assert breaker.is_tripped


async def test_a_rebaseline_needs_a_trusted_mark(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(80)
        world.clock.advance(61)
        with pytest.raises(ResetRefused, match="trusted mark"):
            await breaker.reset().confirm("ann", "seen", rebaseline=True)


@pytest.mark.parametrize(("operator", "reason"), [("", "seen"), ("ann", " "), ("\t", "")])
async def test_a_blank_operator_or_reason_is_refused(
    world: World, operator: str, reason: str
) -> None:
    async with world.breaker() as breaker:
        await trip_by_failures(breaker)
        with pytest.raises(ResetRefused, match="blank"):
            await breaker.reset().confirm(operator, reason)
        assert breaker.is_tripped


@pytest.mark.parametrize("wall_s", [0, -3_600])
async def test_a_pending_reset_is_void_after_ten_minutes(world: World, wall_s: int) -> None:
    async with world.breaker() as breaker:
        await trip_by_failures(breaker)
        pending = breaker.reset()
        world.clock.advance(600)
        world.clock.jump(wall_s)
        with pytest.raises(ResetRefused, match="10 min"):
            await pending.confirm("ann", "seen")


async def test_a_pending_reset_is_void_when_a_newer_trip_stands(world: World) -> None:
    async with world.breaker() as breaker:
        await trip_by_failures(breaker)
        old = breaker.reset()
        await breaker.reset().confirm("ann", "seen")
        await trip_by_failures(breaker)
        with pytest.raises(ResetRefused, match="newer trip"):
            await old.confirm("ann", "seen")
        assert breaker.is_tripped


async def test_a_pending_reset_is_void_when_something_else_is_breached(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await trip_by_failures(breaker)
        pending = breaker.reset()
        await breaker.record_equity(80)
        with pytest.raises(ResetRefused, match="was not shown"):
            await pending.confirm("ann", "seen", rebaseline=True)


async def test_another_process_does_not_trip_on_what_was_reset(world: World) -> None:
    other = world.breaker()
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await other.check_all_metrics()
        await breaker.record_equity(80)
        await breaker.reset().confirm("ann", "seen", rebaseline=True)
        status = await other.check_all_metrics()
        assert not status.is_halted
        await breaker.record_equity(79)
        assert not (await other.check_all_metrics()).is_halted
        await other.close()


# Jumps that prices do not explain.


async def hold_one_bitcoin(context: SafetyContext, now_ms: int) -> None:
    key = PositionKey("paper", "default", "BTC/USDT")
    await context.store.transact(
        lambda tx: tx.put_position(Position(key, Decimal(1), Decimal(100), now_ms))
    )


async def test_a_jump_that_prices_do_not_explain_is_not_trusted(world: World) -> None:
    async with world.breaker() as breaker:
        context = await context_of(breaker)
        await hold_one_bitcoin(context, int(world.clock.now().timestamp() * 1000))
        await breaker.record_market(1_000, prices={"BTC/USDT": 100})
        await breaker.record_market(1_050, prices={"BTC/USDT": 150})
        assert (await breaker.check_all_metrics()).metrics["daily_pnl"].state == "OK"
        await breaker.record_market(1_400, prices={"BTC/USDT": 150})
        status = await breaker.check_all_metrics()
        assert status.metrics["daily_pnl"].state == "UNKNOWN"
        assert status.metrics["daily_pnl"].value == 5
        await breaker.record_market(1_050, prices={"BTC/USDT": 150})
        assert (await breaker.check_all_metrics()).metrics["daily_pnl"].state == "OK"
    assert len(await world.rows("MARK_UNTRUSTED")) == 1


async def test_a_new_level_that_lasts_five_minutes_is_taken_on(world: World) -> None:
    async with world.breaker() as breaker:
        context = await context_of(breaker)
        await hold_one_bitcoin(context, int(world.clock.now().timestamp() * 1000))
        await breaker.record_market(1_000, prices={"BTC/USDT": 100})
        for _ in range(30):
            world.clock.advance(10)
            await breaker.record_market(1_400, prices={"BTC/USDT": 100})
            state = (await breaker.check_all_metrics()).metrics["drawdown"].state
            assert state == "UNKNOWN"
        world.clock.advance(10)
        await breaker.record_market(1_400, prices={"BTC/USDT": 100})
        assert (await breaker.check_all_metrics()).metrics["drawdown"].state == "OK"


async def test_without_positions_no_jump_is_doubted(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(1_000_000)
        assert (await breaker.check_all_metrics()).metrics["drawdown"].state == "OK"


# What is passed in.


def test_a_synchronous_redis_client_is_refused(world: World) -> None:
    redis = pytest.importorskip("redis")
    with pytest.raises(ConfigurationError, match="synchronous"):
        world.breaker(redis.Redis())


async def test_a_redis_that_is_away_changes_nothing(world: World) -> None:
    async with world.breaker("redis://127.0.0.1:1/0") as breaker:
        await trip_by_failures(breaker)
        assert (await breaker.check_all_metrics()).is_halted


@pytest.mark.parametrize("equity", [float("nan"), float("inf"), "NaN", True, b"1", None])
async def test_what_is_no_number_is_never_recorded(world: World, equity: object) -> None:
    async with world.breaker() as breaker:
        with pytest.raises(ValueError):
            await breaker.record_equity(equity)
        with pytest.raises(ValueError, match="kind"):
            await breaker.record_call(ok=True, kind="market-data")
        with pytest.raises(ValueError, match="ok is"):
            await breaker.record_execution(1)  # type: ignore[arg-type]
        assert (await breaker.check_all_metrics()).metrics["daily_pnl"].state == "UNKNOWN"


async def test_a_trip_for_a_fault_of_our_own_is_latched_once(world: World) -> None:
    async with world.breaker() as breaker:
        context = await context_of(breaker)
        trip = Trip("t1", "internal_error", "1", "0", "INTERNAL_ERROR: a bug", 1)
        assert await breaker.latch_trip(context, trip)
        assert not await breaker.latch_trip(context, trip)
        assert breaker.halt_reason == "INTERNAL_ERROR: a bug"


async def test_a_day_may_open_elsewhere_than_at_midnight_utc(world: World) -> None:
    world.clock.wall = datetime(2026, 3, 4, 21, 59, tzinfo=UTC)
    async with world.breaker(day_start="23:00", day_timezone="Europe/Berlin") as breaker:
        await breaker.record_equity(100)
        world.clock.advance(120)
        await breaker.record_equity(95)
        status = await breaker.check_all_metrics()
        assert status.metrics["daily_pnl"].value == -5
        world.clock.advance(86_400)
        await breaker.record_equity(95)
        status = await breaker.check_all_metrics()
        assert status.metrics["daily_pnl"].value == 0
