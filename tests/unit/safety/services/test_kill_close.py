"""Closing positions: proven flat, one flattener, no flip, and nothing sold that is not ours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from decimal import Decimal as D
from pathlib import Path

import pytest
from kill_worlds import QUICK, eventually, quick, rows_of, view_of

from tinywindow.safety.config import CircuitBreakerConfig
from tinywindow.safety.domain.kill import KillState, KillSwitchMode
from tinywindow.safety.domain.order import OrderType, PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState, Lease, Position, Trip
from tinywindow.safety.domain.venue import MarketRules
from tinywindow.safety.errors import ReleaseRefused, StoreUnavailable
from tinywindow.safety.ports import Store
from tinywindow.safety.services import context
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.kill_report import KillReport
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.location import Location
from tinywindow.safety.services.times import to_ms
from tinywindow.safety.stores.sqlite import SqliteStore
from tinywindow.testing import Fault, ScriptedExchange

HALT, CLOSE = KillSwitchMode.HALT_ONLY, KillSwitchMode.CLOSE_POSITIONS
PERP, SPOT, OTHER = "BTC/USDT:USDT", "BTC/USDT", "ETH/USDT:USDT"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "t.db"


@pytest.fixture
def venue() -> ScriptedExchange:
    return ScriptedExchange("venue")


@pytest.fixture
async def switch(database: Path, venue: ScriptedExchange) -> AsyncIterator[KillSwitch]:
    async with KillSwitch(None, [venue], database, config=QUICK) as made:
        yield made
        await done_with(made, venue)


async def done_with(switch: KillSwitch, *venues: ScriptedExchange) -> None:
    """Mend the venues and release, so that no thread is left to work on."""
    for venue in venues:
        for method in ("place", "positions", "open_orders", "cancel", "find", "market"):
            venue.break_down(method, None)
    await switch.deactivate(force=True)


async def manage(switch: KillSwitch, symbol: str, amount: object, *, venue: str = "venue") -> None:
    position = Position(PositionKey(venue, "default", symbol), D(str(amount)), D(100), 1)
    await switch._register.store.write(lambda tx: tx.put_position(position))


def sold(venue: ScriptedExchange) -> list[tuple[str, Side, D, bool]]:
    return [(o.symbol.text, o.side, o.amount, reduce) for o, reduce in venue.sent]


async def wait_flat(switch: KillSwitch) -> KillReport:
    report = await switch.wait_flat(8)
    assert report.flat, report
    return report


async def test_longs_and_shorts_are_closed_reduce_only_and_proven_flat(
    switch: KillSwitch, venue: ScriptedExchange, database: Path
) -> None:
    venue.set_position(PERP, 2)
    venue.set_position(OTHER, -3)
    venue.rest("entry", PERP, "BUY", 1)
    venue.rest("stop", PERP, "SELL", 2, reduce_only=True, trigger=True)
    venue.rest("manual", PERP, "BUY", 1, ours=False)
    report = await switch.activate(CLOSE)
    assert report.flat
    assert sorted(sold(venue)) == [(PERP, Side.SELL, D(2), True), (OTHER, Side.BUY, D(3), True)]
    assert set(report.venues["venue"].cancelled) == {"entry", "stop"}
    assert venue.resting() == {"manual"}
    found = {
        p.symbol: (p.wanted, p.sent, p.filled, p.left) for p in report.venues["venue"].positions
    }
    assert found == {PERP: (2, 2, 2, 0), OTHER: (3, 3, 3, 0)}
    steps = [row.data for row in await rows_of(database, "KILL_STEP")]
    assert sum('"step":"CLOSE"' in data for data in steps) == 2
    assert sum('"step":"FLAT"' in data for data in steps) == 1
    book = await switch._register.store.read(lambda tx: dict(tx.book().positions))
    assert book == {}


async def test_flat_takes_two_reads_a_second_apart(switch: KillSwitch) -> None:
    begun = asyncio.get_running_loop().time()
    report = await switch.activate(CLOSE)
    assert report.flat
    assert asyncio.get_running_loop().time() - begun >= 1.0


async def test_a_halt_leaves_positions_and_what_protects_them(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    await manage(switch, SPOT, 1)
    venue.set_position(PERP, 2)
    venue.set_position(SPOT, 5)
    venue.rest("entry", PERP, "BUY", 1)
    venue.rest("stop-entry", PERP, "BUY", 1, trigger=True)
    venue.rest("exit", PERP, "SELL", 2, reduce_only=True)
    venue.rest("spot-stop", SPOT, "SELL", 1, trigger=True)
    venue.rest("spot-too-much", SPOT, "SELL", 1)
    report = await switch.activate(HALT)
    assert (report.state, report.flat) == (KillState.HALTED, False)
    assert venue.resting() == {"exit", "spot-stop"}
    assert venue.sent == ()


async def test_an_order_that_rests_after_the_halt_is_swept_too(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    await switch.activate(HALT)
    venue.rest("late", PERP, "BUY", 1)
    await eventually(lambda: venue.resting() == frozenset())


async def test_a_halt_escalates_to_a_close(switch: KillSwitch, venue: ScriptedExchange) -> None:
    venue.set_position(PERP, 2)
    await switch.activate(HALT)
    assert venue.sent == ()
    report = await switch.activate(CLOSE)
    assert report.flat
    assert len(venue.sent) == 1


async def test_spot_sells_what_is_free_and_ours_and_never_the_owners_coins(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    await manage(switch, SPOT, 2)
    venue.set_position(SPOT, 5)
    venue.set_position("DOGE/USDT", 1000)
    report = await switch.activate(CLOSE)
    assert report.flat
    assert sold(venue) == [(SPOT, Side.SELL, D(2), False)]
    assert venue.position(SPOT) == 3
    assert venue.position("DOGE/USDT") == 1000


async def test_fees_taken_in_coins_leave_the_ledger_aligned(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    await manage(switch, SPOT, 2)
    venue.set_position(SPOT, "1.99")
    assert (await switch.activate(CLOSE)).flat
    assert sold(venue) == [(SPOT, Side.SELL, D("1.99"), False)]
    await eventually(lambda: _booked_nothing(switch))


async def _booked_nothing(switch: KillSwitch) -> bool:
    return await switch._register.store.read(lambda tx: not tx.book().positions)


async def test_large_positions_go_in_slices_and_dust_is_reported(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    venue.set_rules(MarketRules(PERP, D("0.1"), D(1), D("0.1"), reduce_only=True, spot=False))
    venue.set_position(PERP, "2.55")
    report = await switch.activate(CLOSE)
    assert report.flat
    assert [amount for _, _, amount, _ in sold(venue)] == [D(1), D(1), D("0.5")]
    position = report.venues["venue"].positions[0]
    assert (position.dust, position.left) == (True, D("0.05"))


async def test_a_market_without_a_reduce_only_flag_is_closed_one_read_at_a_time(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    venue.set_rules(MarketRules(PERP, amount_max=D(1), reduce_only=False, spot=False))
    venue.set_position(PERP, 2)
    assert (await switch.activate(CLOSE)).flat
    assert venue.position(PERP) == 0
    assert [reduce for *_, reduce in sold(venue)] == [False, False]


async def test_a_failing_venue_delays_no_other(database: Path) -> None:
    good, bad = ScriptedExchange("good", {PERP: 1}), ScriptedExchange("bad", {PERP: 1})
    bad.break_down("positions", Fault.HANG)
    bad.break_down("open_orders", Fault.CRASH)
    async with KillSwitch(None, [good, bad], database, config=QUICK) as switch:
        report = await switch.activate(CLOSE)
        assert report.venues["good"].flat
        assert report.venues["bad"].state is KillState.CLOSING
        assert any("the adapter broke" in e for e in report.venues["bad"].errors)
        assert not report.flat
        bad.break_down("positions", None)
        bad.break_down("open_orders", None)
        await wait_flat(switch)
        await done_with(switch)


async def test_a_failed_read_is_not_flat(switch: KillSwitch, venue: ScriptedExchange) -> None:
    venue.break_down("positions", Fault.FAIL)
    report = await switch.activate(CLOSE)
    assert not report.flat
    assert "positions failed" in report.venues["venue"].errors
    venue.break_down("positions", None)
    await wait_flat(switch)


async def test_without_a_list_of_orders_those_that_we_know_are_cancelled(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    venue.rest("known", PERP, "BUY", 1)
    await intend(switch, "known", HoldState.WORKING)
    venue.break_down("open_orders", Fault.FAIL)
    report = await switch.activate(HALT)
    assert report.venues["venue"].cancelled == ("known",)
    assert venue.resting() == frozenset()


async def intend(
    switch: KillSwitch, order_id: str, state: HoldState, *, amount: object = 1, age_ms: int = 0
) -> None:
    now_ms = to_ms(switch._clock.now()) - age_ms
    hold = Hold(
        order_id,
        PositionKey("venue", "default", PERP),
        Side.BUY,
        OrderType.LIMIT,
        D(str(amount)),
        D(90),
        state,
        now_ms,
        intent_ms=now_ms,
    )
    await switch._register.store.write(lambda tx: tx.put_hold(hold))


async def state_of(switch: KillSwitch, order_id: str) -> HoldState:
    hold = await switch._register.store.read(lambda tx: tx.hold(order_id))
    assert hold is not None
    return hold.state


async def test_an_order_in_flight_is_waited_for_and_cancelled(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    await intend(switch, "slow", HoldState.INTENDED)
    task = asyncio.ensure_future(switch.activate(CLOSE))
    await asyncio.sleep(0.15)
    venue.rest("slow", PERP, "BUY", 1)
    report = await task
    assert report.flat
    assert venue.resting() == frozenset()
    assert await state_of(switch, "slow") is HoldState.RELEASED


async def test_an_intent_that_never_arrived_ends_after_its_expiry(
    switch: KillSwitch,
) -> None:
    await intend(switch, "never", HoldState.INTENDED)
    assert (await switch.activate(CLOSE)).flat
    assert await state_of(switch, "never") is HoldState.RELEASED


async def test_an_unknown_outcome_keeps_the_state_closing(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    await intend(switch, "unknown", HoldState.UNKNOWN, age_ms=60_000)
    venue.break_down("find", Fault.FAIL)
    report = await switch.activate(CLOSE)
    assert report.state is KillState.CLOSING
    assert report.venues["venue"].unresolved == 1
    with pytest.raises(ReleaseRefused, match="running"):
        await switch.deactivate()
    venue.break_down("find", None)
    await wait_flat(switch)


async def test_an_ambiguous_sale_is_reconciled_before_the_next(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    await manage(switch, SPOT, 2)
    venue.set_position(SPOT, 5)
    venue.set_rules(MarketRules(SPOT, amount_max=D(1)))
    venue.fault("place", Fault.LOST)
    report = await switch.activate(CLOSE)
    assert report.flat
    assert venue.position(SPOT) == 3
    assert len(venue.sent) == 2


async def test_a_send_that_never_arrived_is_sent_again_under_another_id(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    venue.set_position(PERP, 2)
    venue.fault("place", Fault.FAIL)
    assert (await switch.activate(CLOSE)).flat
    assert venue.position(PERP) == 0
    assert len(venue.sent) == 1


async def test_a_send_that_hangs_is_not_repeated_before_it_is_looked_up(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    venue.set_position(PERP, 2)
    venue.fault("place", Fault.HANG)
    report = await switch.activate(CLOSE)
    assert (await wait_flat(switch)).flat or report.flat
    assert len(venue.sent) == 1


async def test_rejections_are_reported_and_tried_again(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    venue.set_position(PERP, 2)
    venue.break_down("place", Fault.REJECT)
    report = await switch.activate(CLOSE)
    position = report.venues["venue"].positions[0]
    assert (position.left, position.error) == (D(2), "the venue rejected it")
    assert report.state is KillState.CLOSING
    venue.break_down("place", None)
    await wait_flat(switch)


async def test_a_close_that_takes_too_long_pages_and_keeps_trying(database: Path) -> None:
    venue = ScriptedExchange("venue", {PERP: 2})
    venue.break_down("place", Fault.REJECT)
    config = quick(close_deadline=0.4, report_wait=1)
    async with KillSwitch(None, [venue], database, config=config) as switch:
        await switch.activate(CLOSE)
        await eventually(lambda: _state(switch, KillState.INCOMPLETE))
        assert len(await rows_of(database, "KILL_INCOMPLETE")) == 1
        venue.break_down("place", None)
        await wait_flat(switch)
        assert len(await rows_of(database, "KILL_INCOMPLETE")) == 1
        await done_with(switch)


async def _state(switch: KillSwitch, state: KillState) -> bool:
    return (await switch.get_status()).state is state


async def test_a_position_that_appears_after_flat_is_closed(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    assert (await switch.activate(CLOSE)).flat
    venue.set_position(PERP, 1)
    await eventually(lambda: venue.position(PERP) == 0)
    await wait_flat(switch)


async def test_a_release_is_refused_during_a_close_unless_forced_and_then_stops_it(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    venue.set_position(PERP, 2)
    venue.break_down("place", Fault.REJECT)
    await switch.activate(CLOSE)
    with pytest.raises(ReleaseRefused, match="close is running"):
        await switch.deactivate()
    await switch.deactivate(force=True)
    venue.break_down("place", None)
    await asyncio.sleep(0.5)
    assert venue.position(PERP) == 2
    assert not await switch.is_active()


async def test_what_was_flat_for_one_stop_is_proven_anew_for_the_next(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    assert (await switch.activate(CLOSE)).flat
    await switch.deactivate()
    venue.set_position(PERP, 1)
    assert (await switch.activate(CLOSE)).flat
    assert venue.position(PERP) == 0


async def test_two_flatteners_close_once(database: Path) -> None:
    venue = ScriptedExchange("venue", {PERP: 2})
    venue.set_rules(MarketRules(PERP, amount_max=D("0.1"), reduce_only=True, spot=False))
    async with (
        KillSwitch(None, [venue], database, config=QUICK) as one,
        KillSwitch(None, [venue], database, config=QUICK) as two,
    ):
        await asyncio.gather(one.activate(CLOSE), two.activate(CLOSE))
        await wait_flat(one)
        await wait_flat(two)
        assert sum(o.amount for o, _ in venue.sent) == 2
        await done_with(one)


async def test_an_owner_that_slept_sends_nothing_more(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    now_ms = to_ms(switch._clock.now())
    lease = Lease("flatten/venue", "another", 7, now_ms + 3000)
    await switch._register.store.write(lambda tx: tx.put_lease(lease))
    venue.set_position(PERP, 2)
    await switch.activate(CLOSE)
    assert venue.sent == ()
    stale = Lease("flatten/venue", "another", 7, now_ms - 60_000)
    await switch._register.store.write(lambda tx: tx.put_lease(stale))
    await wait_flat(switch)
    lease_now = await switch._register.store.read(lambda tx: tx.lease("flatten/venue"))
    assert lease_now is not None
    assert lease_now.fence == 8


async def test_a_restart_resumes_the_close_and_its_report(database: Path) -> None:
    venue = ScriptedExchange("venue", {PERP: 2, OTHER: 1})
    venue.break_down("place", Fault.REJECT)
    first = KillSwitch(None, [venue], database, config=quick(report_wait=0.5), inline=True)
    await first.activate(CLOSE)
    await first.close()
    assert venue.position(PERP) == 2
    venue.break_down("place", None)
    async with KillSwitch(None, [venue], database, config=QUICK, inline=True) as second:
        report = await wait_flat(second)
        assert {p.symbol: p.filled for p in report.venues["venue"].positions} == {PERP: 2, OTHER: 1}
        await done_with(second)


async def test_a_trip_cancels_entries_and_closes_nothing(
    switch: KillSwitch, venue: ScriptedExchange
) -> None:
    venue.set_position(PERP, 2)
    venue.rest("entry", PERP, "BUY", 1)
    venue.rest("exit", PERP, "SELL", 2, reduce_only=True)
    trip = Trip("T1", "drawdown", "-20", "-15", "DRAWDOWN: too deep", 1)
    await switch._register.store.write(lambda tx: tx.add_trip(trip))
    await eventually(lambda: venue.resting() == {"exit"})
    assert venue.sent == ()
    assert not await switch.is_active()


async def test_a_trip_leaves_orders_alone_where_it_is_told_to(database: Path) -> None:
    venue = ScriptedExchange("venue")
    venue.rest("entry", PERP, "BUY", 1)
    config = quick(cancel_entries_on_trip=False)
    async with KillSwitch(None, [venue], database, config=config) as switch:
        trip = Trip("T1", "drawdown", "-20", "-15", "DRAWDOWN: too deep", 1)
        await switch._register.store.write(lambda tx: tx.add_trip(trip))
        await asyncio.sleep(0.2)
        assert venue.resting() == {"entry"}


async def test_a_trip_leaves_orders_alone_where_the_breaker_was_told_to(database: Path) -> None:
    """The breaker's own setting reaches every kill switch on the store, in any process."""
    venue = ScriptedExchange("venue")
    venue.rest("entry", PERP, "BUY", 1)
    keeps = CircuitBreakerConfig(cancel_entries_on_trip=False)
    async with KillSwitch(None, [venue], database, config=QUICK) as switch:
        async with CircuitBreaker(None, database, keeps) as breaker:
            await breaker.record_equity(10_000)
            await breaker.record_equity(8_000)
            assert breaker.is_tripped
            await switch._watch.look()
            flattener = switch._flattener
            assert flattener is not None
            assert not flattener.running
            # One that runs for another reason leaves them alone, too.
            flattener.ensure(wake=True)
            await eventually(lambda: not flattener.running)
            assert venue.resting() == {"entry"}
        # A breaker that comes later and was told nothing cancels, as it does by default.
        async with CircuitBreaker(None, database) as breaker:
            await eventually(lambda: not venue.resting())


