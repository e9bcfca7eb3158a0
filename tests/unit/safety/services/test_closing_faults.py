"""Closing while something is wrong: with the ledger, with the database, with one order of many."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal as D
from pathlib import Path

import pytest
from kill_worlds import QUICK, quick, rows_of

from closing_desk import eventually
from tinywindow.safety.domain.approval import Approved
from tinywindow.safety.domain.kill import KillState, KillSwitchMode
from tinywindow.safety.domain.order import OrderType, PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState, Position
from tinywindow.safety.domain.venue import Accepted, MarketRules, Placed, VenuePosition
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.flatten_view import FlattenView
from tinywindow.safety.services.journalled_intents import entry_of, hold_of
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.late_executor import LateExecutor
from tinywindow.safety.services.times import to_ms
from tinywindow.safety.services.venue_closer import UNPROVEN
from tinywindow.safety.stores.sqlite import SqliteStore
from tinywindow.testing import Fault, ScriptedExchange

HALT, CLOSE = KillSwitchMode.HALT_ONLY, KillSwitchMode.CLOSE_POSITIONS
PERP, SPOT, OTHER = "BTC/USDT:USDT", "BTC/USDT", "ETH/USDT:USDT"


class Venue(ScriptedExchange):
    """A scripted venue that calls out before it reads positions, and may leave prices away."""

    before_positions: Callable[[], object] | None = None
    priceless = False

    def fork(self) -> Venue:
        twin = Venue(self.name)
        twin._venue = self._venue
        twin.before_positions, twin.priceless = self.before_positions, self.priceless
        return twin

    async def positions(self) -> tuple[VenuePosition, ...]:
        found = await super().positions()
        if self.before_positions is not None:
            answer = self.before_positions()
            if asyncio.iscoroutine(answer):
                await answer
        return found

    async def place(self, approved: Approved) -> Placed:
        placed = await super().place(approved)
        if not self.priceless or not isinstance(placed, Accepted):
            return placed
        bare = replace(placed.report, average_price=None, price=None)
        with self._venue.lock:
            self._venue.orders[bare.client_order_id] = bare
        return Accepted(bare)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "t.db"


@pytest.fixture
def venue() -> Venue:
    return Venue("venue")


@pytest.fixture
async def switch(database: Path, venue: Venue) -> AsyncIterator[KillSwitch]:
    async with KillSwitch(None, [venue], database, config=quick(report_wait=0.05)) as made:
        await made.is_active()
        yield made
        for method in ("place", "positions", "open_orders", "cancel", "find", "market"):
            venue.break_down(method, None)
        await made.deactivate(force=True)


async def manage(switch: KillSwitch, symbol: str, amount: object) -> None:
    position = Position(PositionKey("venue", "default", symbol), D(str(amount)), D(100), 1)
    await switch._register.store.write(lambda tx: tx.put_position(position))


def hold(
    order_id: str,
    symbol: str,
    side: Side,
    amount: object,
    *,
    state: HoldState = HoldState.INTENDED,
    now_ms: int = 1,
    flatten: bool = False,
) -> Hold:
    return Hold(
        order_id,
        PositionKey("venue", "default", symbol),
        side,
        OrderType.MARKET,
        D(str(amount)),
        None,
        state,
        now_ms,
        intent_ms=now_ms,
        reduces=flatten,
        flatten=flatten,
    )


async def flat(switch: KillSwitch) -> None:
    report = await switch.wait_flat(10)
    assert report.flat, report


async def errors_of(switch: KillSwitch) -> str:
    venues = (await switch.get_status()).venues.values()
    return "; ".join(error for venue in venues for error in venue.errors)


async def test_a_fill_without_a_price_keeps_nothing_from_being_closed(
    switch: KillSwitch, venue: Venue
) -> None:
    venue.priceless = True
    venue.set_position(PERP, 2)
    venue.set_position(OTHER, -3)
    await switch.activate(CLOSE)
    await flat(switch)
    assert venue.position(PERP) == venue.position(OTHER) == 0


async def test_one_order_that_breaks_the_ledger_holds_up_no_position(
    switch: KillSwitch, venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinywindow.safety.services import flatten_ledger

    book_fill = flatten_ledger.book_fill
    broken = {"on": True}

    def breaks(tx: object, report: object, row: object) -> object:
        if broken["on"] and "cursed" in report.client_order_id:  # type: ignore[attr-defined]
            raise RuntimeError("the ledger broke")
        return book_fill(tx, report, row)  # type: ignore[arg-type]

    monkeypatch.setattr(flatten_ledger, "book_fill", breaks)
    venue.rest("cursed", PERP, "BUY", 1)
    cursed = hold("cursed", PERP, Side.BUY, 1, state=HoldState.WORKING)
    await switch._register.store.write(lambda tx: tx.put_hold(cursed))
    venue.set_position(PERP, 2)
    venue.set_position(OTHER, 1)
    await switch.activate(CLOSE)
    await eventually(lambda: venue.position(PERP) == venue.position(OTHER) == 0)
    assert not (await switch.wait_flat(0)).flat
    assert "the ledger broke" in await errors_of(switch)
    broken["on"] = False
    await flat(switch)


async def test_an_exit_that_slipped_in_before_the_stop_is_not_sold_a_second_time(
    switch: KillSwitch, venue: Venue, database: Path
) -> None:
    await manage(switch, SPOT, 2)
    venue.set_position(SPOT, 10)
    slipped: list[str] = []

    async def slip_in() -> None:
        # Another process's exit is approved after the flattener looked at the ledger.
        if slipped:
            return
        slipped.append("exit")
        store = await SqliteStore.open(database)
        now_ms = to_ms(SystemClock().now())
        await store.transact(
            lambda tx: tx.put_hold(hold("exit", SPOT, Side.SELL, 2, now_ms=now_ms))
        )
        await store.close()

    venue.before_positions = slip_in
    await switch.activate(CLOSE)
    await eventually(lambda: slipped)
    await asyncio.sleep(0.15)
    assert venue.sent == ()
    # It never arrived, so the flattener sells the coins after all: two, and not four.
    await flat(switch)
    assert venue.position(SPOT) == 8


async def _unavailable(*_: object, **__: object) -> object:
    raise StoreUnavailable("the disk is gone")


async def test_what_was_sold_without_the_database_is_known_after_a_crash(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = Venue("venue")
    venue.set_position(SPOT, 10)
    first = KillSwitch(None, [venue], database, config=quick(report_wait=0.05), inline=True)
    await first.is_active()
    await manage(first, SPOT, 2)
    # The first look at the ledger succeeds; from the first send on the database is gone.
    with monkeypatch.context() as broken:

        def gone() -> None:
            broken.setattr(SqliteStore, "transact", _unavailable)
            broken.setattr(SqliteStore, "read", _unavailable)

        venue.before_positions = gone
        await first.activate(CLOSE)
        await eventually(lambda: venue.position(SPOT) == 8)
        venue.before_positions = None
        flattener = first._flattener
        assert flattener is not None
        # It dies as a process does: without a word to anybody.
        await flattener.stop()
        await first._watch.stop()
    venue.break_down("find", Fault.FAIL)
    async with KillSwitch(None, [venue], database, config=quick(report_wait=0.05)) as second:
        await asyncio.sleep(0.5)
        assert venue.position(SPOT) == 8
        venue.break_down("find", None)
        await flat(second)
        assert venue.position(SPOT) == 8
        assert len(venue.sent) == 1
        held = await second._register.store.read(lambda tx: dict(tx.book().positions))
        assert held == {}
        await second.deactivate(force=True)
    await first.close()


async def test_a_ledger_that_was_never_read_is_unknown_and_not_empty(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = Venue("venue")
    venue.set_position(SPOT, 10)
    venue.set_position(PERP, 1)
    venue.rest("guard", SPOT, "SELL", 1, trigger=True)
    with monkeypatch.context() as broken:
        broken.setattr(SqliteStore, "open", _unavailable)
        config = quick(report_wait=0.05)
        async with KillSwitch(None, [venue], database, config=config) as switch:
            await switch.activate(HALT)
            await asyncio.sleep(0.5)
            assert venue.resting() == {"guard"}
            await switch.activate(CLOSE)
            await eventually(lambda: venue.position(PERP) == 0)
            await asyncio.sleep(1.5)
            report = switch._flattener.reports["venue"]  # type: ignore[union-attr]
            assert report.state is KillState.CLOSING
            assert any("the ledger cannot be read" in error for error in report.errors)
            assert venue.position(SPOT) == 10
            broken.undo()
            await flat(switch)
            assert venue.position(SPOT) == 10
            await switch.deactivate(force=True)


async def test_without_the_database_nothing_is_proven(
    switch: KillSwitch, venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue.set_position(PERP, 1)
    with monkeypatch.context() as broken:
        broken.setattr(SqliteStore, "transact", _unavailable)
        broken.setattr(SqliteStore, "read", _unavailable)
        await switch.activate(CLOSE)
        await eventually(lambda: venue.position(PERP) == 0)
        await asyncio.sleep(1.5)
        report = switch._flattener.reports["venue"]  # type: ignore[union-attr]
        assert report.state is KillState.CLOSING
        assert UNPROVEN in report.errors
    await flat(switch)


async def test_cancels_that_hang_do_not_keep_positions_open(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinywindow.safety.services import order_sweep

    monkeypatch.setattr(order_sweep, "CANCEL_BUDGET_S", 0.3)
    monkeypatch.setattr(order_sweep, "LOOK_UP_BUDGET_S", 0.3)
    venue = Venue("venue")
    venue.set_position(PERP, 1)
    for number in range(100):
        venue.rest(f"rest-{number}", PERP, "BUY", 1)
    venue.break_down("cancel", Fault.HANG)
    config = quick(report_wait=0.05, venue_timeout=0.4)
    async with KillSwitch(None, [venue], database, config=config) as switch:
        begun = time.monotonic()
        await switch.activate(CLOSE)
        await eventually(lambda: venue.position(PERP) == 0)
        assert time.monotonic() - begun < 3
        venue.break_down("cancel", None)
        await flat(switch)
        assert venue.resting() == frozenset()
        await switch.deactivate()


class Jumping(SystemClock):
    """A wall clock that can be a day off."""

    off = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.off


async def test_a_wall_clock_that_jumps_does_not_make_an_order_in_flight_old(
    database: Path,
) -> None:
    venue, clock = Venue("venue"), Jumping()
    config = quick(report_wait=0.05, in_flight_grace=1.5)
    async with KillSwitch(None, [venue], database, config=config, clock=clock) as switch:
        await switch.is_active()
        await manage(switch, SPOT, 2)
        venue.set_position(SPOT, 10)
        venue.fault("place", Fault.FAIL)
        await switch.activate(CLOSE)
        await eventually(lambda: venue.calls.get("place", 0) == 1)
        clock.off = timedelta(days=1)
        await asyncio.sleep(0.7)
        assert venue.calls["place"] == 1
        clock.off = timedelta(0)
        await flat(switch)
        assert venue.position(SPOT) == 8
        await switch.deactivate()


async def test_a_bug_in_one_turn_does_not_end_the_closing(
    switch: KillSwitch, venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    directive, calls = FlattenView.directive, []

    async def breaks(self: FlattenView) -> object:
        calls.append(self.venue)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        return await directive(self)

    monkeypatch.setattr(FlattenView, "directive", breaks)
    venue.set_position(PERP, 1)
    await switch.activate(CLOSE)
    await flat(switch)
    assert venue.position(PERP) == 0


async def test_a_position_between_two_clean_reads_starts_the_proof_anew(
    switch: KillSwitch, venue: Venue, database: Path
) -> None:
    reads: list[float] = []

    def appear() -> None:
        reads.append(time.monotonic())
        if len(reads) == 2:
            # After the first clean read, and before the round that would have proven it.
            venue.set_position(PERP, 1)

    venue.before_positions = appear
    await switch.activate(CLOSE)
    await eventually(lambda: venue.position(PERP) == 0 and len(venue.sent) == 1)
    sent_s = time.monotonic()
    await flat(switch)
    assert time.monotonic() - sent_s >= 0.9


async def test_rules_that_do_not_come_are_waited_for_once(switch: KillSwitch, venue: Venue) -> None:
    for number in range(10):
        venue.set_position(f"C{chr(65 + number)}/USDT:USDT", 1)
    venue.break_down("market", Fault.HANG)
    begun = time.monotonic()
    await switch.activate(CLOSE)
    await eventually(lambda: len(venue.sent) == 10)
    assert time.monotonic() - begun < 3
    venue.break_down("market", None)
    await flat(switch)


async def test_the_report_keeps_the_last_error(switch: KillSwitch, venue: Venue) -> None:
    venue.set_position(PERP, 1)
    venue.fault("place", Fault.REJECT)
    await switch.activate(CLOSE)
    await flat(switch)
    position = (await switch.get_status()).venues["venue"].positions[0]
    assert (position.filled, position.left) == (1, 0)
    assert position.error == "the venue rejected it"


async def test_a_ledger_that_moved_since_the_read_is_not_aligned_over(
    switch: KillSwitch, venue: Venue, database: Path
) -> None:
    await switch.activate(CLOSE)
    await flat(switch)
    await switch.deactivate()
    await eventually(lambda: not switch._flattener.running)  # type: ignore[union-attr]
    # No stop asks for a close any more: what is booked stays, whatever was read before.
    await manage(switch, PERP, 1)
    ledger = _ledger_of(switch, database, venue)
    await ledger.directive()
    await ledger.align((), lambda: "row")
    held = await switch._register.store.read(lambda tx: dict(tx.book().positions))
    assert len(held) == 1


def _ledger_of(switch: KillSwitch, database: Path, venue: Venue):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from tinywindow.safety.services.flatten_lease import VenueLease
    from tinywindow.safety.services.flatten_ledger import FlattenLedger
    from tinywindow.safety.services.stop_hints import StopHints

    store = switch._register.store
    lease = VenueLease(venue.name, "a test", store)
    return FlattenLedger(venue.name, store, lease, SystemClock(), StopHints(), cancel_on_trip=True)


async def test_a_beat_keeps_a_lease_and_never_takes_one_back(
    switch: KillSwitch, venue: Venue, database: Path
) -> None:
    lease = _ledger_of(switch, database, venue).lease
    now_ms = to_ms(SystemClock().now())
    assert await lease.take(now_ms=now_ms)
    await lease.keep(now_ms=now_ms + 1)
    assert lease.fence == 1
    other = _ledger_of(switch, database, venue).lease
    other.owner = "another"
    assert not await other.take(now_ms=now_ms + 1)
    assert await other.take(now_ms=now_ms + 10_000)
    await other.give_up()
    await lease.keep(now_ms=now_ms + 10_001)
    assert lease.fence == 0
    lease.unlock_host()


async def test_a_process_that_slept_forgets_what_others_may_have_sold(
    switch: KillSwitch, venue: Venue, database: Path
) -> None:
    ledger = _ledger_of(switch, database, venue)
    now = {"s": 0.0}
    ledger.clock = type("Clock", (Jumping,), {"monotonic": lambda self: now["s"]})()
    await ledger.directive()
    assert ledger.managed() == {}
    assert ledger.lease.lock_host()
    now["s"] = 4.0
    await ledger.keep_alive()
    assert ledger.managed() == {}
    now["s"] = 9.5
    await ledger.keep_alive()
    assert ledger.managed() is None
    assert ledger.lease._host_lock == -1


async def test_an_old_owner_does_not_write_over_the_new_ones_progress(
    switch: KillSwitch, venue: Venue, database: Path
) -> None:
    from tinywindow.safety.services.kill_report import VenueReport

    ledger = _ledger_of(switch, database, venue)
    assert not await ledger.save(VenueReport("venue", KillState.CLOSING))
    assert await ledger.lease.take(now_ms=ledger.now_ms())
    assert await ledger.save(VenueReport("venue", KillState.CLOSING))
    saved = await ledger.saved()
    assert saved is not None
    assert saved.state is KillState.CLOSING
    await ledger.lease.give_up()


def test_intents_survive_the_journal_and_torn_lines_do_not_hurt() -> None:
    intent = hold("close-1", SPOT, Side.SELL, "1.5", now_ms=7, flatten=True)
    assert hold_of(entry_of(intent)) == intent
    assert hold_of({"kind": "latch", "id": "x"}) is None
    for change in (
        {"amount": "NaN"}, {"amount": "x"}, {"amount": "-1"}, {"side": "HOLD"}, {"created_ms": "z"}
    ):  # fmt: skip
        assert hold_of({**entry_of(intent), **change}) is None
    assert hold_of({"kind": "intent"}) is None


def test_a_host_look_up_that_hangs_leaves_room_for_other_venues() -> None:
    executor, held = LateExecutor(), threading.Event()
    hanging = [executor.submit(held.wait) for _ in range(20)]
    try:
        assert executor.submit(lambda: 7).result(timeout=5) == 7
    finally:
        held.set()
    assert all(one.result(timeout=5) for one in hanging)


async def test_a_close_without_a_stop_leaves_rows_that_tell_of_every_step(
    switch: KillSwitch, venue: Venue, database: Path
) -> None:
    venue.set_rules(MarketRules(PERP, amount_max=D(1), reduce_only=True, spot=False))
    venue.set_position(PERP, 3)
    venue.fault("place", Fault.LOST)
    await switch.activate(CLOSE)
    await flat(switch)
    outcomes = await rows_of(database, "ORDER_OUTCOME")
    by_order: dict[str, list[str]] = {}
    for row in outcomes:
        by_order.setdefault(str(row.order_id), []).append(row.data)
    # One row for each thing that became known: an ambiguous send has two, the others one.
    told = sorted(len(rows) for rows in by_order.values())
    assert told == [1, 1, 2]
    ambiguous = next(rows for rows in by_order.values() if len(rows) == 2)
    assert ['"state":"UNKNOWN"' in data for data in ambiguous] == [True, False]
    assert QUICK.in_flight_grace == 0.3
