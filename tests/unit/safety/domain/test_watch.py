"""What the breaker says to one order, and what equity the limits may rely on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tinywindow.safety.domain.book import Book, Changes
from tinywindow.safety.domain.breaker import BreakerLimits, Metric
from tinywindow.safety.domain.breaker_documents import (
    NAV,
    RESET_MARK,
    MarkIds,
    NavPoint,
    ResetMark,
    nav_point,
    nav_state,
    reset_mark,
    unwatched,
)
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.domain.nav import apply_mark
from tinywindow.safety.domain.nav_state import Mark, MarkRefused, NavConfig, NavState
from tinywindow.safety.domain.records import Head, TradingState
from tinywindow.safety.domain.watch import draft_trip, equity_view, watch_breaker
from tinywindow.safety.domain.windows import Execution, ExecutionKind, Outcome

NOW = 1_700_000_000_000
HEAD = Head(1, 0, TradingState.RUNNING, 0, "0" * 64, 0)
LIMITS = BreakerLimits()


def state_of(*equities: str, at_ms: int = NOW, estimated: bool = False) -> NavState:
    state = NavState()
    for equity in equities:
        mark = Mark("default", Decimal(equity), Decimal(0), at_ms, estimated, at_ms)
        moved = apply_mark(state, mark, NavConfig())
        assert not isinstance(moved, MarkRefused)
        state = moved
    return state


def book_of(state: NavState, *attempts: Execution) -> Book:
    book = Book(HEAD)
    documents = ((NAV, NavPoint(1, NOW, state).to_text()),)
    book.apply(Changes(HEAD, executions=attempts, documents=documents))
    return book


def orders(count: int, outcome: Outcome = Outcome.OK) -> list[Execution]:
    return [
        Execution(number, ExecutionKind.ORDER, NOW - 1_000, outcome)
        for number in range(1, count + 1)
    ]


def test_a_quiet_book_refuses_nothing() -> None:
    view = watch_breaker(book_of(state_of("100")), LIMITS, NOW)
    assert view.refusals_of_entry == ()
    assert view.breach is None


@pytest.mark.parametrize(
    "state", [NavState(), state_of("100", at_ms=NOW - 60_001), state_of("100", estimated=True)]
)
def test_a_loss_that_cannot_be_measured_refuses_entries_and_trips_nothing(state: NavState) -> None:
    view = watch_breaker(book_of(state), LIMITS, NOW)
    assert {breach.code for breach in view.refusals_of_entry} == {Reason.METRIC_UNKNOWN}
    assert view.refusals_of_entry[0].limit == 60
    assert view.breach is None


def test_a_mark_of_exactly_the_greatest_age_still_counts() -> None:
    view = watch_breaker(book_of(state_of("100", at_ms=NOW - 60_000)), LIMITS, NOW)
    assert view.refusals_of_entry == ()


@pytest.mark.parametrize(("sent", "refused"), [(49, False), (50, True), (51, True)])
def test_the_order_that_would_be_the_51st_is_refused_and_trips(sent: int, *, refused: bool) -> None:
    view = watch_breaker(book_of(state_of("100"), *orders(sent)), LIMITS, NOW)
    assert [breach.code for breach in view.refusals_of_entry] == (
        [Reason.TRADE_VELOCITY] if refused else []
    )
    assert (view.breach is not None) is refused
    if view.breach is not None:
        assert view.breach.metric is Metric.TRADE_VELOCITY
        assert view.refusals_of_entry[0].sentence == view.breach.sentence


def test_an_order_that_has_its_slot_already_is_not_counted_twice() -> None:
    book = book_of(state_of("100"), *orders(50))
    assert watch_breaker(book, LIMITS, NOW, asking=0).refusals_of_entry == ()


def test_an_order_proven_unsent_takes_no_slot() -> None:
    book = book_of(state_of("100"), *orders(50))
    book.executions.upsert(Execution(7, ExecutionKind.ORDER, NOW - 1_000, Outcome.VOID, NOW))
    assert watch_breaker(book, LIMITS, NOW).refusals_of_entry == ()


def test_a_breach_that_stands_refuses_and_is_the_one_to_latch() -> None:
    book = book_of(state_of("100", "90"), *orders(50))
    view = watch_breaker(book, LIMITS, NOW)
    assert [breach.code for breach in view.refusals_of_entry] == [
        Reason.CIRCUIT_BREAKER_TRIPPED,
        Reason.TRADE_VELOCITY,
    ]
    assert view.breach is not None
    assert view.breach.metric is Metric.DAILY_PNL
    assert view.refusals_of_entry[0].observed == -10


def test_the_failure_streak_stands_in_the_way_too() -> None:
    book = book_of(state_of("100"), *orders(5, Outcome.FAILED))
    view = watch_breaker(book, LIMITS, NOW)
    assert view.refusals_of_entry[0].code is Reason.CIRCUIT_BREAKER_TRIPPED
    assert view.refusals_of_entry[0].message.startswith("CONSECUTIVE_FAILURES: ")


def test_a_trip_carries_value_limit_and_all_five_readings() -> None:
    view = watch_breaker(book_of(state_of("100", "80")), LIMITS, NOW)
    assert view.breach is not None
    draft = draft_trip(
        view.breach,
        view.readings,
        trip_id="t",
        now=datetime(2026, 1, 1, tzinfo=UTC),
        now_ms=NOW,
        order_id="o",
    )
    assert (draft.trip.metric, draft.trip.value, draft.trip.limit) == ("daily_pnl", "-20", "-10")
    assert draft.trip.tripped_ms == NOW
    assert draft.row.id == draft.trip.id == "t"
    assert draft.row.order_id == "o"
    assert draft.row.data["reason"] == draft.trip.sentence
    metrics = draft.row.data["metrics"]
    assert isinstance(metrics, dict)
    assert set(metrics) == {metric.value for metric in Metric}
    assert metrics["drawdown"] == {"value": "-20", "limit": "-15", "state": "BREACHED"}


def test_a_reset_mark_clears_attempts_in_every_book_that_reads_it() -> None:
    book = book_of(state_of("100"), *orders(5, Outcome.FAILED))
    mark = ResetMark(5, NavPoint())
    book.apply(Changes(HEAD, documents=((RESET_MARK, mark.to_text()),)))
    assert watch_breaker(book, LIMITS, NOW).refusals_of_entry == ()
    assert reset_mark(book.documents) == mark


def test_equity_is_known_while_every_account_is_trusted_and_fresh() -> None:
    documents = book_of(state_of("123.45")).documents
    view = equity_view(documents, NOW + 60_000, 60_000)
    assert view.known
    assert view.equity == Decimal("123.45")
    for age_ms in (0, 1, 2_001, -2_000):
        assert equity_view(documents, NOW + age_ms, 60_000).known


def test_an_account_that_was_counted_and_is_estimated_now_is_not_relied_on() -> None:
    estimated = Mark("default", Decimal(90), Decimal(0), NOW, estimated=True, received_ms=NOW)
    state = apply_mark(state_of("100"), estimated, NavConfig())
    assert not isinstance(state, MarkRefused)
    assert state.accounts["default"].counted
    assert not equity_view(book_of(state).documents, NOW, 60_000).known


@pytest.mark.parametrize(
    ("state", "now_ms", "note"),
    [
        (NavState(), NOW, "no equity mark yet"),
        (state_of("1"), NOW + 60_001, "no equity mark of the last 60 s"),
        (state_of("1"), NOW - 2_001, "no equity mark of the last 60 s"),
        (state_of("1", estimated=True), NOW, "is not trusted"),
    ],
)
def test_equity_is_not_known(state: NavState, now_ms: int, note: str) -> None:
    view = equity_view(book_of(state).documents, now_ms, 60_000)
    assert not view.known
    assert note in view.note


def test_without_documents_everything_is_at_its_beginning() -> None:
    assert nav_point({}) == NavPoint()
    assert nav_state({}) == NavState()
    assert reset_mark({}).cleared_id == 0
    assert unwatched({}) is None
    assert unwatched({"unwatched": ""}) is None


def test_a_point_remembers_the_marks_that_something_stands_on() -> None:
    first = NavPoint().moved(1, NOW, state_of("100"))
    assert first.ids == MarkIds(trusted=1, peak=1, day=1)
    second = first.moved(2, NOW, state_of("100", "95"))
    assert second.ids == MarkIds(trusted=2, peak=1, day=1)
    next_day = apply_mark(
        second.state,
        Mark("default", Decimal(96), Decimal(0), NOW + 86_400_000, False, NOW + 86_400_000),
        NavConfig(),
    )
    assert not isinstance(next_day, MarkRefused)
    third = second.moved(3, NOW + 86_400_000, next_day)
    assert third.ids.previous == 1
    assert third.ids.peak == 1
    assert NavPoint.from_data(third.to_data()) == third


def test_a_day_that_is_not_believed_erases_no_loss_for_an_order() -> None:
    book = book_of(state_of("100", "90"))
    later_ms = NOW + 86_400_000
    held = watch_breaker(book, LIMITS, later_ms, day_may_roll=False)
    assert held.breach is not None
    assert held.breach.metric is Metric.DAILY_PNL
    assert watch_breaker(book, LIMITS, later_ms).breach is None


def test_a_peak_or_baseline_that_is_new_stands_on_its_mark() -> None:
    first = NavPoint().moved(1, NOW, state_of("100"))
    again = first.moved(2, NOW, first.state)
    assert again.ids == first.ids
    higher = first.moved(3, NOW, state_of("100", "110"))
    assert higher.ids == MarkIds(trusted=3, peak=3, day=1)
    day = replace(first.state.day, nav=Decimal(105))
    raised = first.moved(4, NOW, replace(first.state, day=day))
    assert raised.ids == MarkIds(trusted=1, peak=1, day=4)


def test_a_day_that_opens_on_its_own_first_mark_stands_on_it() -> None:
    first = NavPoint().moved(1, NOW, state_of("100"))
    day = replace(first.state.day, day=first.state.day.day + 1, nav=Decimal(120))
    opened = first.moved(2, NOW, replace(first.state, day=day))
    assert opened.ids == MarkIds(trusted=1, peak=1, day=2, previous=1)
    day = replace(day, nav=Decimal(100))
    opened = first.moved(2, NOW, replace(first.state, day=day))
    assert opened.ids == MarkIds(trusted=1, peak=1, day=1, previous=1)


def test_after_a_rebaseline_everything_stands_on_the_newest_mark() -> None:
    point = NavPoint(7, NOW, state_of("100"), MarkIds(1, 2, 3, 4)).rebased(state_of("50"))
    assert point == NavPoint(7, NOW, state_of("50"), MarkIds(7, 7, 7, 7))
