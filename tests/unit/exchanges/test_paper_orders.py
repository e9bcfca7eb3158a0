"""Orders at the paper venue: what is taken, filled, turned away, and for how much."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from paper_desk import FREE, PERP, SPOT, START, SetClock, held, match, order, place, run, venue

from tinywindow.exchanges.paper import PaperConfig, PriceBoard, discrepancies
from tinywindow.safety.domain.venue import Accepted, Rejected, ReportStatus
from tinywindow.safety.errors import ConfigurationError, VenueUnavailable
from tinywindow.safety.ports import Exchange


def test_it_is_an_exchange(tmp_path: Path) -> None:
    exchange: Exchange = venue(tmp_path)
    assert isinstance(exchange, Exchange)
    assert exchange.name == "paper"


def test_a_market_buy_moves_cash_and_balance_together(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    placed = place(exchange, "A", "BUY", "0.1")
    assert isinstance(placed, Accepted)
    assert placed.report.status is ReportStatus.FILLED
    assert placed.report.average_price == 50_000
    account = run(exchange.account())
    assert (account.cash, account.equity) == (Decimal(15_000), Decimal(20_000))
    assert not account.estimated
    (position,) = run(exchange.positions())
    assert (position.symbol, position.amount, position.available) == (
        SPOT,
        Decimal("0.1"),
        Decimal("0.1"),
    )
    assert position.entry_price == position.mark_price == 50_000


def test_fee_spread_and_square_root_impact_are_charged_to_the_taker(tmp_path: Path) -> None:
    config = PaperConfig(
        taker_bps=Decimal(10),
        half_spread_bps=Decimal(2),
        daily_volatility_bps=Decimal(300),
        daily_volume_usd={"BTC": Decimal(5_000) * 10_000},
    )
    exchange = venue(tmp_path, config=config)
    placed = place(exchange, "A", "BUY", "0.1")
    # sqrt(5,000 / 50,000,000) is 1 %, so the impact is 3 bp and the price 5 bp above 50,000.
    assert placed.report.average_price == Decimal("50025.00")
    assert placed.report.fee == Decimal("5.0025")
    sold = place(exchange, "B", "SELL", "0.1")
    assert sold.report.average_price == Decimal("49975.00")


def test_a_larger_order_gets_a_worse_price(tmp_path: Path) -> None:
    exchange = venue(tmp_path, config=PaperConfig(), opening_cash=Decimal(10**8))
    small = place(exchange, "A", "BUY", "0.01").report.average_price
    large = place(exchange, "B", "BUY", "100").report.average_price
    assert Decimal(50_000) < small < large


def test_spot_cannot_be_sold_beyond_what_is_free(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    assert isinstance(place(exchange, "A", "SELL", "0.1"), Rejected)
    place(exchange, "B", "BUY", "0.1")
    place(exchange, "C", "SELL", "0.06", price="60000")
    (position,) = run(exchange.positions())
    assert position.available == Decimal("0.04")
    refused = place(exchange, "D", "SELL", "0.05")
    assert isinstance(refused, Rejected)
    assert "0.04 BTC free" in refused.message
    assert isinstance(place(exchange, "E", "SELL", "0.04"), Accepted)


def test_a_spot_buy_needs_cash_and_resting_buys_hold_theirs(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    assert isinstance(place(exchange, "A", "BUY", "0.41"), Rejected)
    assert isinstance(place(exchange, "B", "BUY", "0.3", price="40000"), Accepted)
    refused = place(exchange, "C", "BUY", "0.2")
    assert isinstance(refused, Rejected)
    assert "8000 USD free" in refused.message
    run(exchange.cancel(SPOT, "B"))
    assert isinstance(place(exchange, "D", "BUY", "0.2"), Accepted)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"amount": "0.000001"}, "below the minimum"),
        ({"amount": "0.000015"}, "no multiple"),
        ({"amount": "9001"}, "above the maximum"),
        ({"amount": "0.00009"}, "notional"),
        ({"amount": "0.1", "price": "50000.001"}, "price"),
        ({"amount": "0.1", "symbol": "BTC/EUR"}, "does not list"),
        ({"amount": "0.1", "symbol": "BTC/USD:BTC"}, "does not list"),
        ({"amount": "0.1", "symbol": "ETH/USDT"}, "no price"),
        ({"amount": "0.1", "price": "50000", "kind": "STOP_LIMIT"}, "MARKET and LIMIT"),
    ],
)
def test_what_breaks_the_venues_rules_is_rejected_and_spends_its_id(
    tmp_path: Path, terms: dict[str, str], message: str
) -> None:
    exchange = venue(tmp_path)
    amount = terms.pop("amount")
    refused = place(exchange, "A", "BUY", amount, **terms)
    assert isinstance(refused, Rejected)
    assert message in refused.message
    symbol = terms.get("symbol", SPOT)
    found = run(exchange.find(symbol, "A"))
    assert found is not None
    assert found.status is ReportStatus.REJECTED
    again = place(exchange, "A", "BUY", "0.1")
    assert isinstance(again, Rejected)
    assert "duplicate" in again.message
    assert held(exchange) == {}


def test_an_id_is_taken_once_for_ever(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    place(exchange, "A", "BUY", "0.1")
    run(exchange.close())
    again = place(venue(tmp_path), "A", "BUY", "0.1")
    assert isinstance(again, Rejected)
    assert "duplicate" in again.message
    assert exchange.placements() == {"A": 2}
    assert held(exchange) == {SPOT: Decimal("0.1")}


def test_a_resting_order_fills_at_its_limit_when_the_price_crosses(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    placed = place(exchange, "A", "BUY", "0.1", price="49000")
    assert placed.report.status is ReportStatus.OPEN
    assert match(exchange) == ()
    exchange.board.set(SPOT, Decimal(48_500), START + timedelta(seconds=1))
    (filled,) = match(exchange)
    assert (filled.status, filled.average_price) == (ReportStatus.FILLED, Decimal(49_000))
    assert run(exchange.open_orders()) == ()
    assert match(exchange) == ()


def test_a_marketable_limit_order_takes_the_better_price(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    placed = place(exchange, "A", "BUY", "0.1", price="51000")
    assert placed.report.average_price == 50_000


def test_a_cancelled_order_is_reported_as_it_is_and_a_stranger_not_at_all(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    place(exchange, "A", "BUY", "0.1", price="49000")
    place(exchange, "B", "BUY", "0.1")
    cancelled = run(exchange.cancel(SPOT, "A"))
    assert cancelled is not None
    assert (cancelled.status, cancelled.remaining) == (ReportStatus.CANCELLED, Decimal(0))
    filled = run(exchange.cancel(SPOT, "B"))
    assert filled is not None
    assert filled.status is ReportStatus.FILLED
    assert run(exchange.cancel(SPOT, "C")) is None
    assert run(exchange.cancel(PERP, "A")) is None
    assert run(exchange.find(PERP, "A")) is None


def test_a_perpetual_goes_long_and_short_and_pays_only_its_profit(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    place(exchange, "A", "SELL", "0.2", symbol=PERP)
    assert run(exchange.account()).cash == 20_000
    exchange.board.set(PERP, Decimal(45_000), START + timedelta(seconds=1))
    assert run(exchange.account()).equity == 21_000
    place(exchange, "B", "BUY", "0.3", symbol=PERP)
    assert held(exchange) == {PERP: Decimal("0.1")}
    account = run(exchange.account())
    assert account.cash == account.equity == 21_000
    (position,) = run(exchange.positions())
    assert position.entry_price == 45_000
    assert discrepancies(tmp_path / "paper.db") == ()


def test_perpetuals_are_bounded_by_leverage_and_may_always_shrink(tmp_path: Path) -> None:
    exchange = venue(tmp_path, config=replace(FREE, max_leverage=Decimal(2)))
    refused = place(exchange, "A", "BUY", "0.801", symbol=PERP)
    assert isinstance(refused, Rejected)
    assert "margin" in refused.message
    assert isinstance(place(exchange, "B", "BUY", "0.8", symbol=PERP), Accepted)
    assert isinstance(place(exchange, "C", "BUY", "0.001", symbol=PERP), Rejected)
    exchange.board.set(PERP, Decimal(30_000), START + timedelta(seconds=1))
    assert isinstance(place(exchange, "D", "SELL", "0.4", symbol=PERP), Accepted)
    assert isinstance(place(exchange, "E", "BUY", "0.1"), Rejected)


def test_reduce_only_is_clipped_and_never_flips(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    nothing = place(exchange, "A", "SELL", "0.1", symbol=PERP, reduce_only=True)
    assert isinstance(nothing, Rejected)
    place(exchange, "B", "BUY", "0.1", symbol=PERP)
    wrong_way = place(exchange, "C", "BUY", "0.1", symbol=PERP, reduce_only=True)
    assert isinstance(wrong_way, Rejected)
    clipped = place(exchange, "D", "SELL", "0.5", symbol=PERP, reduce_only=True)
    assert (clipped.report.status, clipped.report.filled) == (ReportStatus.FILLED, Decimal("0.1"))
    assert clipped.report.reduce_only
    assert held(exchange) == {}


def test_a_resting_reduce_only_order_is_clipped_when_it_fills(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    place(exchange, "A", "BUY", "0.2", symbol=PERP)
    place(exchange, "B", "SELL", "0.2", symbol=PERP, price="51000", reduce_only=True)
    place(exchange, "C", "SELL", "0.2", symbol=PERP, price="51000", reduce_only=True)
    place(exchange, "D", "SELL", "0.15", symbol=PERP)
    exchange.board.set(PERP, Decimal(52_000), START + timedelta(seconds=1))
    first, second = match(exchange)
    assert (first.filled, first.status) == (Decimal("0.05"), ReportStatus.FILLED)
    assert (second.filled, second.status) == (Decimal(0), ReportStatus.CANCELLED)
    assert held(exchange) == {}
    assert discrepancies(tmp_path / "paper.db") == ()


def test_a_reduce_only_close_needs_no_minimum_notional(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    exchange.board.set(PERP, Decimal(4_000), START)
    place(exchange, "A", "BUY", "0.002", symbol=PERP)
    assert isinstance(place(exchange, "B", "SELL", "0.001", symbol=PERP), Rejected)
    closed = place(exchange, "C", "SELL", "0.001", symbol=PERP, reduce_only=True)
    assert isinstance(closed, Accepted)


def test_a_resting_spot_buy_whose_cash_was_lost_is_cancelled(tmp_path: Path) -> None:
    exchange = venue(tmp_path, config=replace(FREE, max_leverage=Decimal(1000)))
    place(exchange, "A", "BUY", "0.3", price="45000")
    place(exchange, "B", "BUY", "2", symbol=PERP)
    exchange.board.set(PERP, Decimal(45_000), START + timedelta(seconds=1))
    exchange.board.set(SPOT, Decimal(45_000), START + timedelta(seconds=1))
    place(exchange, "C", "SELL", "2", symbol=PERP, reduce_only=True)
    (ended,) = match(exchange)
    assert (ended.status, ended.filled) == (ReportStatus.CANCELLED, Decimal(0))
    assert run(exchange.account()).cash == 10_000


def test_a_liquidation_leaves_nothing_for_a_reducing_order_to_open(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    assert exchange.liquidate(PERP) is None
    place(exchange, "A", "BUY", "0.1", symbol=PERP)
    taken = exchange.liquidate(PERP)
    assert taken is not None
    assert taken.filled == Decimal("0.1")
    late = place(exchange, "B", "SELL", "0.1", symbol=PERP, reduce_only=True)
    assert isinstance(late, Rejected)
    assert held(exchange) == {}
    assert discrepancies(tmp_path / "paper.db") == ()


def test_the_account_is_estimated_where_a_price_is_missing_or_stale(tmp_path: Path) -> None:
    clock = SetClock()
    exchange = venue(tmp_path, clock=clock)
    place(exchange, "A", "BUY", "0.1")
    clock.forward(60)
    assert not run(exchange.account()).estimated
    clock.forward(0.001)
    assert run(exchange.account()).estimated


def test_market_rules_are_told_for_what_is_listed_and_only_for_that(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    spot, perp = run(exchange.market(SPOT)), run(exchange.market(PERP))
    assert (spot.spot, spot.reduce_only) == (True, False)
    assert (perp.spot, perp.reduce_only) == (False, True)
    assert run(exchange.market("DOGE/USD")).amount_min == Decimal("0.0001")
    own = replace(spot, amount_min=Decimal(1))
    configured = venue(tmp_path, config=replace(FREE, rules={SPOT: own}))
    assert run(configured.market(SPOT)) == own
    for unlisted in ("BTC/EUR", "USDC/USDT", "BTC/USDT:USDT-260101", "nonsense"):
        with pytest.raises(VenueUnavailable):
            run(exchange.market(unlisted))


def test_every_violation_of_the_configuration_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        PaperConfig(
            taker_bps=Decimal(-1),
            reject_chance=1.5,
            max_leverage=Decimal(0),
            daily_volume_usd={"BTC": Decimal(0)},
        )
    assert len(caught.value.violations) == 4


def test_an_opening_cash_that_is_no_money_is_refused(tmp_path: Path) -> None:
    for cash in (Decimal(0), Decimal(-1), Decimal("NaN"), Decimal("Infinity")):
        with pytest.raises(ConfigurationError):
            venue(tmp_path, opening_cash=cash)


def test_the_board_keeps_the_newest_price_and_takes_no_nonsense() -> None:
    board = PriceBoard()
    board.set(SPOT, Decimal(2), START)
    board.set(SPOT, Decimal(1), START - timedelta(seconds=1))
    assert board.get(SPOT) == board.reference_price(SPOT) == (Decimal(2), START)
    assert board.get(PERP) is None
    for price in (Decimal(0), Decimal(-1), Decimal("NaN")):
        with pytest.raises(ValueError, match="price"):
            board.set(SPOT, price, START)
    with pytest.raises(ValueError, match="time zone"):
        board.set(SPOT, Decimal(1), START.replace(tzinfo=None))


def test_an_order_carries_its_terms_into_its_report(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    wanted = order("A", "SELL", "0.2", symbol=PERP, price="60000")
    place(exchange, "A", "SELL", "0.2", symbol=PERP, price="60000")
    (report,) = run(exchange.open_orders())
    assert (report.client_order_id, report.symbol, report.side) == ("A", PERP, wanted.side)
    assert report.amount == report.remaining == wanted.amount
    assert report.price == 60_000
    assert report.ours
    assert report.average_price is None
