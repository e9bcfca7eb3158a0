"""Settlement: what the venue says becomes hold, position and measured attempt, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from gate_world import BTC, PERP, Desk, Venue, code, opened, order
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain.approval import Approved
from tinywindow.safety.domain.order import OrderType, Side
from tinywindow.safety.domain.records import HoldState
from tinywindow.safety.domain.venue import Accepted, OrderReport, Placed, ReportStatus
from tinywindow.safety.domain.windows import Outcome as Attempt
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.services.outcome import Outcome
from tinywindow.safety.services.reconcile import Reconciler
from tinywindow.testing import Fault


class Telling(Venue):
    """A venue that answers every send with one report."""

    report: Mapping[str, Any] = MappingProxyType({})

    async def place(self, approved: Approved) -> Placed:
        sent = approved.redeem()
        return Accepted(report_of(sent.client_order_id, **self.report))


def report_of(order_id: str, **changes: object) -> OrderReport:
    given: dict[str, Any] = {
        "client_order_id": order_id,
        "venue_order_id": f"v-{order_id}",
        "symbol": BTC,
        "side": Side.BUY,
        "type": OrderType.LIMIT,
        "amount": Decimal(10),
        "filled": Decimal(0),
        "status": ReportStatus.OPEN,
        **changes,
    }
    return OrderReport(**given)


async def attempt(desk: Desk, order_id: str) -> Attempt:
    execution = await desk.read(lambda tx: tx.execution(order_id))
    outcome: Attempt = execution.outcome
    return outcome


async def unknown_order(desk: Desk, order_id: str = "a", fault: Fault = Fault.LOST) -> None:
    desk.exchange.fault("place", fault)
    assert code(await desk.buy(10, client_order_id=order_id, price=100)) == "UNKNOWN"


async def test_an_accepted_order_that_rests_holds_its_exposure(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        answer = await desk.buy(10, client_order_id="a", price=95)
        assert isinstance(answer, Outcome)
        assert answer.state is HoldState.WORKING
        assert (await desk.hold("a")).remaining == 10
        assert (await desk.limits.capacity(BTC)).buy == 90
        assert await attempt(desk, "a") is Attempt.OK


async def test_a_rejected_order_gives_its_exposure_back_and_counts_as_failed(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        desk.exchange.fault("place", Fault.REJECT)
        answer = await desk.buy(10, client_order_id="a")
        assert isinstance(answer, Outcome)
        assert (answer.status, answer.state) == ("REJECTED", HoldState.RELEASED)
        assert answer.message == "the venue rejected it"
        assert not answer.accepted
        assert (await desk.limits.capacity(BTC)).buy == 100
        assert await attempt(desk, "a") is Attempt.FAILED
        assert await desk.velocity() == 1


async def test_an_order_that_was_taken_and_reported_as_rejected_is_rejected(
    tmp_path: Path,
) -> None:
    venue = Telling()
    venue.report = {"status": ReportStatus.REJECTED}
    async with opened(tmp_path, exchange=venue) as desk:
        answer = await desk.buy(10, client_order_id="a")
        assert isinstance(answer, Outcome)
        assert (answer.status, answer.state) == ("REJECTED", HoldState.RELEASED)
        assert await attempt(desk, "a") is Attempt.FAILED


async def test_five_rejections_in_a_row_trip(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        desk.exchange.break_down("place", Fault.REJECT)
        for _ in range(5):
            assert code(await desk.buy(1)) == "REJECTED"
        assert code(await desk.buy(1)) == "CIRCUIT_BREAKER_TRIPPED"


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.FAIL])
async def test_an_unknown_outcome_is_held_and_never_sent_again(
    tmp_path: Path, fault: Fault
) -> None:
    async with opened(tmp_path) as desk:
        await unknown_order(desk, fault=fault)
        assert (await desk.hold("a")).state is HoldState.UNKNOWN
        assert (await desk.limits.capacity(BTC)).buy == 90
        desk.clock.advance(86_400)
        await desk.refresh()
        assert code(await desk.buy(10, client_order_id="a", price=100)) == "DUPLICATE_ORDER_ID"
        assert (await desk.limits.capacity(BTC)).buy == 90
        assert desk.exchange.calls["place"] == 1
        assert await attempt(desk, "a") is Attempt.UNKNOWN


async def test_an_adapter_that_breaks_after_the_order_was_given_out_is_unknown(
    tmp_path: Path,
) -> None:
    class Breaking(Venue):
        async def place(self, approved: Approved) -> Placed:
            approved.redeem()
            raise RuntimeError("the adapter broke")

    async with opened(tmp_path, exchange=Breaking()) as desk:
        answer = await desk.buy(1, client_order_id="a")
        assert isinstance(answer, Outcome)
        assert (answer.status, answer.state) == ("UNKNOWN", HoldState.UNKNOWN)


async def test_an_adapter_that_breaks_before_the_order_was_given_out_sent_nothing(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        desk.exchange.fault("place", Fault.CRASH)
        answer = await desk.buy(1, client_order_id="a")
        assert isinstance(answer, Outcome)
        assert (answer.status, answer.state) == ("REJECTED", HoldState.RELEASED)
        assert await attempt(desk, "a") is Attempt.FAILED


async def test_a_venue_that_never_answers_is_unknown_after_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinywindow.safety.services.gate.SEND_TIMEOUT_S", 0.05)

    class Silent(Venue):
        async def place(self, approved: Approved) -> Placed:
            approved.redeem()
            self.break_down("place", Fault.HANG)
            return await super().place(approved)

    async with opened(tmp_path, exchange=Silent()) as desk:
        assert code(await desk.buy(1)) == "UNKNOWN"


async def test_a_store_that_fails_after_the_send_leaves_the_order_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as desk:

        async def away(*_: object, **__: object) -> object:
            raise StoreUnavailable("the disk is full")

        monkeypatch.setattr(desk.context.store, "transact", away)
        answer = await desk.buy(10, client_order_id="a")
        monkeypatch.undo()
        assert isinstance(answer, Outcome)
        assert (answer.status, answer.state) == ("ACCEPTED", HoldState.UNKNOWN)
        assert (await desk.hold("a")).state is HoldState.INTENDED
        found = await Reconciler(desk.limits.admitter, desk.gate.settler, desk.exchange).orders(
            desk.context
        )
        assert found.settled == ["a"]
        assert await desk.position() == 10


async def test_an_outcome_that_cannot_be_booked_is_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as desk:

        def broken(*_: object) -> object:
            raise RuntimeError("a bug")

        monkeypatch.setattr("tinywindow.safety.services.sending._apply", broken)
        answer = await desk.buy(10, client_order_id="a")
        assert isinstance(answer, Outcome)
        assert (answer.status, answer.state) == ("UNKNOWN", HoldState.UNKNOWN)
        assert desk.breaker.is_tripped
        assert (await desk.hold("a")).remaining == 10


async def test_a_partial_fill_of_an_unknown_order_is_booked_in_one_row(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await unknown_order(desk)
        before = len(await desk.rows())
        report = report_of("a", filled=Decimal(4), average_price=Decimal(100))
        hold = await desk.gate.settler.report(desk.context, "a", report)
        assert (hold.state, hold.remaining) == (HoldState.WORKING, 6)
        assert await desk.position() == 4
        assert await attempt(desk, "a") is Attempt.OK
        assert len(await desk.rows()) == before + 1
        await desk.gate.settler.report(desk.context, "a", report)
        assert len(await desk.rows()) == before + 1


async def test_a_fill_without_a_price_is_booked_at_the_likely_one(tmp_path: Path) -> None:
    venue = Telling()
    venue.report = {"filled": Decimal(10), "status": ReportStatus.FILLED}
    async with opened(tmp_path, exchange=venue) as desk:
        assert code(await desk.buy(10, client_order_id="a")) == "ACCEPTED"
        assert await desk.position() == 10
        assert (await desk.hold("a")).average_price == 100


async def test_a_late_fill_is_booked_whatever_became_of_the_hold(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.limits.check_order_allowed(order("BUY", 10, client_order_id="a"))
        await desk.limits.release("a")
        await desk.limits.record_fill("a", 4, 100)
        assert await desk.position() == 4
        assert (await desk.limits.capacity(BTC)).buy == 96
        assert (await desk.hold("a")).state is HoldState.RELEASED


async def test_fill_reports_are_cumulative_and_the_highest_counts(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.buy(10, client_order_id="a", price=100)
        for amount, price in ((4, 100), (2, 100), (4, 100), (8, 95), (8, 95)):
            await desk.limits.record_fill("a", amount, price)
        hold = await desk.hold("a")
        assert (hold.filled, hold.average_price, hold.remaining) == (8, 95, 2)
        assert await desk.position() == 8
        await desk.limits.record_fill("a", 8, 95, final=True)
        assert (await desk.hold("a")).state is HoldState.RELEASED
        assert await desk.position() == 8


@pytest.mark.parametrize(("amount", "price"), [(-1, 100), (1, 0), (1, -5)])
async def test_a_report_that_cannot_be_is_refused(tmp_path: Path, amount: int, price: int) -> None:
    async with opened(tmp_path) as desk:
        await desk.buy(10, client_order_id="a", price=100)
        with pytest.raises(ValueError, match="positive"):
            await desk.limits.record_fill("a", amount, price)
        assert await desk.position() == 0


async def test_a_report_on_an_order_that_never_was_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        with pytest.raises(KeyError):
            await desk.limits.record_fill("nobody", 1, 100)
        with pytest.raises(KeyError):
            await desk.limits.release("nobody")


async def test_a_hold_ends_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.buy(10, client_order_id="a")
        before = len(await desk.rows())
        await desk.limits.release("a")
        await desk.limits.record_fill("a", 10, 100, final=True)
        assert (await desk.hold("a")).state is HoldState.FILLED
        assert len(await desk.rows()) == before


async def test_a_short_and_its_cover_are_booked_with_their_signs(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.sell(2, symbol=PERP)
        assert await desk.position(PERP) == -2
        await desk.buy("0.5", symbol=PERP)
        assert await desk.position(PERP) == Decimal("-1.5")


@given(steps=st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=6))
def test_whatever_is_reported_in_whatever_order_the_position_is_the_highest_fill(
    steps: list[tuple[int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def play(folder: Path) -> None:
        async with opened(folder) as desk:
            await desk.buy(10, client_order_id="a", price=100)
            for amount, final in steps:
                status = ReportStatus.CANCELLED if final else ReportStatus.OPEN
                report = report_of(
                    "a", filled=Decimal(amount), average_price=Decimal(100), status=status
                )
                await desk.gate.settler.report(desk.context, "a", report)
            hold = await desk.hold("a")
            assert await desk.position() == hold.filled == max(amount for amount, _ in steps)

    asyncio.run(play(tmp_path_factory.mktemp("fills")))
