"""What the semantics say of trips, halts, resets and the monitor, sentence by sentence."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from breaker_world import World
from kill_worlds import eventually, quick

from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.domain.records import CloseRecord, Lease
from tinywindow.safety.errors import ResetRefused, SafetyError, StoreUnavailable
from tinywindow.safety.services import breaker_check
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.flatten_lease import lease_name
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.monitor import run_circuit_breaker_monitor
from tinywindow.safety.services.times import to_ms
from tinywindow.testing import ScriptedExchange


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def tripped(breaker: CircuitBreaker) -> bool:
    """Read anew: a type checker takes a property for constant."""
    return breaker.is_tripped


def halted(breaker: CircuitBreaker) -> bool:
    return breaker.is_halted


async def trip(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        await breaker.record_execution(ok=False)
    assert tripped(breaker)


# The trip.


async def test_a_trip_that_recovered_by_itself_stays_and_names_its_first_cause(
    world: World,
) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity("89.58")
        await trip(breaker)
        await breaker.record_equity(120)
        world.clock.advance(2 * 86_400)
        await breaker.record_equity(120)
        status = await breaker.check_all_metrics()
        assert status.halt_reason == "DAILY_PNL: -10.42 % is at or beyond the limit of -10.00 %"
        assert len(await world.rows("CIRCUIT_BREAKER_TRIP")) == 1


async def test_many_processes_that_breach_at_once_trip_once(world: World) -> None:
    async with world.process() as one, world.process() as two, world.process() as three:
        await one.record_equity(100)
        await asyncio.gather(*(each.record_equity(80) for each in (one, two, three)))
        await asyncio.gather(*(each.check_all_metrics() for each in (one, two, three)))
        assert all(tripped(each) for each in (one, two, three))
    assert len(await world.rows("CIRCUIT_BREAKER_TRIP")) == 1


async def test_nobody_cancels_resting_entries_and_the_status_says_so(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        assert (await breaker.check_all_metrics()).note == ""
        await trip(breaker)
        status = await breaker.check_all_metrics()
        assert status.entries_cancelled_by == ()
        assert status.note.startswith("no kill switch with exchanges has been seen")
        assert json.loads(status.to_json())["note"] == status.note


@pytest.mark.parametrize(
    ("record_s", "beat_s", "seen"),
    [(0, -60, True), (-1, -60, False), (-60, -5, True), (-60, -6, False)],
)
async def test_the_status_names_the_venues_where_entries_are_cancelled(
    world: World, record_s: int, beat_s: int, *, seen: bool
) -> None:
    async with world.breaker() as breaker:
        await trip(breaker)
        now_ms = to_ms(world.clock.now())
        context = breaker._handle.opened
        assert context is not None

        def look_after(tx: object) -> None:
            record = CloseRecord("paper", "HALTED", "{}", now_ms + record_s * 1_000)
            tx.put_close_record(record)  # type: ignore[attr-defined]
            lease = Lease(lease_name("paper"), "me", 1, now_ms + beat_s * 1_000)
            tx.put_lease(lease)  # type: ignore[attr-defined]

        await context.store.transact(look_after)
        status = await breaker.check_all_metrics()
        assert status.entries_cancelled_by == (("paper",) if seen else ())
        assert (status.note == "") is seen


async def test_the_status_says_that_entries_are_left_where_that_is_configured(
    world: World,
) -> None:
    async with world.breaker(cancel_entries_on_trip=False) as breaker:
        await trip(breaker)
        status = await breaker.check_all_metrics()
        assert status.note == "resting entry orders are left to fill: cancel_entries_on_trip is off"


# What another process recorded.


async def test_a_breach_in_the_enforcers_marks_trips_though_it_recovered(world: World) -> None:
    async with world.enforcer() as enforcer:
        for equity in (100, 89, 101):
            await enforcer.record_equity(equity)
    async with world.breaker() as breaker:
        assert breaker.halt_reason == "DAILY_PNL: -11.00 % is at or beyond the limit of -10.00 %"


async def test_a_breach_deep_in_a_long_queue_of_marks_trips(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_check, "WALK_MAX", 50)
    async with world.enforcer() as enforcer:
        for number in range(170):
            await enforcer.record_equity(89 if number == 140 else 100)
            world.clock.advance(0.01)
    async with world.process(monitor_interval=60) as breaker:
        assert not tripped(breaker)
    # The next process goes on where that one left off.
    async with world.process(monitor_interval=60) as breaker:
        task = asyncio.create_task(run_circuit_breaker_monitor(breaker))
        async with asyncio.timeout(10):
            while not tripped(breaker):
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await breaker.check_all_metrics()).metrics["daily_pnl"].value == 0
    assert len(await world.rows("CIRCUIT_BREAKER_TRIP")) == 1


async def test_marks_of_another_process_before_our_first_mark_are_walked(world: World) -> None:
    lax_process = world.process(daily_loss_limit=-90, drawdown_limit=-90)
    async with lax_process as lax, world.process() as strict:
        for equity in (100, 80, 100):
            await lax.record_equity(equity)
        assert not tripped(lax)
        await strict.check_all_metrics()
        assert tripped(strict)


async def test_two_processes_with_different_rules_do_not_take_turns_writing(world: World) -> None:
    async with world.process(equity_max_age=60) as one, world.process(equity_max_age=30) as two:
        await one.check_all_metrics()
        await two.check_all_metrics()
        context = one._handle.opened
        assert context is not None
        before = await context.store.read(lambda tx: tx.head().version)
        for _ in range(3):
            await one.check_all_metrics()
            await two.check_all_metrics()
        assert await context.store.read(lambda tx: tx.head().version) == before


# The halted property.


async def test_a_monitor_that_died_is_a_halt_after_three_intervals(world: World) -> None:
    async with world.breaker(monitor_interval=2) as breaker:
        await breaker.record_equity(100)
        await breaker.check_all_metrics()
        world.clock.advance(6)
        assert not halted(breaker)
        world.clock.advance(0.001)
        assert breaker.halt_code is Reason.MONITOR_STALE
        await breaker.check_all_metrics()
        assert not halted(breaker)


async def test_before_the_first_check_no_entry_passes_though_is_halted_is_false(
    world: World,
) -> None:
    breaker = world.breaker()
    assert not halted(breaker)
    assert [fault.code for fault in breaker.faults()] == [Reason.MONITOR_STALE]
    world.clock.advance(3.001)
    assert halted(breaker)


async def test_a_standing_trip_is_known_to_a_new_process_at_its_first_read(world: World) -> None:
    async with world.breaker() as breaker:
        await trip(breaker)
    again = world.breaker()
    assert not halted(again)
    async with world.enforcer():
        assert halted(again)


async def test_a_store_that_is_away_for_long_is_one_row_once_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.check_all_metrics()
        context = breaker._handle.opened
        assert context is not None
        read, transact = context.store.read, context.store.transact

        async def away(*_: object, **__: object) -> object:
            raise StoreUnavailable("away")

        for call in ("read", "transact"):
            monkeypatch.setattr(context.store, call, away, raising=True)
            for _ in range(50):
                if call == "transact":
                    monkeypatch.setattr(context.store, "read", read)
                with pytest.raises(SafetyError):
                    await breaker.check_all_metrics()
            assert breaker.halt_code is Reason.STATE_UNKNOWN
            assert breaker._watch.owed == []
        monkeypatch.setattr(context.store, "transact", transact)
        await breaker.record_equity(100)
        assert not (await breaker.check_all_metrics()).is_halted
    rows = [json.loads(row) for row in await world.rows("MONITOR_FAILED")]
    assert [row["failures"] for row in rows] == [100]


async def test_a_store_that_was_rewritten_under_us_is_no_reason_to_forget_the_trip(
    world: World,
) -> None:
    async with world.breaker() as breaker:
        await trip(breaker)
        with sqlite3.connect(world.database) as other:
            other.execute("UPDATE head SET version = version + 1")
        assert (await breaker.check_all_metrics()).is_halted


# The reset.


async def test_reset_clears_nothing_however_often(world: World) -> None:
    async with world.breaker() as breaker:
        await trip(breaker)
        for _ in range(3):
            breaker.reset()
        assert tripped(breaker)
        assert (await breaker.check_all_metrics()).metrics["consecutive_failures"].value == 5


async def test_a_refused_confirm_can_be_asked_for_again_at_once(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(85)
        for blank in ("", " \t"):
            with pytest.raises(ResetRefused, match="the operator is blank"):
                await breaker.reset().confirm(blank, "seen", rebaseline=True)
        with pytest.raises(ResetRefused, match="it needs a rebaseline"):
            await breaker.reset().confirm("ann", "seen")
        pending = breaker.reset()
        assert pending.still_breached == ("daily_pnl", "drawdown")
        await pending.confirm("ann", "seen", rebaseline=True)
        assert not tripped(breaker)


async def test_confirm_clears_streak_errors_and_velocity_but_no_loss_metric(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(95)
        await trip(breaker)
        await breaker.reset().confirm("ann", "seen")
        metrics = (await breaker.check_all_metrics()).metrics
        assert [one.value for one in metrics.values()] == [-5, -5, 0, None, 0]
    async with world.process() as breaker:
        metrics = (await breaker.check_all_metrics()).metrics
        assert [one.value for one in metrics.values()] == [-5, -5, 0, None, 0]


async def test_a_rebaseline_covers_only_what_was_shown(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(88)
        pending = breaker.reset()
        assert pending.still_breached == ("daily_pnl",)
        await breaker.record_equity(84)
        with pytest.raises(ResetRefused, match="drawdown is breached, which was not shown"):
            await pending.confirm("ann", "seen", rebaseline=True)
        await breaker.record_equity(88)
        await breaker.reset().confirm("ann", "seen", rebaseline=True)
        metrics = (await breaker.check_all_metrics()).metrics
        assert metrics["daily_pnl"].value == 0
        assert metrics["drawdown"].value == -12
    row = json.loads((await world.rows("CIRCUIT_BREAKER_RESET"))[0])
    assert row["rebaselined"] == ["daily_pnl"]


async def test_a_rebaseline_that_nothing_needs_changes_no_baseline(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        await breaker.record_equity(95)
        await breaker.reset().confirm("ann", "by the way", rebaseline=True)
        metrics = (await breaker.check_all_metrics()).metrics
        assert metrics["daily_pnl"].value == -5
        assert metrics["drawdown"].value == -5


async def test_a_rebaseline_outlives_a_restart_and_a_late_mark(world: World) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(100)
        world.clock.advance(20)
        await breaker.record_equity(85)
        await breaker.reset().confirm("ann", "seen", rebaseline=True)
        await breaker.record_equity(100, at=world.clock.now() - timedelta(seconds=10))
    async with world.process() as breaker:
        status = await breaker.check_all_metrics()
        assert not status.is_halted
        assert status.metrics["drawdown"].value == 0
        await breaker.record_equity("72.26")
        metrics = (await breaker.check_all_metrics()).metrics
        assert metrics["drawdown"].value == Decimal("-14.988235294118")


async def test_one_pending_reset_clears_one_trip(world: World) -> None:
    async with world.breaker() as breaker:
        await trip(breaker)
        pending = breaker.reset()
        await pending.confirm("ann", "seen")
        with pytest.raises(ResetRefused, match="the trip was already cleared"):
            await pending.confirm("ann", "again")
        await trip(breaker)
        with pytest.raises(ResetRefused, match="a newer trip stands"):
            await pending.confirm("ann", "again")
        assert tripped(breaker)


async def test_a_reset_shown_before_a_trip_does_not_clear_it(world: World) -> None:
    async with world.breaker() as breaker:
        pending = breaker.reset()
        await trip(breaker)
        with pytest.raises(ResetRefused, match="a newer trip stands"):
            await pending.confirm("ann", "in advance")
        assert tripped(breaker)


async def test_a_reset_by_two_operators_in_two_processes_happens_once(world: World) -> None:
    async with world.process() as one, world.process() as other:
        await trip(one)
        await other.check_all_metrics()
        first, second = one.reset(), other.reset()
        await first.confirm("ann", "seen")
        with pytest.raises(ResetRefused, match="already cleared"):
            await second.confirm("bob", "seen")
        await other.check_all_metrics()
        assert not tripped(other)
    assert len(await world.rows("CIRCUIT_BREAKER_RESET")) == 1


@pytest.mark.parametrize(("seconds", "void"), [(599.999, False), (600, True)])
async def test_a_pending_reset_lives_ten_minutes(
    world: World, seconds: float, *, void: bool
) -> None:
    async with world.breaker() as breaker:
        await trip(breaker)
        pending = breaker.reset()
        world.clock.advance(seconds)
        if void:
            with pytest.raises(ResetRefused, match="older than 10 min"):
                await pending.confirm("ann", "late")
        else:
            await pending.confirm("ann", "just in time")
        assert tripped(breaker) is void


async def test_neither_reset_nor_confirm_starts_trading(world: World) -> None:
    async with world.breaker() as breaker:
        await trip(breaker)
        context = breaker._handle.opened
        assert context is not None
        before = await context.store.read(lambda tx: tx.head().trading)
        await breaker.reset().confirm("ann", "seen")
        assert await context.store.read(lambda tx: tx.head().trading) is before


async def test_a_kill_switch_with_exchanges_cancels_entries_and_the_status_names_its_venue(
    world: World,
) -> None:
    # In real time: a flattener's heartbeat is compared with the wall clock.
    venue = ScriptedExchange("paper")
    async with (
        CircuitBreaker(None, world.database) as breaker,
        KillSwitch(None, {"paper": venue}, world.database, config=quick(), inline=True) as switch,
    ):
        await switch.is_active()
        await trip(breaker)

        async def named() -> bool:
            return (await breaker.check_all_metrics()).entries_cancelled_by == ("paper",)

        await eventually(named)
        assert (await breaker.check_all_metrics()).note == ""
