"""Clock trust: when the wall clock is believed, and when it is again."""

from __future__ import annotations

import pytest

from tinywindow.safety.domain.clock_trust import (
    AGREEMENT_MS,
    DRIFT_MAX_MS,
    ClockTrust,
    observe,
    start,
    vouch,
)

WALL = 1_700_000_000_000
MONO = 5_000


def test_the_bounds_are_two_seconds_and_five_minutes() -> None:
    assert (DRIFT_MAX_MS, AGREEMENT_MS) == (2_000, 300_000)


def test_a_fresh_store_is_no_reason_for_doubt() -> None:
    assert start(WALL, MONO, newest_row_ms=None).trusted


@pytest.mark.parametrize(
    ("newest_row_ms", "trusted"),
    [
        (WALL, True),
        (WALL + DRIFT_MAX_MS, True),
        (WALL + DRIFT_MAX_MS + 1, False),
        (WALL - 7 * 86_400_000, True),
    ],
)
def test_start_compares_with_the_newest_row(newest_row_ms: int, *, trusted: bool) -> None:
    state = start(WALL, MONO, newest_row_ms=newest_row_ms)
    assert state.trusted is trusted
    assert bool(state.note) is not trusted


def test_the_note_says_how_far_the_clock_stands_before_the_newest_row() -> None:
    state = start(WALL, MONO, newest_row_ms=WALL + 3_600_050)
    assert state.note == "the wall clock stands 3600.050 s before the newest row"


@pytest.mark.parametrize("sign", [1, -1])
def test_two_seconds_are_borne_and_a_millisecond_more_is_not(sign: int) -> None:
    state = start(WALL, MONO, newest_row_ms=None)
    later_wall, later_mono = WALL + 60_000, MONO + 60_000
    assert observe(state, later_wall + sign * DRIFT_MAX_MS, later_mono).trusted
    jumped = observe(state, later_wall + sign * (DRIFT_MAX_MS + 1), later_mono)
    assert not jumped.trusted
    assert ("ahead of" if sign > 0 else "behind") in jumped.note


def test_small_steps_in_one_direction_add_up() -> None:
    state = start(WALL, MONO, newest_row_ms=None)
    for step in range(1, 4):
        state = observe(state, WALL + step * 1_700, MONO + step * 1_000)
    assert not state.trusted


def test_trust_returns_after_five_minutes_of_agreement_and_not_before() -> None:
    state = observe(start(WALL, MONO, newest_row_ms=None), WALL - 3_600_000, MONO)
    wall = WALL - 3_600_000
    state = observe(state, wall + AGREEMENT_MS - 1, MONO + AGREEMENT_MS - 1)
    assert not state.trusted
    state = observe(state, wall + AGREEMENT_MS, MONO + AGREEMENT_MS)
    assert state == ClockTrust(wall + AGREEMENT_MS, MONO + AGREEMENT_MS)


def test_another_jump_begins_the_five_minutes_anew() -> None:
    state = observe(start(WALL, MONO, newest_row_ms=None), WALL + 10_000, MONO)
    state = observe(state, WALL + AGREEMENT_MS, MONO + AGREEMENT_MS - 1)
    assert not state.trusted
    state = observe(state, WALL + AGREEMENT_MS + 1_000, MONO + AGREEMENT_MS + 999)
    assert not state.trusted
    state = observe(state, WALL + 2 * AGREEMENT_MS, MONO + 2 * AGREEMENT_MS - 1)
    assert state.trusted


def test_an_operator_may_vouch_for_the_clock() -> None:
    assert vouch(WALL, MONO) == ClockTrust(WALL, MONO)
