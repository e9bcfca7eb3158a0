"""Jumps of equity: what prices, fills and flows explain, to the cent, and what they do not."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tinywindow.safety.domain.book import Book, Changes
from tinywindow.safety.domain.equity_jump import (
    PRICE_AGE_MAX_MS,
    SETTLE_MS,
    EquityWatch,
    Holding,
    Snapshot,
    judged,
    passed_over,
    snapshot,
    watches_of,
    watches_text,
)
from tinywindow.safety.domain.order import PositionKey
from tinywindow.safety.domain.records import Head, Position, ReferencePrice, TradingState

NOW = 1_700_000_000_000
HEAD = Head(1, 0, TradingState.RUNNING, 0, "0" * 64, 0)
ZERO = Decimal(0)


def held(
    amount: str = "1", price: str = "100", entry: str = "100", name: str = "BTC"
) -> dict[str, Holding]:
    return {name: Holding(Decimal(amount), Decimal(price), Decimal(entry))}


def seen(equity: str, holdings: dict[str, Holding] | None = None, at_ms: int = NOW) -> Snapshot:
    return Snapshot(at_ms, Decimal(equity), held() if holdings is None else holdings)


def believed(before: Snapshot, now: Snapshot, flow: str = "0") -> bool:
    return not judged(EquityWatch(before), now, cash_flow=Decimal(flow))[1]


def test_prices_of_a_minute_explain_and_a_level_settles_in_five() -> None:
    assert (PRICE_AGE_MAX_MS, SETTLE_MS) == (60_000, 300_000)


def test_an_account_begins_with_nothing_to_compare_and_no_streak() -> None:
    assert EquityWatch() == EquityWatch(None, None, 0, streak=False)


# The tolerance: 2 % of equity, at least one dollar, and 1 % of the larger gross value.


@pytest.mark.parametrize(
    ("equity", "explained"),
    [("1021", True), ("1021.01", False), ("979", True), ("978.99", False)],
)
def test_two_percent_of_equity_and_one_of_the_positions_are_borne(
    equity: str, *, explained: bool
) -> None:
    assert believed(seen("1000"), seen(equity)) is explained


@pytest.mark.parametrize(("equity", "explained"), [("12", True), ("12.01", False)])
def test_a_dollar_is_borne_whatever_the_equity(equity: str, *, explained: bool) -> None:
    assert believed(seen("10"), seen(equity)) is explained


@pytest.mark.parametrize(
    ("amount", "equity", "explained"),
    [
        # Long and short; the gross value now is 150 USD, so that 21.50 USD are borne.
        ("1", "1071.50", True),
        ("1", "1071.51", False),
        ("-1", "971.50", True),
        ("-1", "971.51", False),
    ],
)
def test_a_move_of_the_price_explains_what_the_position_earns(
    amount: str, equity: str, *, explained: bool
) -> None:
    assert believed(seen("1000", held(amount)), seen(equity, held(amount, "150"))) is explained


def test_a_position_that_was_there_earns_from_its_last_price_and_not_from_its_entry() -> None:
    before, now = held("1", "100", entry="20"), held("1", "150", entry="20")
    assert believed(seen("1000", before), seen("1050", now))
    # What it earned since its entry, 130 USD, is far beyond the 21.50 USD that are borne.
    assert not believed(seen("1000", before), seen("1130", now))


def test_the_larger_gross_value_counts() -> None:
    # 900 USD before, 450 after: 20 + 9 are borne.
    before, after = held("9"), held("9", "50")
    assert believed(seen("1000", before), seen("579", after))
    assert not believed(seen("1000", before), seen("579.01", after))


@pytest.mark.parametrize(("equity", "explained"), [("1081.00", True), ("1081.01", False)])
def test_what_was_bought_meanwhile_may_have_been_bought_at_either_price(
    equity: str, *, explained: bool
) -> None:
    # One more at a move of 20: 20 expected, 20 + 2.40 + 20 borne, and 18.60 more are not.
    before, after = held("1"), held("2", "120")
    low = Decimal(equity) - Decimal("18.60")
    assert believed(seen("1000", before), seen(str(low), after)) is explained


def test_a_position_that_is_new_is_measured_from_its_entry() -> None:
    after = held("1", "150", "100")
    assert believed(seen("1000", {}), seen("1071.50", after))
    assert not believed(seen("1000", {}), seen("1071.51", after))


@pytest.mark.parametrize(("equity", "explained"), [("1121", True), ("1121.01", False)])
def test_a_position_that_was_closed_explains_no_more_than_its_value(
    equity: str, *, explained: bool
) -> None:
    assert believed(seen("1000"), seen(equity, {})) is explained


def test_a_small_position_that_was_closed_hides_no_jump_of_the_others() -> None:
    before = held() | held("0.01", name="ETH")
    assert not believed(seen("1000", before), seen("1200", held()))
    assert not believed(seen("1000", before), seen("800", held()))


def test_a_flow_explains_itself() -> None:
    assert believed(seen("1000"), seen("3000"), "2000")
    assert not believed(seen("1000"), seen("3000"), "1900")


def test_without_positions_nothing_is_judged() -> None:
    assert believed(seen("1000", {}), seen("9999", {}))
    assert judged(EquityWatch(seen("1")), None, cash_flow=ZERO) == (EquityWatch(None), "")
    assert judged(EquityWatch(), seen("1"), cash_flow=ZERO) == (EquityWatch(seen("1")), "")


def test_the_note_says_how_far_it_is_off() -> None:
    _, note = judged(EquityWatch(seen("1000")), seen("2000.005"), cash_flow=ZERO)
    assert note == (
        "equity is 2000 USD where prices, fills and flows explain 1000 USD, give or take 21 USD"
    )


# A level that lasts.


@pytest.mark.parametrize(("last_ms", "settles"), [(SETTLE_MS - 1, False), (SETTLE_MS, True)])
def test_a_level_that_lasts_five_minutes_is_taken_on(last_ms: int, *, settles: bool) -> None:
    watch = EquityWatch(seen("1000"))
    for at_ms in (0, 60_000, 200_000):
        watch, note = judged(watch, seen("2000", at_ms=NOW + at_ms), cash_flow=ZERO)
        assert note
    watch, note = judged(watch, seen("2000", at_ms=NOW + last_ms), cash_flow=ZERO)
    assert (not note) is settles
    if settles:
        assert watch == EquityWatch(seen("2000", at_ms=NOW + last_ms))


def test_a_level_that_moves_on_begins_its_five_minutes_anew() -> None:
    watch, _ = judged(EquityWatch(seen("1000")), seen("2000"), cash_flow=ZERO)
    watch, _ = judged(watch, seen("4000", at_ms=NOW + 200_000), cash_flow=ZERO)
    watch, note = judged(watch, seen("4000", at_ms=NOW + SETTLE_MS), cash_flow=ZERO)
    assert note
    assert watch.doubted_since_ms == NOW + 200_000


def test_a_flow_moves_what_is_doubted_and_what_is_believed() -> None:
    watch, _ = judged(EquityWatch(seen("1000")), seen("2000"), cash_flow=ZERO)
    watch, note = judged(watch, seen("2500", at_ms=NOW + 1_000), cash_flow=Decimal(500))
    assert note
    assert watch.doubted_since_ms == NOW
    assert watch.believed is not None
    assert watch.believed.equity == 1_500
    assert not judged(watch, seen("1500", at_ms=NOW + 2_000), cash_flow=ZERO)[1]


def test_a_mark_that_is_passed_over_leaves_its_flow_only() -> None:
    assert passed_over(EquityWatch(streak=True), cash_flow=Decimal(5)) == EquityWatch(streak=True)
    watch, _ = judged(EquityWatch(seen("1000"), streak=True), seen("2000"), cash_flow=ZERO)
    after = passed_over(watch, cash_flow=Decimal(5))
    assert after == EquityWatch(seen("1005"), streak=True)


# What an account holds.


def book(symbol: str = "BTC/USDT", *, price_at_ms: int = NOW, priced: str | None = None) -> Book:
    made = Book(HEAD)
    position = Position(
        PositionKey("paper", "default", symbol), Decimal(2), Decimal(90), updated_ms=NOW
    )
    other = Position(PositionKey("paper", "other", symbol), Decimal(7), Decimal(90), NOW)
    price = ReferencePrice(priced or symbol, Decimal(100), price_at_ms)
    made.apply(Changes(HEAD, positions=(position, other), prices=(price,)))
    return made


def test_a_snapshot_holds_the_accounts_own_positions_at_the_newest_prices() -> None:
    made = snapshot(book(), "default", Decimal(1_000), NOW, prices={})
    holdings = {"paper BTC/USDT net": Holding(Decimal(2), Decimal(100), Decimal(90))}
    assert made == Snapshot(NOW, Decimal(1_000), holdings)
    newer = {"BTC/USDT": ReferencePrice("BTC/USDT", Decimal(110), NOW)}
    made = snapshot(book(), "default", Decimal(1_000), NOW, prices=newer)
    assert made is not None
    assert made.holdings["paper BTC/USDT net"].price == 110


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_price_of_the_same_minute_counts(sign: int) -> None:
    near, far = NOW + sign * PRICE_AGE_MAX_MS, NOW + sign * (PRICE_AGE_MAX_MS + 1)
    assert snapshot(book(price_at_ms=near), "default", ZERO, NOW, prices={}) is not None
    assert snapshot(book(price_at_ms=far), "default", ZERO, NOW, prices={}) is None


@pytest.mark.parametrize(
    "symbol",
    ["BTC/EUR", "BTC/USD:BTC", "BTC/USDT:USDT-261225-90000-C"],
)
def test_what_is_not_linear_in_usd_cannot_be_valued(symbol: str) -> None:
    assert snapshot(book(symbol), "default", ZERO, NOW, prices={}) is None


def test_a_linear_perpetual_can_be_valued_and_what_has_no_price_cannot() -> None:
    assert snapshot(book("BTC/USDT:USDT"), "default", ZERO, NOW, prices={}) is not None
    assert snapshot(book(priced="ETH/USDT"), "default", ZERO, NOW, prices={}) is None


# Kept in the store.


def test_watches_survive_json() -> None:
    watches = {
        "a": EquityWatch(seen("1"), seen("2", held("-0.5", "3", "4")), NOW, streak=True),
        "b": EquityWatch(),
    }
    assert watches_of(watches_text(watches)) == watches
    assert watches_of(None) == {}


@pytest.mark.parametrize("packed", ['["1","1",{}]', '[1,"1",[]]'])
def test_a_watch_of_another_shape_is_refused(packed: str) -> None:
    with pytest.raises(TypeError, match="another shape"):
        watches_of(f'{{"a":[{packed},null,0,false]}}')
