"""Positions: what an order may reduce, how far one can grow, and how fills move it."""

from __future__ import annotations

from decimal import Decimal as D
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain.book import Book, Changes
from tinywindow.safety.domain.order import OrderType, PositionKey, Side
from tinywindow.safety.domain.positions import apply_fill, filled, reducible, worst_amount
from tinywindow.safety.domain.records import Head, Hold, HoldState, Position, TradingState

HEAD = Head(1, 0, TradingState.RUNNING, 0, "0" * 64, 0)
KEY = PositionKey("paper", "default", "BTC/USDT")
EXACT_LONG = D("1234567890.123456789012345678901234567891")
"""Forty digits, as many as are accepted."""

amounts = st.decimals(min_value=0, max_value=1_000, places=6)
signed = st.decimals(min_value=-1_000, max_value=1_000, places=6)


def hold(side: Side, amount: object, **changes: Any) -> Hold:
    fields: dict[str, Any] = {
        "client_order_id": f"{side}-{amount}",
        "key": KEY,
        "side": side,
        "type": OrderType.MARKET,
        "amount": D(str(amount)),
        "price": None,
        "state": HoldState.HELD,
        "created_ms": 0,
        **changes,
    }
    return Hold(**fields)


def book(position: object = 0, *holds: Hold) -> Book:
    made = Book(HEAD)
    made.apply(Changes(HEAD, holds=holds, positions=(Position(KEY, D(str(position)), D(1), 0),)))
    return made


@pytest.mark.parametrize(
    ("position", "side", "amount"),
    [
        ("5", Side.SELL, "5"),
        ("5", Side.BUY, "0"),
        ("-5", Side.BUY, "5"),
        ("-5", Side.SELL, "0"),
        ("0", Side.BUY, "0"),
        ("0", Side.SELL, "0"),
    ],
)
def test_only_the_opposite_side_reduces_and_by_no_more_than_is_there(
    position: str, side: Side, amount: str
) -> None:
    assert reducible(book(position), KEY, side) == D(amount)


def test_reductions_that_rest_already_are_taken_off() -> None:
    assert reducible(book(5, hold(Side.SELL, 2)), KEY, Side.SELL) == 3
    assert reducible(book(5, hold(Side.SELL, 5)), KEY, Side.SELL) == 0
    assert reducible(book(5, hold(Side.SELL, 9)), KEY, Side.SELL) == 0
    assert reducible(book(-5, hold(Side.BUY, 2)), KEY, Side.BUY) == 3


def test_what_rests_on_the_growing_side_takes_nothing_off() -> None:
    assert reducible(book(5, hold(Side.BUY, 2)), KEY, Side.SELL) == 5
    assert reducible(book(-5, hold(Side.SELL, 2)), KEY, Side.BUY) == 5


def test_another_venue_account_market_or_leg_has_nothing_to_reduce() -> None:
    held = book(5)
    for key in (
        PositionKey("other", "default", "BTC/USDT"),
        PositionKey("paper", "second", "BTC/USDT"),
        PositionKey("paper", "default", "BTC/USDT:USDT"),
        PositionKey("paper", "default", "BTC/USDT", "long"),
    ):
        assert reducible(held, key, Side.SELL) == 0


def test_what_may_be_reduced_is_exact_to_the_last_of_forty_digits() -> None:
    assert reducible(book(EXACT_LONG), KEY, Side.SELL).compare_total(EXACT_LONG) == 0
    assert reducible(book(f"-{EXACT_LONG}"), KEY, Side.BUY).compare_total(EXACT_LONG) == 0


@pytest.mark.parametrize(
    ("position", "buys", "sells", "worst"),
    [
        ("1", "2", "0", "3"),
        ("1", "0", "2", "1"),
        ("1", "0", "3", "2"),
        ("-1", "0", "2", "3"),
        ("-1", "4", "2", "3"),
        ("-1", "5", "2", "4"),
        ("0", "2", "3", "3"),
        ("0", "0", "0", "0"),
    ],
)
def test_the_worst_case_fills_one_side_whole_and_the_other_not_at_all(
    position: str, buys: str, sells: str, worst: str
) -> None:
    assert worst_amount(D(position), D(buys), D(sells)) == D(worst)


def test_the_worst_case_is_exact_to_the_last_of_forty_digits() -> None:
    assert worst_amount(EXACT_LONG, D(0), D(0)) == EXACT_LONG
    assert worst_amount(D(0), D(0), EXACT_LONG) == EXACT_LONG


@given(signed, amounts, amounts)
def test_no_order_of_fills_leaves_a_larger_position_than_the_worst_case(
    position: D, buys: D, sells: D
) -> None:
    worst = Fraction(worst_amount(position, buys, sells))
    for bought in (Fraction(0), Fraction(buys) / 2, Fraction(buys)):
        for sold in (Fraction(0), Fraction(sells) / 3, Fraction(sells)):
            assert abs(Fraction(position) + bought - sold) <= worst


def test_a_report_of_less_than_is_known_changes_nothing() -> None:
    known = hold(Side.BUY, 5, filled=D(3), state=HoldState.WORKING)

    assert filled(known, cumulative=D("2.999999"), average=D(9), fee=D(9)) is known


