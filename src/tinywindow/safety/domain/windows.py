"""Windows over what was attempted: orders, cancels and decision requests.

An attempt has an identity and may be revised: it is PENDING when it is made, and its outcome
becomes known later, or is found out after it was UNKNOWN. The book mirrors the rows of the store,
and counts each of them where it belongs, in O(log n) for each change:

    velocity     orders within the hour that are not VOID
    error rate   everything within the hour that is OK, FAILED or UNKNOWN; the last two failed
    streak       orders in the order in which they were made: FAILED lengthens, OK ends it, and
                 what is PENDING or UNKNOWN does neither; a day without an order ends it too

A window is half open: what is exactly an hour old no longer counts. What is ahead of the clock
does. Times are Unix milliseconds in UTC.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = [
    "ErrorWindow",
    "Execution",
    "ExecutionBook",
    "ExecutionKind",
    "FailureStreak",
    "Outcome",
    "SlidingWindow",
    "may_become",
]

WINDOW_MS: Final = 3_600_000
"""How long an attempt counts toward velocity and error rate."""
LAPSE_MS: Final = 86_400_000
"""How long without an order a failure streak is remembered."""
ROWS_MAX: Final = 100_000
"""Attempts kept; one more is not kept, and the book is `overflowed` from then on."""
CROWDED: Final = 4_096
"""Attempts below which nothing is forgotten, whatever its age."""
COUNT_RETENTION_MS: Final = 2 * WINDOW_MS
"""Of a crowded book, the age up to which cancels and decision requests are kept."""
STREAK_ORDERS: Final = 2_048
"""Of a crowded book, the number of newest orders that are kept, whatever their age."""


class ExecutionKind(StrEnum):
    """The calls that trading depends on."""

    ORDER = "order"
    CANCEL = "cancel"
    DECISION = "decision"


class Outcome(StrEnum):
    """What became of an attempt; VOID is proven never to have been sent."""

    PENDING = "PENDING"
    OK = "OK"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"
    VOID = "VOID"


_REVISIONS: Final[dict[Outcome, frozenset[Outcome]]] = {
    Outcome.PENDING: frozenset({Outcome.OK, Outcome.FAILED, Outcome.UNKNOWN, Outcome.VOID}),
    Outcome.UNKNOWN: frozenset({Outcome.OK, Outcome.FAILED}),
    Outcome.OK: frozenset(),
    Outcome.FAILED: frozenset(),
    Outcome.VOID: frozenset(),
}
"""What an outcome may become. What is known stays."""

_ATTEMPTED: Final = frozenset({Outcome.OK, Outcome.FAILED, Outcome.UNKNOWN})
_FAILED: Final = frozenset({Outcome.FAILED, Outcome.UNKNOWN})


def may_become(known: Outcome, new: Outcome) -> bool:
    """Say whether a writer may revise an attempt's outcome; saying it again is always allowed."""
    return new is known or new in _REVISIONS[known]


@dataclass(frozen=True, slots=True)
class Execution:
    """One attempt. `id` is the store's and grows; `resolved_ms` is when its outcome was known."""

    id: int
    kind: ExecutionKind
    at_ms: int
    outcome: Outcome
    resolved_ms: int | None = None


class SlidingWindow:
    """How many moments lie within the last `length_ms` milliseconds."""

    __slots__ = ("_length_ms", "_times")

    def __init__(self, length_ms: int = WINDOW_MS) -> None:
        self._length_ms = length_ms
        self._times: list[int] = []

    def copied(self) -> SlidingWindow:
        """One that goes its own way from here."""
        other = SlidingWindow(self._length_ms)
        other._times = self._times.copy()
        return other

    def add(self, at_ms: int) -> None:
        """Count a moment; the same one may be counted several times."""
        insort(self._times, at_ms)

    def discard(self, at_ms: int) -> None:
        """Take back one count of a moment that was added."""
        del self._times[bisect_left(self._times, at_ms)]

    def count(self, now_ms: int) -> int:
        """The number of moments later than `now_ms` less the window's length."""
        return len(self._times) - bisect_right(self._times, now_ms - self._length_ms)


