"""The book: moved on by changes, it is always what the whole history would make of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal as D
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain.book import Book, Changes, DecisionIds, DecisionView, Draft, OpenSums
from tinywindow.safety.domain.breaker_documents import RESET_MARK, NavPoint, ResetMark
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.domain.order import OrderType, PositionKey, Side
from tinywindow.safety.domain.records import (
    Head,
    Hold,
    HoldState,
    Position,
    ReferencePrice,
    TradingState,
    Trip,
)
from tinywindow.safety.domain.windows import Execution, ExecutionKind, Outcome

HEAD = Head(1, 0, TradingState.RUNNING, 0, "0" * 64, 0)
KEY = PositionKey("paper", "default", "BTC/USDT")
OTHER = PositionKey("paper", "default", "ETH/USDT")
NOW = 1_700_000_000_000


def hold(name: str, side: Side = Side.BUY, amount: object = 1, **changes: Any) -> Hold:
    fields: dict[str, Any] = {
        "client_order_id": name,
        "key": KEY,
        "side": side,
        "type": OrderType.LIMIT if "price" in changes else OrderType.MARKET,
        "amount": D(str(amount)),
        "price": None,
        "state": HoldState.HELD,
        "created_ms": NOW,
        **changes,
    }
    return Hold(**fields)


def book(*holds: Hold, positions: tuple[Position, ...] = ()) -> Book:
    made = Book(HEAD)
    made.apply(Changes(HEAD, holds=holds, positions=positions))
    return made


def test_a_fresh_book_holds_nothing() -> None:
    assert book().keys() == set()
    assert book().position_amount(KEY) == 0


def test_open_orders_are_added_up_by_side_with_the_dearest_limit() -> None:
    made = book(
        hold("a", amount=1, price=D(90)),
        hold("b", amount=2, price=D(110)),
        hold("c", Side.SELL, 4, price=D(100)),
        hold("d", Side.SELL, 5),
        hold("e", amount=7, key=OTHER),
    )
    assert made.sums == {KEY: OpenSums(D(3), D(9), D(110)), OTHER: OpenSums(D(7), D(0), None)}
    assert set(made.by_key) == {KEY, OTHER}
    assert set(made.holds) == set("abcde")


@pytest.mark.parametrize("end", [HoldState.FILLED, HoldState.RELEASED, HoldState.LAPSED])
def test_an_order_that_ended_holds_nothing_and_leaves_no_trace(end: HoldState) -> None:
    one, two = hold("a", amount=1, price=D(110)), hold("b", amount=2, price=D(90))
    made = book(one, two)

    made.apply(Changes(HEAD, holds=(replace(one, state=end),)))
    assert made.sums == {KEY: OpenSums(D(2), D(0), D(90))}
    made.apply(Changes(HEAD, holds=(replace(two, state=end),)))
    assert (made.holds, made.by_key, made.sums) == ({}, {}, {})


def test_an_end_of_an_order_that_was_never_seen_changes_nothing() -> None:
    made = book(hold("a"))
    made.apply(Changes(HEAD, holds=(hold("x", 5, state=HoldState.FILLED),)))
    made.apply(Changes(HEAD, holds=(hold("y", 5, state=HoldState.LAPSED, key=OTHER),)))

    assert (set(made.holds), set(made.by_key), set(made.sums)) == ({"a"}, {KEY}, {KEY})


def test_the_same_order_again_is_counted_once() -> None:
    one = hold("a", amount=3)
    made = book(one, one, replace(one, state=HoldState.INTENDED))

    assert made.sums[KEY] == OpenSums(D(3), D(0), None)
    assert made.holds["a"].state is HoldState.INTENDED


def test_a_partial_fill_leaves_what_remains() -> None:
    one = hold("a", amount=3)
    made = book(one)
    made.apply(Changes(HEAD, holds=(replace(one, filled=D(1), state=HoldState.WORKING),)))

    assert made.sums[KEY].buys == 2


@pytest.mark.parametrize("state", list(HoldState))
def test_what_may_still_fill_is_nothing_once_an_order_has_ended(state: HoldState) -> None:
    ended = state in {HoldState.FILLED, HoldState.RELEASED, HoldState.LAPSED}

    assert state.open is not ended
    assert hold("a", amount=3, filled=D(1), state=state).remaining == (0 if ended else 2)
    assert hold("a", amount=3, filled=D(3), state=state).remaining == 0
    assert hold("a", amount=3, filled=D(4), state=state).remaining == 0


def test_what_may_still_fill_is_exact_to_the_last_of_forty_digits() -> None:
    amount = D("1234567890.123456789012345678901234567891")

    assert hold("a", amount=amount).remaining == amount
    assert book(hold("a", amount=amount), hold("b", amount=amount)).sums[KEY].buys == D(
        "2469135780.246913578024691357802469135782"
    )


def test_a_position_of_nothing_is_no_position() -> None:
    made = book(positions=(Position(KEY, D(2), D(100), NOW), Position(OTHER, D(0), D(0), NOW)))
    assert made.keys() == {KEY}
    assert made.position_amount(KEY) == 2

    made.apply(Changes(HEAD, positions=(Position(KEY, D("0.00"), D(0), NOW),)))
    assert made.positions == {}
    assert made.position_amount(KEY) == 0


def test_a_key_is_whatever_is_held_or_could_be() -> None:
    made = book(hold("a", key=OTHER), positions=(Position(KEY, D(-2), D(100), NOW),))

    assert made.keys() == {KEY, OTHER}


def test_stops_are_replaced_whole_and_stay_when_nothing_is_said_of_them() -> None:
    made = book()
    latch = Latch(
        "l1",
        KillSwitchMode.HALT_ONLY,
        "why",
        "who",
        LatchSource.CLI,
        datetime(2024, 1, 1, tzinfo=UTC),
    )
    trip = Trip("t1", "drawdown", "-15", "-15", "a sentence", NOW)
    made.apply(Changes(HEAD, latches=(latch,), trip=(trip,)))
    made.apply(Changes(HEAD))
    assert (made.latches, made.trip) == ((latch,), trip)

    made.apply(Changes(HEAD, latches=(), trip=()))
    assert (made.latches, made.trip) == ((), None)


def test_the_newest_price_head_and_document_count() -> None:
    made = book()
    head = replace(HEAD, version=9)
    prices = (ReferencePrice("BTC/USDT", D(1), NOW), ReferencePrice("BTC/USDT", D(2), NOW))
    made.apply(Changes(HEAD, prices=prices, documents=(("k", "1"), ("o", "1"))))
    made.apply(Changes(head, documents=(("k", "2"),)))

    assert made.prices["BTC/USDT"].price == 2
    assert (made.head, made.documents) == (head, {"k": "2", "o": "1"})


def test_a_reset_clears_the_attempts_that_it_reached() -> None:
    made = book()
    attempts = tuple(Execution(n, ExecutionKind.ORDER, NOW, Outcome.OK) for n in (1, 2, 3))
    made.apply(Changes(HEAD, executions=attempts))
    assert made.executions.velocity(NOW) == 3

    made.apply(Changes(HEAD, documents=((RESET_MARK, ResetMark(2, NavPoint()).to_text()),)))
    assert made.executions.velocity(NOW) == 1


def test_a_decision_sees_the_book_and_what_its_ids_stand_for() -> None:
    made = book()
    assert DecisionIds("c1").decision_id is None
    assert DecisionView(made, None, decision_spent=False).book is made
    assert Draft("result").audit == ()
    assert not Draft("result").entry


names = st.sampled_from("abcdef")
amounts = st.decimals(min_value="0.001", max_value=100, places=3)
sides: dict[str, Side] = {name: Side.BUY if name in "abc" else Side.SELL for name in "abcdef"}
keys = {name: KEY if name in "adbe" else OTHER for name in "abcdef"}


@st.composite
def revisions(draw: st.DrawFn) -> Hold:
    """A hold of one of six names; its key, side and amount belong to the name."""
    name = draw(names)
    return hold(
        name,
        sides[name],
        amount=10,
        key=keys[name],
        price={"a": D(90), "c": D(120), "e": D(100)}.get(name),
        state=draw(st.sampled_from(list(HoldState))),
        filled=draw(st.decimals(min_value=0, max_value=11, places=2)),
    )


@given(st.lists(revisions(), max_size=40), st.integers(min_value=1, max_value=7))
def test_a_book_moved_on_in_steps_is_the_one_rebuilt_from_scratch(
    history: list[Hold], step: int
) -> None:
    moved = Book(HEAD)
    for start in range(0, len(history), step):
        moved.apply(Changes(HEAD, holds=tuple(history[start : start + step])))
    last = {one.client_order_id: one for one in history}
    rebuilt = book(*(one for one in last.values() if one.state.open))

    assert moved.holds == rebuilt.holds
    assert moved.by_key == rebuilt.by_key
    assert moved.sums == rebuilt.sums
    for key, sums in moved.sums.items():
        own = [one for one in moved.holds.values() if one.key == key]
        for side, known in ((Side.BUY, sums.buys), (Side.SELL, sums.sells)):
            left = sum(Fraction(one.remaining) for one in own if one.side is side)
            assert Fraction(known) == left
        assert sums.price_max == max(
            (one.price for one in own if one.price is not None), default=None
        )


@given(
    st.lists(st.tuples(st.sampled_from([KEY, OTHER]), st.integers(-3, 3)), max_size=20),
    st.integers(min_value=1, max_value=5),
)
def test_positions_moved_on_in_steps_are_the_newest_of_each(
    history: list[tuple[PositionKey, int]], step: int
) -> None:
    rows = [Position(key, D(amount), D(1), NOW) for key, amount in history]
    moved = Book(HEAD)
    for start in range(0, len(rows), step):
        moved.apply(Changes(HEAD, positions=tuple(rows[start : start + step])))

    assert moved.positions == {row.key: row for row in rows if dict(history)[row.key] == row.amount
                               and not row.amount.is_zero()}  # fmt: skip


@given(
    st.permutations([hold(n, sides[n], amount=i + 1, key=keys[n]) for i, n in enumerate("abcdef")])
)
def test_the_order_in_which_holds_come_in_does_not_matter(shuffled: list[Hold]) -> None:
    in_turn = book(*sorted(shuffled, key=lambda one: one.client_order_id))

    assert book(*shuffled).sums == in_turn.sums
    assert book(*shuffled).holds == in_turn.holds


def test_what_is_drafted_on_a_copy_shows_nowhere_else() -> None:
    book = Book(HEAD)
    price = ReferencePrice("BTC/USDT", D(100), NOW)
    attempt = Execution(1, ExecutionKind.ORDER, NOW, Outcome.PENDING)
    book.apply(Changes(HEAD, holds=(hold("a"),), prices=(price,), documents=(("k", "1"),)))
    other = book.copied()
    assert other == replace(book, executions=other.executions)
    other.apply(
        Changes(
            replace(HEAD, version=2),
            holds=(hold("b"), hold("a", state=HoldState.RELEASED)),
            positions=(Position(KEY, D(1), D(100), NOW),),
            prices=(replace(price, price=D(1)),),
            executions=(attempt,),
            documents=(("k", "2"),),
        )
    )
    assert (book.head, set(book.holds), book.positions) == (HEAD, {"a"}, {})
    assert (set(book.by_key[KEY]), book.sums[KEY].buys) == ({"a"}, D(1))
    assert (book.prices["BTC/USDT"], book.documents, book.executions.size) == (price, {"k": "1"}, 0)
    assert (set(other.by_key[KEY]), other.executions.size) == ({"b"}, 1)
