"""Windows over attempts: velocity, error rate, failure streak."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain import windows
from tinywindow.safety.domain.windows import (
    LAPSE_MS,
    WINDOW_MS,
    ErrorWindow,
    Execution,
    ExecutionBook,
    ExecutionKind,
    FailureStreak,
    Outcome,
    SlidingWindow,
    may_become,
)

NOW = 1_700_000_000_000
OK, FAILED, UNKNOWN = Outcome.OK, Outcome.FAILED, Outcome.UNKNOWN
PENDING, VOID = Outcome.PENDING, Outcome.VOID
ORDER, CANCEL = ExecutionKind.ORDER, ExecutionKind.CANCEL


def book_of(*rows: Execution) -> ExecutionBook:
    book = ExecutionBook()
    for row in rows:
        book.upsert(row)
    return book


def orders(*outcomes: Outcome, step_ms: int = 1) -> list[Execution]:
    return [
        Execution(number, ORDER, NOW + number * step_ms, outcome)
        for number, outcome in enumerate(outcomes, start=1)
    ]


def test_a_window_is_half_open() -> None:
    window = SlidingWindow()
    window.add(NOW)
    window.add(NOW)
    assert window.count(NOW + WINDOW_MS - 1) == 2
    assert window.count(NOW + WINDOW_MS) == 0
    assert window.count(NOW - 5) == 2
    window.discard(NOW)
    assert window.count(NOW) == 1


def test_the_error_window_counts_what_is_resolved_and_not_known_to_be_well() -> None:
    window = ErrorWindow()
    for outcome in Outcome:
        window.put(NOW, outcome)
    assert window.counts(NOW) == (3, 2)
    for outcome in Outcome:
        window.drop(NOW, outcome)
    assert window.counts(NOW) == (0, 0)


@pytest.mark.parametrize(
    ("outcomes", "length"),
    [
        ([FAILED] * 5, 5),
        ([FAILED, OK, FAILED], 1),
        ([FAILED, UNKNOWN, PENDING, VOID, FAILED], 2),
        ([FAILED, OK], 0),
        ([], 0),
    ],
)
def test_a_streak_is_failures_since_the_last_success(outcomes: list[Outcome], length: int) -> None:
    assert book_of(*orders(*outcomes)).streak(NOW) == length


def test_a_streak_lapses_a_day_after_the_last_order() -> None:
    book = book_of(*orders(FAILED, FAILED))
    assert book.streak(NOW + 2 + LAPSE_MS - 1) == 2
    assert book.streak(NOW + 2 + LAPSE_MS) == 0
    spaced = book_of(*orders(FAILED, FAILED, FAILED, step_ms=LAPSE_MS - 1))
    assert spaced.streak(NOW + 3 * LAPSE_MS) == 3
    apart = book_of(*orders(FAILED, FAILED, FAILED, step_ms=LAPSE_MS))
    assert apart.streak(NOW + 3 * LAPSE_MS) == 1


def test_an_attempt_without_a_known_outcome_keeps_a_streak_alive() -> None:
    book = book_of(*orders(FAILED, UNKNOWN, step_ms=LAPSE_MS - 1))
    assert book.streak(NOW + 2 * (LAPSE_MS - 1) + 1) == 1


def test_only_orders_make_a_streak_or_a_velocity() -> None:
    book = book_of(Execution(1, CANCEL, NOW, FAILED), Execution(2, ExecutionKind.DECISION, NOW, OK))
    assert (book.streak(NOW), book.velocity(NOW), book.errors(NOW)) == (0, 0, (2, 1))


def test_a_revision_counts_where_the_attempt_was_made() -> None:
    book = book_of(*orders(PENDING, FAILED))
    assert (book.velocity(NOW), book.errors(NOW), book.streak(NOW)) == (2, (1, 1), 1)
    book.upsert(Execution(1, ORDER, NOW + 1, UNKNOWN, NOW + 50))
    assert (book.velocity(NOW), book.errors(NOW), book.streak(NOW)) == (2, (2, 2), 1)
    book.upsert(Execution(1, ORDER, NOW + 1, FAILED, NOW + 90))
    assert (book.velocity(NOW), book.errors(NOW), book.streak(NOW)) == (2, (2, 2), 2)
    assert (book.fed_at_ms, book.last_id, book.size) == (NOW + 90, 2, 2)


def test_a_copy_goes_its_own_way() -> None:
    book = book_of(*orders(OK, FAILED, FAILED))
    book.clear_through(1)

    def shown(one: ExecutionBook) -> tuple[object, ...]:
        windows = (one.velocity(NOW), one.errors(NOW), one.streak(NOW), one.size)
        kept = (one.last_id, one.cleared_id, one.cleared_at_ms, one.fed_at_ms, one.orders_fed_at_ms)
        return (*windows, *kept, one.overflowed, one.unread, one.next_id)

    other = book.copied()
    before = shown(book)
    assert shown(other) == before
    other.upsert(Execution(other.next_id, ORDER, NOW + 9, PENDING))
    other.upsert(Execution(3, ORDER, NOW + 3, OK, NOW + 9))
    other.clear_until(NOW + 1)
    other.unread = other.overflowed = True
    assert shown(book) == before
    assert shown(other) != before
    book.unread = book.overflowed = True
    assert (book.copied().unread, book.copied().overflowed) == (True, True)


def test_the_next_id_counts_also_where_a_reset_cleared_more_than_was_read() -> None:
    book = book_of(*orders(OK))
    book.clear_through(7)
    book.upsert(Execution(book.next_id, ORDER, NOW, PENDING))
    assert (book.last_id, book.velocity(NOW)) == (8, 1)


def test_no_reset_makes_attempts_countable_that_were_not_read() -> None:
    book = ExecutionBook()
    assert not book.unread
    book.unread = True
    book.clear_through(5)
    book.clear_until(NOW)
    assert book.unread


def test_an_order_proven_unsent_returns_its_slot() -> None:
    book = book_of(*orders(PENDING))
    book.upsert(Execution(1, ORDER, NOW + 1, VOID, NOW + 2))
    assert (book.velocity(NOW), book.errors(NOW)) == (0, (0, 0))
    book.upsert(Execution(1, ORDER, NOW + 1, FAILED, NOW + 3))
    assert (book.velocity(NOW), book.errors(NOW), book.streak(NOW)) == (1, (1, 1), 1)
    book.clear_through(1)
    assert book.size == 0


@pytest.mark.parametrize(
    ("known", "may"),
    [
        (PENDING, {PENDING, OK, FAILED, UNKNOWN, VOID}),
        (UNKNOWN, {UNKNOWN, OK, FAILED}),
        (OK, {OK}),
        (FAILED, {FAILED}),
        (VOID, {VOID}),
    ],
)
def test_what_is_known_stays(known: Outcome, may: set[Outcome]) -> None:
    assert {new for new in Outcome if may_become(known, new)} == may


def test_a_reset_clears_by_id() -> None:
    book = book_of(*orders(FAILED, FAILED))
    book.clear_through(book.last_id)
    assert (book.velocity(NOW), book.errors(NOW), book.streak(NOW)) == (0, (0, 0), 0)
    book.upsert(Execution(2, ORDER, NOW + 2, OK, NOW + 5))
    book.upsert(Execution(3, ORDER, NOW + 2, FAILED))
    book.clear_through(1)
    assert (book.velocity(NOW), book.errors(NOW), book.streak(NOW)) == (1, (1, 1), 1)


def test_a_reset_clears_by_time() -> None:
    book = book_of(*orders(FAILED, FAILED, FAILED))
    book.clear_until(NOW + 2)
    book.clear_until(NOW)
    book.upsert(Execution(9, ORDER, NOW + 2, FAILED))
    assert (book.velocity(NOW), book.streak(NOW)) == (1, 1)


def test_what_cannot_be_kept_is_not_forgotten_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "ROWS_MAX", 4)
    monkeypatch.setattr(windows, "CROWDED", 2)
    book = book_of(*orders(OK, OK, OK, OK))
    assert not book.overflowed
    book.upsert(Execution(5, ORDER, NOW + 5, OK))
    book.upsert(Execution(6, ORDER, NOW + 6, OK))
    assert book.overflowed
    assert book.size == 4
    book.clear_through(6)
    assert not book.overflowed


def test_a_reset_that_was_seen_before_makes_no_book_countable_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "ROWS_MAX", 2)
    book = ExecutionBook()
    book.clear_through(3)
    book.clear_until(NOW)
    for number in range(4, 8):
        book.upsert(Execution(number, ORDER, NOW + number, OK))
    # Every refresh of the book says again how far the last reset reached.
    book.clear_through(3)
    book.clear_until(NOW)
    assert book.overflowed


def test_a_full_book_forgets_what_is_old_before_it_overflows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "ROWS_MAX", 4)
    monkeypatch.setattr(windows, "CROWDED", 4)
    kept_ms = windows.COUNT_RETENTION_MS
    ages_ms = (kept_ms + 2, kept_ms + 1, 2, 1)
    rows = [Execution(number, CANCEL, NOW - age, OK) for number, age in enumerate(ages_ms, 1)]
    book = book_of(*rows)
    book.upsert(Execution(5, CANCEL, NOW - 1, OK))
    # Of the first two, two hours before the newest is just not too old.
    assert (book.overflowed, book.size) == (False, 4)


def test_orders_alone_feed_velocity_and_streak() -> None:
    book = book_of(Execution(1, ORDER, NOW, PENDING))
    book.upsert(Execution(2, CANCEL, NOW + 9, OK))
    assert (book.orders_fed_at_ms, book.fed_at_ms) == (NOW, NOW + 9)
    book.upsert(Execution(1, ORDER, NOW, OK, NOW + 5))
    assert (book.orders_fed_at_ms, book.fed_at_ms) == (NOW + 5, NOW + 9)


def test_a_crowded_book_forgets_what_can_no_longer_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "CROWDED", 10)
    monkeypatch.setattr(windows, "STREAK_ORDERS", 3)
    book = ExecutionBook()
    step = WINDOW_MS // 4
    for number in range(1, 101):
        kind = ORDER if number % 10 == 0 else CANCEL
        book.upsert(Execution(number, kind, NOW + number * step, FAILED))
        at_ms = NOW + number * step
        assert book.errors(at_ms) == (min(number, 4), min(number, 4))
        assert book.streak(at_ms) == min(number // 10, book.streak(at_ms))
    assert book.size <= 30
    assert book.streak(NOW + 100 * step) >= 3


def test_a_streak_of_failures_days_long_outlives_the_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "CROWDED", 50)
    book = ExecutionBook()
    row_id = 0
    for day in range(6):
        row_id += 1
        book.upsert(Execution(row_id, ORDER, NOW + day * (LAPSE_MS - 1), FAILED))
        for number in range(100):
            row_id += 1
            book.upsert(Execution(row_id, CANCEL, NOW + day * (LAPSE_MS - 1) + number, OK))
    assert book.streak(NOW + 5 * (LAPSE_MS - 1)) == 6


rows = st.lists(
    st.tuples(
        st.integers(1, 12),
        st.sampled_from(list(ExecutionKind)),
        st.integers(0, 30).map(lambda step: NOW + step * (WINDOW_MS // 4)),
        st.sampled_from(list(Outcome)),
    ),
    max_size=60,
)


@given(rows, st.integers(0, 40), st.integers(0, 12), st.booleans())
def test_the_book_equals_a_naive_recount(
    changes: list[Any], later: int, cleared: int, clear_first: bool
) -> None:
    book, model = ExecutionBook(), {}
    if clear_first:
        book.clear_through(cleared)
    for row_id, kind, at_ms, outcome in changes:
        before = model.get(row_id)
        row = (
            Execution(row_id, kind, at_ms, outcome)
            if before is None
            else Execution(row_id, before.kind, before.at_ms, outcome, at_ms)
        )
        model[row_id] = row
        book.upsert(row)
        book.upsert(row)
    book.clear_through(cleared)
    now_ms = NOW + later * (WINDOW_MS // 4)
    counting = [row for row in model.values() if row.id > cleared]
    recent = [row for row in counting if now_ms - row.at_ms < WINDOW_MS]
    assert book.velocity(now_ms) == sum(
        row.kind is ORDER and row.outcome is not VOID for row in recent
    )
    attempted = sum(row.outcome in {OK, FAILED, UNKNOWN} for row in recent)
    assert book.errors(now_ms) == (
        attempted,
        sum(row.outcome in {FAILED, UNKNOWN} for row in recent),
    )
    assert book.streak(now_ms) == naive_streak(counting, now_ms)


def naive_streak(counting: list[Execution], now_ms: int) -> int:
    streak, before_ms = 0, None
    for row in sorted(counting, key=lambda row: (row.at_ms, row.id)):
        if row.kind is not ORDER or row.outcome is VOID:
            continue
        if before_ms is not None and row.at_ms - before_ms >= LAPSE_MS:
            streak = 0
        before_ms = row.at_ms
        streak = 0 if row.outcome is OK else streak + (row.outcome is FAILED)
    return 0 if before_ms is None or now_ms - before_ms >= LAPSE_MS else streak


def test_a_streak_alone_counts_and_takes_back() -> None:
    streak = FailureStreak()
    streak.put(NOW, 1, FAILED)
    streak.put(NOW, 2, VOID)
    streak.drop(NOW, 2, VOID)
    assert (streak.length(NOW), streak.newest(5)) == (1, {1})
    streak.drop(NOW, 1, FAILED)
    assert streak.length(NOW) == 0


def test_a_check_costs_the_same_however_long_history_is() -> None:
    """Counted in rows read, not in seconds: the streak is remembered between changes."""
    book = book_of(*(Execution(n, ORDER, NOW + n, FAILED) for n in range(1, 3_000)))
    assert book.streak(NOW) == 2_999
    counted: list[int] = []
    original = FailureStreak._counted
    try:
        FailureStreak._counted = lambda self: counted.append(1) or original(self)  # type: ignore[method-assign,func-returns-value]
        for _ in range(100):
            assert book.streak(NOW) == 2_999
    finally:
        FailureStreak._counted = original  # type: ignore[method-assign]
    assert not counted
