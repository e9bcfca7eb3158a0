"""The paper venue misbehaving on demand, and the approval's last look."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from paper_desk import FREE, PERP, SPOT, Sleeps, forked, held, match, order, place, run, venue

from tinywindow.exchanges.paper import CallFault, PlaceFault, ScriptedFaults
from tinywindow.safety.domain.approval import ApprovalVoid, expired, mint
from tinywindow.safety.domain.venue import Accepted, Rejected, ReportStatus, Unknown
from tinywindow.safety.errors import InvariantBroken, VenueUnavailable


def test_a_send_lost_before_the_venue_leaves_no_order(tmp_path: Path) -> None:
    exchange = venue(tmp_path, faults=ScriptedFaults().place(PlaceFault.LOST_BEFORE))
    assert isinstance(place(exchange, "A", "BUY", "0.1"), Unknown)
    assert run(exchange.find(SPOT, "A")) is None
    assert held(exchange) == {}
    assert exchange.placements() == {"A": 1}


def test_a_send_lost_after_the_venue_took_it_is_live(tmp_path: Path) -> None:
    exchange = venue(tmp_path, faults=ScriptedFaults().place(PlaceFault.LOST_AFTER))
    assert isinstance(place(exchange, "A", "BUY", "0.1"), Unknown)
    found = run(exchange.find(SPOT, "A"))
    assert found is not None
    assert found.status is ReportStatus.FILLED
    assert held(exchange) == {SPOT: Decimal("0.1")}


def test_a_scripted_rejection_fills_nothing(tmp_path: Path) -> None:
    exchange = venue(tmp_path, faults=ScriptedFaults().place(PlaceFault.REJECT, None))
    assert isinstance(place(exchange, "A", "BUY", "0.1"), Rejected)
    assert isinstance(place(exchange, "B", "BUY", "0.1"), Accepted)


def test_the_rest_of_a_partly_filled_market_order_is_cancelled(tmp_path: Path) -> None:
    exchange = venue(tmp_path, faults=ScriptedFaults().place(PlaceFault.PARTIAL))
    placed = place(exchange, "A", "BUY", "0.1")
    assert (placed.report.filled, placed.report.status) == (
        Decimal("0.05"),
        ReportStatus.CANCELLED,
    )


def test_the_rest_of_a_partly_filled_limit_order_stays_open(tmp_path: Path) -> None:
    exchange = venue(tmp_path, faults=ScriptedFaults().place(PlaceFault.PARTIAL))
    placed = place(exchange, "A", "BUY", "0.1", price="51000")
    assert (placed.report.filled, placed.report.status) == (Decimal("0.05"), ReportStatus.OPEN)
    (filled,) = match(exchange)
    assert (filled.filled, filled.status) == (Decimal("0.1"), ReportStatus.FILLED)
    assert filled.average_price == 50_500


@pytest.mark.parametrize("symbol", [SPOT, PERP])
def test_dust_is_left_below_the_minimum_and_cannot_be_sold(tmp_path: Path, symbol: str) -> None:
    exchange = venue(tmp_path, faults=ScriptedFaults().place(None, PlaceFault.DUST))
    place(exchange, "A", "BUY", "0.1", symbol=symbol)
    place(exchange, "B", "SELL", "0.1", symbol=symbol, reduce_only=True)
    rules = run(exchange.market(symbol))
    left = held(exchange)[symbol]
    assert rules.amount_min is not None
    assert 0 < left < rules.amount_min
    again = place(exchange, "C", "SELL", "0.1", symbol=symbol, reduce_only=True)
    assert isinstance(again, Rejected)


@pytest.mark.parametrize(
    "operation", ["find", "open_orders", "positions", "account", "market", "cancel"]
)
@pytest.mark.parametrize("fault", list(CallFault))
def test_a_failed_call_is_never_an_empty_answer(
    tmp_path: Path, operation: str, fault: CallFault
) -> None:
    exchange = venue(tmp_path, faults=ScriptedFaults().call(operation, [fault]))
    arguments = {"find": (SPOT, "A"), "cancel": (SPOT, "A"), "market": (SPOT,)}.get(operation, ())
    with pytest.raises(VenueUnavailable):
        run(getattr(exchange, operation)(*arguments))
    run(getattr(exchange, operation)(*arguments))


def test_a_cancel_whose_answer_is_lost_has_cancelled(tmp_path: Path) -> None:
    script = ScriptedFaults().call("cancel", [CallFault.BEFORE, CallFault.AFTER])
    exchange = venue(tmp_path, faults=script)
    place(exchange, "A", "BUY", "0.1", price="49000")
    for resting in (1, 0):
        with pytest.raises(VenueUnavailable):
            run(exchange.cancel(SPOT, "A"))
        assert len(run(exchange.open_orders())) == resting


def test_a_void_approval_sends_nothing_and_is_let_through(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    void = mint(order("A", "BUY", "0.1"), reduce_only=False, epoch=0, last_look=expired)
    with pytest.raises(ApprovalVoid):
        run(exchange.place(void))
    assert exchange.placements() == {}
    assert run(exchange.find(SPOT, "A")) is None


def test_an_approval_is_good_for_one_send(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    once = mint(order("A", "BUY", "0.1"), reduce_only=False, epoch=0, last_look=lambda: None)
    run(exchange.place(once))
    with pytest.raises(InvariantBroken):
        run(exchange.place(once))
    assert exchange.placements() == {"A": 1}


def test_an_approval_that_is_reduce_only_makes_the_order_so(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    wanted = order("A", "SELL", "0.1", symbol=PERP)
    strict = mint(wanted, reduce_only=True, epoch=0, last_look=lambda: None)
    assert isinstance(run(exchange.place(strict)), Rejected)


def test_the_last_look_is_taken_under_the_books_lock_and_before_any_latency(
    tmp_path: Path,
) -> None:
    sleeps = Sleeps()
    config = replace(FREE, latency_s=0.2, busy_timeout_s=0.01)
    exchange = venue(tmp_path, config=config, sleep=sleeps)
    other = forked(exchange)
    seen = []

    def look() -> None:
        # Nobody else can write between this look and the commit.
        seen.append((list(sleeps.seconds), place_from(other)))

    def place_from(instance: object) -> str:
        try:
            with instance._book.write():  # type: ignore[attr-defined]
                return "wrote"
        except VenueUnavailable:
            return "locked out"

    run(exchange.place(mint(order("A", "BUY", "0.1"), reduce_only=False, epoch=0, last_look=look)))
    assert seen == [([], "locked out")]
    assert sleeps.seconds == [0.2]


def test_a_book_that_cannot_be_used_is_unknown_on_a_send_and_unavailable_on_a_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "paper.db").write_bytes(b"this is no database" * 100)
    exchange = venue(tmp_path)
    assert isinstance(place(exchange, "A", "BUY", "0.1"), Unknown)
    with pytest.raises(VenueUnavailable):
        run(exchange.positions())
    (tmp_path / "file").write_text("")
    nowhere = venue(tmp_path / "file")
    with pytest.raises(VenueUnavailable):
        run(nowhere.account())


def test_chance_is_the_seeds_alone(tmp_path: Path) -> None:
    config = replace(FREE, market_partial_chance=0.5, reject_chance=0.3, latency_jitter_s=0.1)

    def story(name: str) -> list[str]:
        (tmp_path / name).mkdir()
        sleeps = Sleeps()
        exchange = venue(tmp_path / name, config=config, rng=Random(7), sleep=sleeps)
        told = [repr(place(exchange, f"A{n}", "BUY", "0.01")) for n in range(20)]
        return [*told, repr(sleeps.seconds)]

    first = story("one")
    assert first == story("two")
    assert any("Rejected" in line for line in first)
    assert any("CANCELLED" in line for line in first)
    assert any("FILLED" in line for line in first)