async def test_the_close_goes_on_without_the_database_and_is_journalled(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = ScriptedExchange("venue", {PERP: 2})
    async with KillSwitch(None, [venue], database, config=QUICK) as switch:
        with monkeypatch.context() as broken:

            async def unavailable(*_: object, **__: object) -> object:
                raise StoreUnavailable("the disk is gone")

            broken.setattr(SqliteStore, "transact", unavailable)
            broken.setattr(SqliteStore, "read", unavailable)
            report = await switch.activate(CLOSE)
            assert not report.durable
            await eventually(lambda: venue.position(PERP) == 0)
            journal = (database.parent / "journal.jsonl").read_text()
            assert "KILL_STEP" in journal
        await wait_flat(switch)
        assert len(venue.sent) == 1
        await eventually(lambda: _closes(database, 1))
        await eventually(lambda: _outcomes(database, 1))
        await eventually(lambda: _booked_nothing(switch))
        await done_with(switch)


async def _outcomes(database: Path, count: int) -> bool:
    return len(await rows_of(database, "ORDER_OUTCOME")) == count


async def _closes(database: Path, count: int) -> bool:
    steps = [row.data for row in await rows_of(database, "KILL_STEP")]
    return sum('"step":"CLOSE"' in data for data in steps) == count


async def test_without_exchanges_nobody_closes_and_the_status_says_so(database: Path) -> None:
    async with KillSwitch(None, None, database, config=QUICK) as switch:
        report = await switch.activate(CLOSE)
        assert (report.state, report.flat) == (KillState.CLOSING, False)
        assert (await view_of(switch)).standing
        await switch.deactivate()


async def test_another_process_with_exchanges_closes_for_one_without(database: Path) -> None:
    venue = ScriptedExchange("venue", {PERP: 2})
    async with (
        KillSwitch(None, [venue], database, config=QUICK) as closer,
        KillSwitch(None, None, database, config=QUICK) as other,
    ):
        await other.activate(CLOSE)
        await eventually(lambda: venue.position(PERP) == 0)
        await wait_flat(other)
        await done_with(closer)


async def test_activate_never_raises_whatever_breaks(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = ScriptedExchange("good", {PERP: 1}), ScriptedExchange("bad")

    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("broken")

    monkeypatch.setattr(bad, "fork", broken)
    async with KillSwitch(None, [good, bad], database, config=quick(report_wait=1)) as switch:
        monkeypatch.setattr(type(switch._register.store), "write", broken)
        report = await switch.activate(CLOSE)
        monkeypatch.undo()
        assert not report.durable
        assert "broken" in report.errors[0]
        assert report.venues["bad"].state is KillState.CLOSING
        await eventually(lambda: good.position(PERP) == 0)
        await done_with(switch)


async def test_the_flatteners_own_store_leaves_the_attempts_in_the_database(
    database: Path, venue: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a stop all processes open one at once; read whole, they would keep everybody waiting."""
    opened: list[tuple[str, bool]] = []
    whole = context.open_store

    async def noting(location: Location, *, attempts: bool = True) -> Store:
        opened.append((threading.current_thread().name, attempts))
        return await whole(location, attempts=attempts)

    monkeypatch.setattr(context, "open_store", noting)
    async with KillSwitch(None, [venue], database, config=QUICK) as switch:
        report = await switch.activate(CLOSE, "x")
        assert report.venues["venue"].state is KillState.FLAT
        await done_with(switch, venue)
    assert set(opened) == {("MainThread", True), ("tinywindow-flattener", False)}