class ErrorWindow:
    """How many attempts of the last hour are resolved, and how many of these failed."""

    __slots__ = ("_attempted", "_failed")

    def __init__(self) -> None:
        self._attempted = SlidingWindow()
        self._failed = SlidingWindow()

    def copied(self) -> ErrorWindow:
        """One that goes its own way from here."""
        other = ErrorWindow()
        other._attempted, other._failed = self._attempted.copied(), self._failed.copied()
        return other

    def put(self, at_ms: int, outcome: Outcome) -> None:
        """Count an attempt, if its outcome counts."""
        if outcome in _ATTEMPTED:
            self._attempted.add(at_ms)
        if outcome in _FAILED:
            self._failed.add(at_ms)

    def drop(self, at_ms: int, outcome: Outcome) -> None:
        """Take back what `put` did."""
        if outcome in _ATTEMPTED:
            self._attempted.discard(at_ms)
        if outcome in _FAILED:
            self._failed.discard(at_ms)

    def counts(self, now_ms: int) -> tuple[int, int]:
        """Attempted and failed within the last hour."""
        return self._attempted.count(now_ms), self._failed.count(now_ms)


class FailureStreak:
    """How many orders failed in a row, in the order in which they were made."""

    __slots__ = ("_known", "_orders")

    def __init__(self) -> None:
        self._orders: list[tuple[int, int, Outcome]] = []
        self._known: int | None = 0

    def copied(self) -> FailureStreak:
        """One that goes its own way from here."""
        other = FailureStreak()
        other._orders, other._known = self._orders.copy(), self._known
        return other

    def put(self, at_ms: int, row_id: int, outcome: Outcome) -> None:
        """Take an order in; a VOID one was never made."""
        if outcome is not Outcome.VOID:
            insort(self._orders, (at_ms, row_id, outcome))
            self._known = None

    def drop(self, at_ms: int, row_id: int, outcome: Outcome) -> None:
        """Take back what `put` did."""
        if outcome is not Outcome.VOID:
            del self._orders[bisect_left(self._orders, (at_ms, row_id, outcome))]
            self._known = None

    def length(self, now_ms: int) -> int:
        """The streak at `now_ms`; zero once the last order is a day old."""
        if not self._orders or now_ms - self._orders[-1][0] >= LAPSE_MS:
            return 0
        if self._known is None:
            self._known = self._counted()
        return self._known

    def newest(self, count: int) -> frozenset[int]:
        """The ids of the newest `count` orders."""
        return frozenset(row_id for _, row_id, _ in self._orders[-count:])

    def _counted(self) -> int:
        failed, later_ms = 0, self._orders[-1][0]
        for at_ms, _, outcome in reversed(self._orders):
            if outcome is Outcome.OK or later_ms - at_ms >= LAPSE_MS:
                break
            failed += outcome is Outcome.FAILED
            later_ms = at_ms
        return failed


