"""The kill switch's states, and the laws by which stops join."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain.kill import (
    TRANSITIONS,
    KillEvent,
    KillState,
    KillSwitchMode,
    Latch,
    LatchSource,
    effective_mode,
    join,
    step,
)
from tinywindow.safety.errors import InvariantBroken

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HALT, CLOSE = KillSwitchMode.HALT_ONLY, KillSwitchMode.CLOSE_POSITIONS


def latch(latch_id: str, mode: KillSwitchMode = HALT, released: int | None = None) -> Latch:
    made = Latch(latch_id, mode, "why", "who", LatchSource.PYTHON, NOW)
    if released is None:
        return made
    at = NOW + timedelta(seconds=released)
    return replace(made, released_at=at, released_by="op", release_reason="done")


latches = st.frozensets(
    st.builds(
        latch,
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from([HALT, CLOSE]),
        st.one_of(st.none(), st.integers(0, 3)),
    ),
    max_size=5,
)


@given(latches, latches, latches)
def test_joining_stops_is_associative(
    a: frozenset[Latch], b: frozenset[Latch], c: frozenset[Latch]
) -> None:
    assert join(join(a, b), c) == join(a, join(b, c))


@given(latches, latches)
def test_joining_stops_commutes(a: frozenset[Latch], b: frozenset[Latch]) -> None:
    assert join(a, b) == join(b, a)


@given(latches)
def test_joining_stops_twice_changes_nothing(a: frozenset[Latch]) -> None:
    once = join(a, ())
    assert join(once, once) == once
    assert join(once, a) == once


@given(latches, latches)
def test_a_tombstone_wins_over_the_same_latch_standing(
    a: frozenset[Latch], b: frozenset[Latch]
) -> None:
    joined = {found.id: found for found in join(a, b)}
    for known in (*a, *b):
        if not known.standing:
            assert not joined[known.id].standing


@given(latches, st.sampled_from([HALT, CLOSE]))
def test_one_more_stop_never_weakens_the_mode(a: frozenset[Latch], mode: KillSwitchMode) -> None:
    before = effective_mode(join(a, ()))
    after = effective_mode(join(a, [latch("new", mode)]))
    assert after is not None
    assert before is None or after.rank >= before.rank


def test_the_mode_in_force_is_the_strongest_that_stands() -> None:
    assert effective_mode([]) is None
    assert effective_mode([latch("a"), latch("b", CLOSE)]) is CLOSE
    assert effective_mode([latch("a"), latch("b", CLOSE, released=1)]) is HALT
    assert effective_mode([latch("b", CLOSE, released=1)]) is None


EXPECTED = {
    "a halt from rest halts": ("INACTIVE", "HALT", "HALTED"),
    "a close from rest closes": ("INACTIVE", "CLOSE", "CLOSING"),
    "a release at rest is harmless": ("INACTIVE", "RELEASED", "INACTIVE"),
    "a halt while halted changes nothing": ("HALTED", "HALT", "HALTED"),
    "a halt escalates": ("HALTED", "CLOSE", "CLOSING"),
    "a halt is released": ("HALTED", "RELEASED", "INACTIVE"),
    "a halt does not stop a close": ("CLOSING", "HALT", "CLOSING"),
    "a second close joins the first": ("CLOSING", "CLOSE", "CLOSING"),
    "a close ends flat": ("CLOSING", "PROVEN_FLAT", "FLAT"),
    "a close goes on while it is not flat": ("CLOSING", "NOT_FLAT", "CLOSING"),
    "a close that takes too long is incomplete": ("CLOSING", "DEADLINE", "INCOMPLETE"),
    "a close is released by force": ("CLOSING", "RELEASED", "INACTIVE"),
    "a halt does not mend an incomplete close": ("INCOMPLETE", "HALT", "INCOMPLETE"),
    "a new close begins an incomplete one anew": ("INCOMPLETE", "CLOSE", "CLOSING"),
    "an incomplete close may still end flat": ("INCOMPLETE", "PROVEN_FLAT", "FLAT"),
    "an incomplete close stays so": ("INCOMPLETE", "NOT_FLAT", "INCOMPLETE"),
    "a deadline passes once": ("INCOMPLETE", "DEADLINE", "INCOMPLETE"),
    "an incomplete close is released by force": ("INCOMPLETE", "RELEASED", "INACTIVE"),
    "a halt leaves what is flat": ("FLAT", "HALT", "FLAT"),
    "a new close proves flat again": ("FLAT", "CLOSE", "CLOSING"),
    "flat stays flat": ("FLAT", "PROVEN_FLAT", "FLAT"),
    "a position that appears is closed": ("FLAT", "NOT_FLAT", "CLOSING"),
    "what is flat is released": ("FLAT", "RELEASED", "INACTIVE"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_transition(name: str) -> None:
    before, event, after = EXPECTED[name]
    assert step(KillState(before), KillEvent(event)) is KillState(after)


def test_every_transition_is_named_and_nothing_else_can_happen() -> None:
    named = {(KillState(b), KillEvent(e)) for b, e, _ in EXPECTED.values()}
    assert named == set(TRANSITIONS)
    for pair in product(KillState, KillEvent):
        if pair not in named:
            with pytest.raises(InvariantBroken):
                step(*pair)


def test_of_two_tombstones_the_earlier_release_counts_and_names_break_ties() -> None:
    latch = Latch("K1", HALT, "why", "who", LatchSource.CLI, NOW)
    early = replace(latch, released_at=NOW + timedelta(seconds=1), released_by="a")
    late = replace(latch, released_at=NOW + timedelta(seconds=2), released_by="z")
    same = replace(early, released_by="b")
    nobody = replace(early, released_by=None)
    for first, second, kept in (
        (early, late, early),
        (early, same, same),
        (nobody, early, early),
    ):
        assert join([first], [second]) == join([second], [first]) == frozenset({kept})
