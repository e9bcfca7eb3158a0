"""What the breaker keeps in the store as small JSON texts, by key; the same text is read once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

from tinywindow.safety.domain.audit import canonical_json
from tinywindow.safety.domain.nav_state import NavState

__all__ = [
    "NAV",
    "NAV_RULES",
    "RESET_MARK",
    "TRIP_RULES",
    "UNWATCHED",
    "WATCHES",
    "MarkIds",
    "NavPoint",
    "ResetMark",
    "entries_go_on_trip",
    "nav_point",
    "nav_state",
    "reset_mark",
    "trip_rules_text",
    "unwatched",
]

NAV: Final = "nav"
"""The NAV after the newest mark."""
RESET_MARK: Final = "breaker"
"""Through which attempt and which mark the last confirmed reset reached."""
WATCHES: Final = "equity_watch"
"""What each account's next mark is compared with; see `domain.equity_jump`."""
UNWATCHED: Final = "unwatched"
"""Where the breaker must begin to look: marks came in while nobody evaluated them."""
NAV_RULES: Final = "nav_rules"
"""When a day opens, for those who record marks without a breaker."""

TRIP_RULES: Final = "trip_rules"
"""What a trip asks of kill switches, as the breaker that came last was told."""


class MarkIds(NamedTuple):
    """The marks that something stands on; they are never thinned out. Zero where there is none."""

    trusted: int = 0
    peak: int = 0
    day: int = 0
    previous: int = 0


@dataclass(frozen=True, slots=True)
class NavPoint:
    """The NAV state after one mark.

    Attributes:
        mark_id: the mark; zero before the first.
        received_ms: when it came in.
        state: the NAV state after it.
        ids: the marks that peak and baselines stand on.
    """

    mark_id: int = 0
    received_ms: int = 0
    state: NavState = NavState()  # noqa: RUF009 - frozen, and nobody changes its empty mapping
    ids: MarkIds = MarkIds()  # noqa: RUF009 - a tuple

    def moved(self, mark_id: int, received_ms: int, state: NavState) -> NavPoint:
        """The point after one more mark."""
        before, ids = self.state, self.ids
        trusted = ids.trusted
        if state.trusted_nav != before.trusted_nav or state.trusted_at_ms != before.trusted_at_ms:
            trusted = mark_id
        peak = ids.peak if state.peak_nav == before.peak_nav else mark_id
        day, previous = ids.day, ids.previous
        if state.day.day != before.day.day:
            previous = day
            day = ids.trusted if state.day.nav == before.trusted_nav else mark_id
        elif state.day.nav != before.day.nav:
            day = mark_id
        return NavPoint(mark_id, received_ms, state, MarkIds(trusted, peak, day, previous))

    def rebased(self, state: NavState) -> NavPoint:
        """The same mark, with peak or baseline measured from it on."""
        return replace(self, state=state, ids=MarkIds(*(self.mark_id for _ in self.ids)))

    def retired(self, state: NavState) -> NavPoint:
        """The same mark, after an account has left; what was measured from stays."""
        return replace(self, state=state)

    def to_data(self) -> list[object]:
        """The point as JSON-ready data."""
        return [self.mark_id, self.received_ms, self.state.to_data(), list(self.ids)]

    def to_text(self) -> str:
        """The point as the text that the store keeps."""
        return canonical_json(self.to_data())

    @classmethod
    def from_data(cls, data: list[Any]) -> NavPoint:
        """Read back what `to_data` wrote."""
        mark_id, received_ms, state, ids = data
        return cls(mark_id, received_ms, NavState.from_data(state), MarkIds(*ids))


@dataclass(frozen=True, slots=True)
class ResetMark:
    """What a confirmed reset left behind: attempts and marks up to here trip nothing any more."""

    cleared_id: int
    point: NavPoint

    def to_text(self) -> str:
        """The mark as the text that the store keeps."""
        return canonical_json([self.cleared_id, self.point.to_data()])


@lru_cache(maxsize=8)
def _point(text: str) -> NavPoint:
    return NavPoint.from_data(json.loads(text))


@lru_cache(maxsize=8)
def _reset_mark(text: str) -> ResetMark:
    cleared_id, point = json.loads(text)
    return ResetMark(int(cleared_id), NavPoint.from_data(point))


_NO_MARK: Final = NavPoint()


def nav_point(documents: Mapping[str, str]) -> NavPoint:
    """The NAV after the newest mark; an empty one where there was none yet."""
    text = documents.get(NAV)
    return _NO_MARK if text is None else _point(text)


def nav_state(documents: Mapping[str, str]) -> NavState:
    """The NAV state after the newest mark."""
    return nav_point(documents).state


def reset_mark(documents: Mapping[str, str]) -> ResetMark:
    """How far the last confirmed reset reached; nowhere where there was none."""
    text = documents.get(RESET_MARK)
    return ResetMark(0, _NO_MARK) if text is None else _reset_mark(text)


def unwatched(documents: Mapping[str, str]) -> NavPoint | None:
    """Where the breaker must begin to look, or None where everything was evaluated."""
    text = documents.get(UNWATCHED)
    return _point(text) if text else None


def trip_rules_text(*, cancel_entries: bool) -> str:
    """The rules of a trip as the text that the store keeps."""
    return canonical_json({"cancel_entries": cancel_entries})


def entries_go_on_trip(documents: Mapping[str, str]) -> bool:
    """Whether a trip cancels resting entries; yes unless a breaker was told otherwise."""
    return documents.get(TRIP_RULES) != trip_rules_text(cancel_entries=False)
