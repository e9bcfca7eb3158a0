"""Reconciliation: the venue's word against our book; recovery: how every process starts."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from gate_world import BTC, ETH, PERP, Desk, Venue, code, opened, order

from tinywindow.safety.domain.kill import KillSwitchMode
from tinywindow.safety.domain.order import Side
from tinywindow.safety.domain.records import HoldState, Lease
from tinywindow.safety.domain.venue import OrderReport, VenuePosition
from tinywindow.safety.domain.windows import Outcome as Attempt
from tinywindow.safety.services.flatten_lease import LEASE_TTL_MS, lease_name
from tinywindow.safety.services.reconcile import Reconciler, ReconciliationReport
from tinywindow.safety.services.times import to_ms
from tinywindow.testing import Fault


def reconciler(desk: Desk) -> Reconciler:
    return Reconciler(desk.limits.admitter, desk.gate.settler, desk.exchange)


async def lose(desk: Desk, fault: Fault, order_id: str = "a", **terms: object) -> None:
    desk.exchange.fault("place", fault)
    assert code(await desk.buy(10, client_order_id=order_id, **terms)) == "UNKNOWN"


async def test_an_unknown_order_that_the_venue_filled_is_booked(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await lose(desk, Fault.LOST)
        report = await reconciler(desk).orders(desk.context)
        assert (report.settled, report.clean) == (["a"], True)
        assert (await desk.hold("a")).state is HoldState.FILLED
        assert await desk.position() == 10


async def test_an_unknown_order_that_rests_goes_on_holding(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await lose(desk, Fault.LOST, price=95)
        report = await reconciler(desk).orders(desk.context)
        assert (report.settled, report.unsettled) == ([], [])
        assert (await desk.hold("a")).state is HoldState.WORKING
        assert (await desk.read(lambda tx: tx.execution("a"))).outcome is Attempt.OK


async def test_an_order_that_the_venue_never_knew_is_given_back_when_it_can_no_longer_arrive(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        await lose(desk, Fault.FAIL)
        desk.clock.advance(10)
        assert (await reconciler(desk).orders(desk.context)).unsettled == ["a"]
        assert (await desk.hold("a")).state is HoldState.UNKNOWN
        desk.clock.advance(0.001)
        assert (await reconciler(desk).orders(desk.context)).settled == ["a"]
        assert (await desk.hold("a")).state is HoldState.RELEASED
        assert desk.exchange.calls["place"] == 1


async def test_a_venue_that_cannot_be_asked_settles_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await lose(desk, Fault.LOST)
        desk.exchange.break_down("find", Fault.FAIL)
        desk.clock.advance(3_600)
        report = await reconciler(desk).orders(desk.context)
        assert (report.unsettled, report.clean) == (["a"], False)
        assert report.errors == ["a: find failed"]
        assert (await desk.hold("a")).state is HoldState.UNKNOWN


async def test_one_order_that_cannot_be_looked_up_keeps_no_other_waiting(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await lose(desk, Fault.LOST, "a")
        await lose(desk, Fault.LOST, "b")
        desk.exchange.fault("find", Fault.CRASH)
        report = await reconciler(desk).orders(desk.context)
        assert (report.unsettled, report.settled) == (["a"], ["b"])


async def test_what_the_enforcer_reserved_and_nobody_sent_is_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.limits.check_order_allowed(order("BUY", 1, client_order_id="a"))
        desk.clock.advance(3_600)
        report = await reconciler(desk).orders(desk.context)
        assert report == ReconciliationReport()


async def test_positions_are_taken_on_as_the_venue_has_them_and_audited_where_they_differ(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(3, PERP)
        await desk.have(2, ETH)
        desk.exchange.set_position(PERP, -1)
        report = ReconciliationReport()
        assert await reconciler(desk).positions(desk.context, report)
        assert await desk.position(PERP) == -1
        assert report.mismatches == ["BTC/USDT:USDT: booked 3, found -1"]
        (data,) = await desk.data("RECONCILIATION_MISMATCH")
        assert (data["booked"], data["found"]) == ("3", "-1")


async def test_a_position_that_was_read_is_fresh_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(3, PERP, read=False)
        await reconciler(desk).positions(desk.context, ReconciliationReport())
        positions = await desk.read(lambda tx: tuple(tx.book().positions.values()))
        assert positions[0].read_ms == positions[0].updated_ms


async def test_a_position_that_a_venue_took_away_is_gone(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(3, PERP)
        desk.exchange.set_position(PERP, 0)
        await reconciler(desk).positions(desk.context, ReconciliationReport())
        assert await desk.position(PERP) == 0
        await desk.kill_switch.activate(reason="enough")
        assert code(await desk.sell(3, symbol=PERP)) == "KILL_SWITCH_ACTIVE"


@pytest.mark.parametrize(("coins", "managed"), [(5, 2), (1, 1), (0, 0)])
async def test_the_owners_other_coins_are_never_taken_on(
    tmp_path: Path, coins: int, managed: int
) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(2)
        desk.exchange.set_position(BTC, coins)
        desk.exchange.set_position("DOGE/USDT", 1_000)
        await reconciler(desk).positions(desk.context, ReconciliationReport())
        assert await desk.position() == managed
        assert await desk.position("DOGE/USDT") == 0


async def test_positions_that_cannot_be_read_are_not_flat(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(2)
        desk.exchange.break_down("positions", Fault.FAIL)
        report = ReconciliationReport()
        assert not await reconciler(desk).positions(desk.context, report)
        assert report.errors == ["positions: positions failed"]
        assert await desk.position() == 2


async def test_a_fill_that_comes_while_positions_are_read_counts_once(tmp_path: Path) -> None:
    class Filling(Venue):
        """Fills its resting order just before it tells its positions."""

        async def positions(self) -> tuple[VenuePosition, ...]:
            for order_id in self.resting():
                self.fill(order_id)
            return await super().positions()

        def fill(self, order_id: str) -> None:
            from dataclasses import replace

            from tinywindow.safety.domain.venue import ReportStatus

            report: OrderReport = self._venue.orders[order_id]
            self._venue.orders[order_id] = replace(
                report,
                filled=report.amount,
                average_price=Decimal(95),
                status=ReportStatus.FILLED,
            )
            self.set_position(report.symbol, report.amount)

    async with opened(tmp_path, exchange=Filling()) as desk:
        await desk.buy(10, symbol=PERP, price=95)
        report = ReconciliationReport()
        assert not await reconciler(desk).positions(desk.context, report)
        assert await desk.position(PERP) == 10
        assert await reconciler(desk).positions(desk.context, report)
        assert await desk.position(PERP) == 10
        assert report.mismatches == []


async def test_a_position_without_any_price_is_reported_and_not_taken_on(tmp_path: Path) -> None:
    class Priceless(Venue):
        async def positions(self) -> tuple[VenuePosition, ...]:
            return (VenuePosition(PERP, Decimal(1), Decimal(1)),)

    async with opened(tmp_path, exchange=Priceless()) as desk:
        report = ReconciliationReport()
        await reconciler(desk).positions(desk.context, report)
        assert report.errors == ["BTC/USDT:USDT: the venue reports a position without a price"]
        assert await desk.position(PERP) == 0


async def left_over_close(desk: Desk) -> None:
    """Ten coins are booked, and a close of them was sent by a flattener that is gone."""
    await desk.buy(10, client_order_id="a")
    bought = await desk.hold("a")
    close = replace(
        bought, client_order_id="close", side=Side.SELL, state=HoldState.UNKNOWN,
        filled=Decimal(0), flatten=True, reduces=True, average_price=None,
    )  # fmt: skip
    await desk.context.store.transact(lambda tx: tx.put_hold(close))


async def test_a_position_that_is_being_closed_is_left_to_the_flattener(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await left_over_close(desk)
        await desk.kill_switch.activate(KillSwitchMode.CLOSE_POSITIONS, "flat, now")
        desk.exchange.set_position(BTC, 4)
        report = ReconciliationReport()

        assert not await reconciler(desk).positions(desk.context, report)

        assert report.errors == [f"{BTC}: a closing order is not booked yet"]
        assert await desk.position() == 10
        assert "find" not in desk.exchange.calls


async def test_a_close_is_left_to_a_flattener_whose_heart_beats(tmp_path: Path) -> None:
    """After a release it still follows what it sent, until it is gone."""
    async with opened(tmp_path) as desk:
        await left_over_close(desk)
        now_ms = to_ms(desk.clock.now())
        lease = Lease(lease_name(desk.exchange.name), "another process", 1, now_ms)
        await desk.context.store.transact(lambda tx: tx.put_lease(lease))

        desk.clock.advance(LEASE_TTL_MS / 1000)
        report = await reconciler(desk).orders(desk.context)
        assert (report.settled, report.unsettled) == ([], [])
        desk.clock.advance(6)
        report = await reconciler(desk).orders(desk.context)
        assert report.settled == ["close"]


async def test_a_close_that_a_released_stop_left_behind_is_looked_up_and_booked(
    tmp_path: Path,
) -> None:
    class Sold(Venue):
        async def find(self, symbol: str, client_order_id: str) -> OrderReport | None:
            bought = await super().find(symbol, "a")
            assert bought is not None
            return replace(bought, client_order_id=client_order_id, side=Side.SELL)

    async with opened(tmp_path, exchange=Sold()) as desk:
        await left_over_close(desk)
        desk.exchange.set_position(BTC, 0)
        velocity = await desk.velocity()

        report = await reconciler(desk).orders(desk.context)
        assert report.settled == ["close"]
        assert await reconciler(desk).positions(desk.context, report)

        assert (await desk.hold("close")).state is HoldState.FILLED
        assert await desk.position() == 0
        assert await desk.velocity() == velocity
        assert report.mismatches == []