class ExecutionBook:
    """All attempts that may still count, by their ids.

    Attributes:
        overflowed: an attempt could not be kept, so that nobody can count any more: the three
            metrics then read as breached until a reset clears them.
        unread: the attempts were left in the database, so that nobody can count here; no reset
            changes that.
        fed_at_ms: when the newest attempt was made or resolved; None before the first.
        orders_fed_at_ms: the same of orders alone, which velocity and streak are fed by.
        last_id: the highest id seen; what a confirmed reset clears through.
        cleared_id: attempts up to this id no longer count.
        cleared_at_ms: attempts made up to this moment no longer count.
    """

    __slots__ = (
        "_crowded_at",
        "_errors",
        "_rows",
        "_streak",
        "_velocity",
        "cleared_at_ms",
        "cleared_id",
        "fed_at_ms",
        "last_id",
        "orders_fed_at_ms",
        "overflowed",
        "unread",
    )

    def __init__(self) -> None:
        self.overflowed = False
        self.unread = False
        self.fed_at_ms: int | None = None
        self.orders_fed_at_ms: int | None = None
        self.last_id = 0
        self.cleared_id = 0
        self.cleared_at_ms = -1
        self._rows: dict[int, Execution] = {}
        self._velocity = SlidingWindow()
        self._errors = ErrorWindow()
        self._streak = FailureStreak()
        self._crowded_at = CROWDED

    def copied(self) -> ExecutionBook:
        """One that goes its own way from here; costs a few lists, however they were filled."""
        other = ExecutionBook()
        other.overflowed, other.unread = self.overflowed, self.unread
        other.fed_at_ms, other.orders_fed_at_ms = self.fed_at_ms, self.orders_fed_at_ms
        other.last_id = self.last_id
        other.cleared_id, other.cleared_at_ms = self.cleared_id, self.cleared_at_ms
        other._crowded_at = self._crowded_at
        other._rows = self._rows.copy()
        other._velocity, other._errors = self._velocity.copied(), self._errors.copied()
        other._streak = self._streak.copied()
        return other

    @property
    def next_id(self) -> int:
        """An id that counts, and that no attempt seen has."""
        return max(self.last_id, self.cleared_id) + 1

    @property
    def size(self) -> int:
        """The number of attempts kept."""
        return len(self._rows)

    def upsert(self, row: Execution) -> None:
        """Take in an attempt, or its revision; the same row again changes nothing."""
        self.last_id = max(self.last_id, row.id)
        moment_ms = row.at_ms if row.resolved_ms is None else row.resolved_ms
        self.fed_at_ms = _later(self.fed_at_ms, moment_ms)
        if row.kind is ExecutionKind.ORDER:
            self.orders_fed_at_ms = _later(self.orders_fed_at_ms, moment_ms)
        known = self._rows.get(row.id)
        if not self._counts(row) or row == known:
            return
        if known is not None:
            self._drop(known)
        elif not self.overflowed and len(self._rows) >= self._crowded_at:
            self._forget_old()
        if len(self._rows) >= ROWS_MAX:
            self.overflowed = True
            return
        self._put(row)

    def _put(self, row: Execution) -> None:
        self._rows[row.id] = row
        self._errors.put(row.at_ms, row.outcome)
        if row.kind is ExecutionKind.ORDER:
            self._streak.put(row.at_ms, row.id, row.outcome)
            if row.outcome is not Outcome.VOID:
                self._velocity.add(row.at_ms)

    def clear_through(self, row_id: int) -> None:
        """Stop counting every attempt up to this id: an operator has confirmed a reset."""
        if row_id > self.cleared_id:
            self.cleared_id = row_id
            self._clear()

    def clear_until(self, at_ms: int) -> None:
        """Stop counting every attempt made up to this moment.

        What is attempted later in the same millisecond is not counted either, nor what a clock
        that is set back stamps as earlier; `clear_through` knows the difference.
        """
        if at_ms > self.cleared_at_ms:
            self.cleared_at_ms = at_ms
            self._clear()

    def _clear(self) -> None:
        self.overflowed = False
        self._keep([row for row in self._rows.values() if self._counts(row)])

    def _counts(self, row: Execution) -> bool:
        return row.id > self.cleared_id and row.at_ms > self.cleared_at_ms

    def velocity(self, now_ms: int) -> int:
        """Orders sent, or about to be, within the last hour."""
        return self._velocity.count(now_ms)

    def errors(self, now_ms: int) -> tuple[int, int]:
        """Attempted and failed calls within the last hour."""
        return self._errors.counts(now_ms)

    def streak(self, now_ms: int) -> int:
        """Order sends that failed in a row."""
        return self._streak.length(now_ms)

    def _drop(self, row: Execution) -> None:
        del self._rows[row.id]
        self._errors.drop(row.at_ms, row.outcome)
        if row.kind is ExecutionKind.ORDER:
            self._streak.drop(row.at_ms, row.id, row.outcome)
            if row.outcome is not Outcome.VOID:
                self._velocity.discard(row.at_ms)

    def _forget_old(self) -> None:
        """Forget what can no longer count, as the newest attempt's time tells it."""
        newest_ms = max(row.at_ms for row in self._rows.values())
        kept = self._streak.newest(STREAK_ORDERS)
        oldest_ms = newest_ms - COUNT_RETENTION_MS
        self._keep([row for row in self._rows.values() if row.at_ms >= oldest_ms or row.id in kept])

    def _keep(self, rows: list[Execution]) -> None:
        """Count these and no others; in the order of time every insertion is an append."""
        self._rows = {}
        self._velocity, self._errors, self._streak = SlidingWindow(), ErrorWindow(), FailureStreak()
        for row in sorted(rows, key=lambda row: (row.at_ms, row.id)):
            self._put(row)
        self._crowded_at = min(ROWS_MAX, max(CROWDED, 2 * len(rows)))


def _later(known_ms: int | None, moment_ms: int) -> int:
    return moment_ms if known_ms is None else max(known_ms, moment_ms)
