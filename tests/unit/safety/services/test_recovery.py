"""Recovery: a process starts by finding out what the one before it left behind."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from breaker_world import FakeClock
from gate_world import PERP, Desk, Venue, code, opened, order

from tinywindow.safety.domain.order import OrderType, PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState
from tinywindow.safety.domain.venue import OrderReport, ReportStatus
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.services.journalled_intents import entry_of
from tinywindow.safety.services.recovery import Recovery
from tinywindow.safety.services.times import to_ms
from tinywindow.testing import Fault


def recovery(desk: Desk) -> Recovery:
    return Recovery(desk.gate, desk.limits, desk.breaker)


async def test_a_start_on_a_fresh_store_marks_equity_and_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path, funded=False) as desk:
        report = await recovery(desk).run()
        assert report.clean
        (data,) = await desk.data("RECOVERY")
        assert data == {"settled": [], "unsettled": [], "mismatches": [], "errors": []}
        status = await desk.breaker.check_all_metrics()
        assert status.metrics["daily_pnl"].value == 0


async def test_a_send_that_a_crash_cut_off_is_looked_up_and_booked(tmp_path: Path) -> None:
    """The process died after the send and before its settlement: INTENDED is what it left."""
    venue, clock = Venue(), FakeClock()
    async with opened(tmp_path, exchange=venue, clock=clock) as desk:
        with pytest.MonkeyPatch.context() as patch:

            async def away(*_: object, **__: object) -> object:
                raise StoreUnavailable("killed here")

            patch.setattr(desk.context.store, "transact", away)
            await desk.buy(10, client_order_id="a")
        assert (await desk.hold("a")).state is HoldState.INTENDED
    clock.advance(60)
    async with opened(tmp_path, exchange=venue, clock=clock, funded=False) as desk:
        report = await recovery(desk).run()
        assert report.settled == ["a"]
        assert await desk.position() == 10
        assert venue.calls["place"] == 1


async def test_a_restart_changes_no_hold_no_metric_and_no_stop(tmp_path: Path) -> None:
    venue, clock = Venue(), FakeClock()
    async with opened(tmp_path, exchange=venue, clock=clock) as desk:
        await desk.buy(1)
        await desk.buy(10, client_order_id="rests", price=95)
        await desk.breaker.record_equity(7_500)
        before = await desk.breaker.check_all_metrics()
    clock.advance(1)
    async with opened(tmp_path, exchange=venue, clock=clock, funded=False) as desk:
        await recovery(desk).run()
        after = await desk.breaker.check_all_metrics()
        assert after.halt_reason == before.halt_reason
        assert after.metrics["trade_velocity"].value == 2
        assert (await desk.hold("rests")).state is HoldState.WORKING
        assert code(await desk.buy(1)) == "CIRCUIT_BREAKER_TRIPPED"


async def test_until_positions_were_compared_no_entry_is_sent(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1, PERP)
        desk.exchange.fault("positions", Fault.FAIL)
        start = recovery(desk)
        report = await start.run()
        assert not report.clean
        await desk.refresh()
        assert code(await desk.buy(1)) == "STATE_UNKNOWN"
        assert code(await desk.sell(1, symbol=PERP)) == "ACCEPTED"
        await start.settle_working()
        assert code(await desk.buy(1)) == "ACCEPTED"


async def test_a_venue_that_is_away_at_the_start_leaves_losses_unknown(tmp_path: Path) -> None:
    async with opened(tmp_path, funded=False) as desk:
        desk.exchange.break_down("account", Fault.FAIL)
        report = await recovery(desk).run()
        assert report.errors == ["account: account failed"]
        await desk.reprice(100)
        await desk.breaker.check_all_metrics()
        assert code(await desk.buy(1)) == "METRIC_UNKNOWN"


async def test_settling_asks_the_venue_only_where_something_is_open(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        start = recovery(desk)
        await start.run()
        calls = dict(desk.exchange.calls)
        assert await start.settle_working() is None
        assert desk.exchange.calls == calls
        desk.exchange.fault("place", Fault.LOST)
        await desk.buy(1, client_order_id="a")
        report = await start.settle_working()
        assert report is not None
        assert report.settled == ["a"]


async def test_settling_also_writes_what_was_counted_in_a_flood(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        start = recovery(desk)
        await start.run()
        for _ in range(25):
            await desk.buy(101)
        assert len(await desk.rows("ORDER_REJECTED_LIMITS")) == 20
        desk.clock.advance(1)
        await start.settle_working()
        assert (await desk.data("ORDER_REJECTED_LIMITS"))[-1]["count"] == 5


async def test_reservations_of_the_enforcer_outlive_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as desk:
        await desk.limits.check_order_allowed(order("BUY", 60, client_order_id="a", price=100))
    async with opened(tmp_path, clock=clock) as desk:
        await recovery(desk).run()
        assert code(await desk.buy(60)) == "POSITION_SIZE"


class Closed(Venue):
    """A venue that filled the orders which it is told of, and tells so when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.filled: dict[str, Hold] = {}

    async def find(self, symbol: str, client_order_id: str) -> OrderReport | None:
        hold = self.filled.get(client_order_id)
        if hold is None:
            return await super().find(symbol, client_order_id)
        return OrderReport(
            client_order_id, "v", symbol, hold.side, hold.type, hold.amount, hold.amount,
            ReportStatus.FILLED, average_price=Decimal(101), reduce_only=True,
        )  # fmt: skip


