"""A check of the breaker: what is new since the last one, walked mark by mark, and evaluated.

A check reads on a snapshot and takes no lock; only what has to be written needs a transaction.
Its cost depends on what is new, never on the length of history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from tinywindow.safety.domain.audit import AuditDraft
from tinywindow.safety.domain.breaker import (
    LOSSES,
    Breach,
    BreakerLimits,
    Metric,
    MetricReading,
    breaches,
    evaluate,
)
from tinywindow.safety.domain.breaker_documents import (
    NAV_RULES,
    UNWATCHED,
    NavPoint,
    nav_point,
    reset_mark,
    unwatched,
)
from tinywindow.safety.domain.nav import apply_mark
from tinywindow.safety.domain.nav_state import Mark, MarkRefused
from tinywindow.safety.domain.records import Trip
from tinywindow.safety.domain.watch import draft_trip
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.breaker_scripts import rules_text, trusted_age_ms
from tinywindow.safety.services.times import to_ms

__all__ = ["Examination", "examine", "newest_row_ms", "settle"]

WALK_MAX: Final = 20_000
"""Marks walked by one check; the rest waits for the next."""
OVERLAP_MS: Final = 60_000
"""How far back marks are looked for, beyond the newest known: clocks may be set back a little."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What one check found.

    Attributes:
        readings: all five metrics now.
        trip: the trip that stands.
        due: the breach that must be latched, with the readings of its moment; None without one.
        cursor: where the next check begins.
        owes: whether something else must be written.
        age_ms: how old the portfolio's equity is, where it may be believed; else None.
    """

    readings: Mapping[Metric, MetricReading]
    trip: Trip | None
    due: tuple[Breach, Mapping[Metric, MetricReading]] | None
    cursor: NavPoint
    owes: bool
    age_ms: int | None


def examine(
    tx: Tx, cursor: NavPoint | None, limits: BreakerLimits, now: datetime, *, day_may_roll: bool
) -> Examination:
    """Walk what is new since `cursor` and evaluate; writes nothing."""
    book, now_ms = tx.book(), to_ms(now)
    documents = book.documents
    current, waiting = nav_point(documents), unwatched(documents)
    begin = current if cursor is None else cursor
    if waiting is not None and waiting.mark_id < begin.mark_id:
        begin = waiting
    reset = reset_mark(documents).point
    if reset.mark_id > begin.mark_id or (reset.mark_id and reset.mark_id == begin.mark_id):
        begin = reset
    due = None
    if begin.mark_id != current.mark_id:
        begin, due = _walk(tx, begin, current, limits, now_ms, day_may_roll=day_may_roll)
    readings = evaluate(current.state, book.executions, limits, now_ms, day_may_roll=day_may_roll)
    found = breaches(readings)
    if due is None and found:
        due = (found[0], readings)
    return Examination(
        readings=readings,
        trip=book.trip,
        due=None if book.trip is not None else due,
        cursor=begin,
        owes=waiting is not None or _rules_differ(documents, limits),
        age_ms=trusted_age_ms(current.state, now_ms, limits.nav),
    )


def _rules_differ(documents: Mapping[str, str], limits: BreakerLimits) -> bool:
    text = rules_text(limits.nav)
    return text is not None and documents.get(NAV_RULES) != text


def _walk(
    tx: Tx,
    point: NavPoint,
    current: NavPoint,
    limits: BreakerLimits,
    now_ms: int,
    *,
    day_may_roll: bool,
) -> tuple[NavPoint, tuple[Breach, Mapping[Metric, MetricReading]] | None]:
    """Take on every mark after `point`, one by one; the first loss that breaches is due."""
    due = None
    executions = tx.book().executions
    since_ms = min(point.received_ms, now_ms) - OVERLAP_MS
    rows = [row for row in tx.marks(since_ms=since_ms, limit=WALK_MAX) if row.id > point.mark_id]
    for row in rows:
        mark = Mark(
            row.account, row.equity, row.cash_flow, row.at_ms, not row.trusted, row.received_ms
        )
        state = apply_mark(point.state, mark, limits.nav, day_may_roll=day_may_roll)
        if isinstance(state, MarkRefused):
            continue
        point = point.moved(row.id, row.received_ms, state)
        if due is not None:
            continue
        readings = evaluate(state, executions, limits, row.received_ms, day_may_roll=day_may_roll)
        lost = [breach for breach in breaches(readings) if breach.metric in LOSSES]
        if lost:
            due = (lost[0], readings)
    return (current if len(rows) < WALK_MAX else point), due


def settle(
    tx: Tx,
    cursor: NavPoint | None,
    limits: BreakerLimits,
    now: datetime,
    *,
    day_may_roll: bool,
    trip_id: str,
    rows: Sequence[AuditDraft],
) -> Examination:
    """Examine again under the lock, latch what is due, and write what is owed."""
    seen = examine(tx, cursor, limits, now, day_may_roll=day_may_roll)
    for row in rows:
        tx.audit(row)
    text = rules_text(limits.nav)
    if text is not None and tx.document(NAV_RULES) != text:
        tx.put_document(NAV_RULES, text)
    trip = seen.trip
    if seen.due is not None:
        breach, readings = seen.due
        draft = draft_trip(breach, readings, trip_id=trip_id, now=now, now_ms=to_ms(now))
        if tx.add_trip(draft.trip):
            tx.audit(draft.row)
            trip = draft.trip
    if tx.document(UNWATCHED):
        tx.put_document(UNWATCHED, "")
    return replace(seen, trip=trip, due=None, owes=False)


def newest_row_ms(tx: Tx) -> int | None:
    """When the newest mark, attempt or audit row was written, by the clock of then."""
    moments = [tx.newest_mark_ms(), tx.book().executions.fed_at_ms]
    moments.extend(to_ms(datetime.fromisoformat(row.time)) for row in tx.audit_tail(1))
    known = [moment for moment in moments if moment is not None]
    return max(known) if known else None