@pytest.mark.parametrize("state", [HoldState.HELD, HoldState.INTENDED])
def test_a_report_of_a_part_says_that_the_venue_has_the_order(state: HoldState) -> None:
    moved = filled(hold(Side.BUY, 5, state=state), cumulative=D(2), average=D(10), fee=D("0.1"))

    assert (moved.filled, moved.average_price, moved.fee) == (D(2), D(10), D("0.1"))
    assert moved.state is HoldState.WORKING


@pytest.mark.parametrize(
    "state", [HoldState.WORKING, HoldState.UNKNOWN, HoldState.RELEASED, HoldState.LAPSED]
)
def test_a_report_of_a_part_reopens_nothing(state: HoldState) -> None:
    moved = filled(hold(Side.BUY, 5, state=state), cumulative=D(2), average=D(10), fee=D(0))

    assert (moved.state, moved.filled) == (state, D(2))


@pytest.mark.parametrize("state", list(HoldState))
@pytest.mark.parametrize("cumulative", [D(5), D("5.1")])
def test_an_order_that_is_filled_whole_is_filled_whatever_it_was(
    state: HoldState, cumulative: D
) -> None:
    moved = filled(hold(Side.BUY, 5, state=state), cumulative=cumulative, average=D(10), fee=D(0))

    assert (moved.state, moved.filled, moved.remaining) == (HoldState.FILLED, cumulative, D(0))


def test_the_highest_fee_seen_counts_and_a_report_of_nothing_has_no_price() -> None:
    known = hold(Side.BUY, 5, fee=D(2), state=HoldState.WORKING)
    moved = filled(known, cumulative=D(0), average=D(10), fee=D(1))

    assert (moved.fee, moved.average_price) == (D(2), None)
    assert filled(known, cumulative=D(1), average=D(10), fee=D(3)).fee == 3


def moved_by(before: Position | None, side: Side, amount: object, price: object) -> Position:
    old = hold(side, amount)
    new = filled(old, cumulative=old.amount, average=D(str(price)), fee=D(0))
    return apply_fill(before, old, new, at_ms=7)


def at(amount: object, price: object = 100) -> Position:
    return Position(KEY, D(str(amount)), D(str(price)), 1, read_ms=3)


@pytest.mark.parametrize(
    ("before", "side", "amount", "price", "after", "entry"),
    [
        (None, Side.BUY, 2, 110, 2, 110),
        (None, Side.SELL, 2, 110, -2, 110),
        (at(0, 100), Side.BUY, 2, 110, 2, 110),
        (at(2), Side.BUY, 2, 110, 4, 105),
        (at(-2), Side.SELL, 2, 110, -4, 105),
        (at(2), Side.SELL, 1, 110, 1, 100),
        (at(-2), Side.BUY, 1, 110, -1, 100),
        (at(2), Side.SELL, 2, 110, 0, 0),
        (at(-2), Side.BUY, 2, 110, 0, 0),
        (at(2), Side.SELL, 3, 110, -1, 110),
        (at(-2), Side.BUY, 3, 110, 1, 110),
        (at(2), Side.SELL, 4, 110, -2, 110),
        (None, Side.BUY, 0, 110, 0, 0),
    ],
)
def test_the_entry_price_moves_when_a_position_grows_and_starts_anew_when_it_turns(
    before: Position | None, side: Side, amount: int, price: int, after: int, entry: int
) -> None:
    moved = moved_by(before, side, amount, price)

    assert (moved.key, moved.amount, moved.price, moved.updated_ms) == (KEY, after, entry, 7)
    assert moved.read_ms == (None if before is None else 3)


def test_a_second_report_is_priced_by_what_it_adds() -> None:
    first = filled(hold(Side.BUY, 4), cumulative=D(1), average=D(100), fee=D(0))
    second = filled(first, cumulative=D(3), average=D(120), fee=D(0))
    position = apply_fill(at(1, 100), first, second, at_ms=8)

    # Three at 120 on average, one of them at 100: the two others cost 130.
    assert position.amount == 3
    assert position.price == 120


def test_the_same_report_again_moves_nothing() -> None:
    known = filled(hold(Side.BUY, 4), cumulative=D(1), average=D(100), fee=D(0))

    assert apply_fill(at(1), known, known, at_ms=8).amount == 1
    assert apply_fill(at(1), known, known, at_ms=8).price == 100


def test_a_fill_without_a_price_is_counted_all_the_same() -> None:
    old = hold(Side.BUY, 4)
    new = hold(Side.BUY, 4, filled=D(2), average_price=None)

    assert apply_fill(None, old, new, at_ms=8).amount == 2


def test_an_average_that_does_not_end_is_kept_to_eighteen_decimals() -> None:
    assert moved_by(at(1, 100), Side.BUY, 2, 101).price == D("100.666666666666666667")


@given(st.lists(st.tuples(st.sampled_from(Side), amounts), max_size=8))
def test_a_position_is_the_exact_sum_of_its_fills(fills: list[tuple[Side, D]]) -> None:
    position: Position | None = None
    total = Fraction(0)
    for side, amount in fills:
        position = moved_by(position, side, amount, 100)
        total += side.sign * Fraction(amount)
        assert Fraction(position.amount) == total


def test_a_sell_of_forty_digits_closes_what_the_same_buy_opened() -> None:
    opened = moved_by(None, Side.BUY, EXACT_LONG, 100)

    assert moved_by(opened, Side.SELL, EXACT_LONG, 100).amount == 0