async def test_closes_that_a_forced_release_left_behind_are_settled_at_the_next_start(
    tmp_path: Path,
) -> None:
    """One close stands in the ledger, one only in the journal, and no stop asks for either."""
    venue, clock = Closed(), FakeClock()
    async with opened(tmp_path, exchange=venue, clock=clock) as desk:
        await desk.have(10, PERP)
        close = a_close(desk, "in-the-ledger", 4)
        await desk.context.store.transact(lambda tx: tx.put_hold(close))
        desk.context.journal.append(entry_of(a_close(desk, "in-the-journal", 6)))
        desk.context.journal.append(entry_of(a_close(desk, "never-sent", 6)))
        desk.context.journal.append({"kind": "latch", "id": "torn"})
        elsewhere = a_close(desk, "elsewhere", 6)
        key = replace(elsewhere.key, venue="elsewhere")
        desk.context.journal.append(entry_of(replace(elsewhere, key=key)))
    for sent in (close, replace(close, client_order_id="in-the-journal", amount=Decimal(6))):
        venue.filled[sent.client_order_id] = sent
    venue.set_position(PERP, 0)
    clock.advance(60)
    async with opened(tmp_path, exchange=venue, clock=clock) as desk:
        report = await recovery(desk).run()
        assert sorted(report.settled) == ["in-the-journal", "in-the-ledger", "never-sent"]
        assert report.clean
        assert report.mismatches == []
        assert await desk.position(PERP) == 0
        assert await desk.read(lambda tx: tx.hold("elsewhere")) is None
        assert (await desk.hold("in-the-journal")).state is HoldState.FILLED
        assert (await desk.hold("never-sent")).state is HoldState.RELEASED
        assert code(await desk.buy(1)) == "ACCEPTED"
        # Looked at again, what ended stays ended.
        assert (await recovery(desk).run()).settled == []
        assert await desk.position(PERP) == 0


def a_close(desk: Desk, order_id: str, amount: int) -> Hold:
    now_ms = to_ms(desk.clock.now())
    key = PositionKey(desk.exchange.name, "default", PERP)
    return Hold(
        order_id, key, Side.SELL, OrderType.MARKET, Decimal(amount), None, HoldState.INTENDED,
        now_ms, intent_ms=now_ms, reduces=True, reduce_only=True, flatten=True,
    )  # fmt: skip
