"""The breaker's documents: what the NAV, its peak and its baselines stand on, kept as text."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal as D

import pytest

from tinywindow.safety.domain.breaker_documents import (
    NAV,
    NAV_RULES,
    RESET_MARK,
    TRIP_RULES,
    UNWATCHED,
    WATCHES,
    MarkIds,
    NavPoint,
    ResetMark,
    entries_go_on_trip,
    nav_point,
    nav_state,
    reset_mark,
    trip_rules_text,
    unwatched,
)
from tinywindow.safety.domain.nav_state import AccountMark, DayBaseline, NavState

NOW = 1_700_000_000_000
DAY_MS = 86_400_000


def state(
    nav: str, at_ms: int, *, peak: str | None = None, day: int = 1, opened: str | None = None
) -> NavState:
    """A state whose newest mark is trusted."""
    return NavState(
        accounts={"default": AccountMark(D(nav), at_ms, trusted=True, counted=True)},
        units=D(1),
        nav=D(nav),
        peak_nav=D(peak or nav),
        peak_since_ms=0,
        trusted_at_ms=at_ms,
        trusted_nav=D(nav),
        day=DayBaseline(day, day * DAY_MS, D(opened or nav), at_ms),
        fed_at_ms=at_ms,
    )


FIRST = NavPoint().moved(1, NOW, state("100", 10))


def test_peak_baseline_and_trust_stand_on_the_first_trusted_mark() -> None:
    assert NavPoint(1, NOW, state("100", 10), MarkIds(1, 1, 1, 0)) == FIRST


def test_a_worse_mark_moves_trust_only() -> None:
    point = FIRST.moved(2, NOW, state("90", 20, peak="100", opened="100"))

    assert point.ids == MarkIds(trusted=2, peak=1, day=1, previous=0)


def test_a_mark_that_is_not_trusted_moves_nothing() -> None:
    untrusted = replace(FIRST.state, nav=D(90), fed_at_ms=20)

    assert FIRST.moved(2, NOW + 1, untrusted) == NavPoint(2, NOW + 1, untrusted, FIRST.ids)


def test_the_same_nav_later_is_another_trusted_mark() -> None:
    later = replace(FIRST.state, trusted_at_ms=20)

    assert FIRST.moved(2, NOW, later).ids.trusted == 2


def test_a_higher_mark_moves_the_peak() -> None:
    assert FIRST.moved(2, NOW, state("110", 20, opened="100")).ids == MarkIds(2, 2, 1, 0)


def test_a_new_day_stands_on_the_trusted_mark_before_it() -> None:
    low = FIRST.moved(2, NOW, state("90", 20, peak="100", opened="100"))
    point = low.moved(3, NOW, state("95", 30, peak="100", day=2, opened="90"))

    assert point.ids == MarkIds(trusted=3, peak=1, day=2, previous=1)


def test_a_new_day_without_a_mark_before_it_stands_on_its_first() -> None:
    point = FIRST.moved(2, NOW, state("95", 20, peak="100", day=2, opened="95"))

    assert point.ids == MarkIds(trusted=2, peak=1, day=2, previous=1)


def test_a_baseline_that_rises_stands_on_the_mark_that_raised_it() -> None:
    point = FIRST.moved(2, NOW, state("105", 20, opened="105"))

    assert point.ids == MarkIds(2, 2, 2, 0)


def test_a_rebaseline_stands_on_the_mark_it_was_made_at() -> None:
    point = FIRST.moved(2, NOW, state("90", 20, peak="100", opened="100"))
    rebased = point.rebased(state("90", 20))

    assert rebased == NavPoint(2, NOW, state("90", 20), MarkIds(2, 2, 2, 2))


@pytest.mark.parametrize("point", [NavPoint(), FIRST])
def test_points_and_reset_marks_survive_the_store_whole(point: NavPoint) -> None:
    mark = ResetMark(7, point)
    documents = {NAV: point.to_text(), RESET_MARK: mark.to_text(), UNWATCHED: point.to_text()}

    assert nav_point(documents) == point
    assert nav_state(documents) == point.state
    assert reset_mark(documents) == mark
    assert unwatched(documents) == point
    assert NavPoint.from_data(point.to_data()) == point


def test_an_empty_store_has_no_mark_no_reset_and_nothing_unwatched() -> None:
    assert nav_point({}) == NavPoint()
    assert nav_state({}) == NavState()
    assert reset_mark({}) == ResetMark(0, NavPoint())
    assert unwatched({}) is None
    assert unwatched({UNWATCHED: ""}) is None


def test_the_same_text_is_read_once() -> None:
    documents = {NAV: FIRST.to_text(), RESET_MARK: ResetMark(1, FIRST).to_text()}

    assert nav_point(documents) is nav_point(dict(documents))
    assert reset_mark(documents) is reset_mark(dict(documents))


def test_the_keys_are_all_different() -> None:
    assert len({NAV, NAV_RULES, RESET_MARK, TRIP_RULES, UNWATCHED, WATCHES}) == 6


def test_before_the_first_mark_nothing_stands_on_any() -> None:
    point = NavPoint()
    assert (point.mark_id, point.received_ms, tuple(point.ids)) == (0, 0, (0, 0, 0, 0))


def test_an_account_that_leaves_moves_nothing_that_marks_stand_on() -> None:
    later = state("120", NOW + 1)
    assert FIRST.retired(later) == replace(FIRST, state=later)


def test_a_trip_cancels_entries_unless_a_breaker_was_told_otherwise() -> None:
    assert entries_go_on_trip({})
    assert entries_go_on_trip({TRIP_RULES: "garbage"})
    assert entries_go_on_trip({TRIP_RULES: trip_rules_text(cancel_entries=True)})
    assert not entries_go_on_trip({TRIP_RULES: trip_rules_text(cancel_entries=False)})
