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
from tinywindow.safety.services.breaker_scripts import (
    THINNING,
    UNWATCHED_MAX_MS,
    rules_text,
    trusted_age_ms,
)
from tinywindow.safety.services.flatten_lease import heart_beats, lease_name
from tinywindow.safety.services.times import to_ms

__all__ = ["Examination", "examine", "newest_row_ms", "settle"]

WALK_MAX: Final = 500
"""Marks walked by one check; the rest waits for the next, which follows at once."""
UNTHINNED_MS: Final = THINNING[0][0] - 3_600_000
"""How far behind a breaker that slept may be and still walk: older marks may be thinned out."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What one check found.

    Attributes:
        readings: all five metrics now.
        trip: the trip that stands.
        due: the breach that must be latched, with the readings of its moment; None without one.
        cursor: where the next check begins.
        whole: whether everything that is new was walked.
        owes: whether something else must be written.
        age_ms: how old the portfolio's equity is, where it may be believed; else None.
        cancelling: the venues where, since the trip, somebody cancels resting entry orders.
    """

    readings: Mapping[Metric, MetricReading]
    trip: Trip | None
    due: tuple[Breach, Mapping[Metric, MetricReading]] | None
    cursor: NavPoint
    whole: bool
    owes: bool
    age_ms: int | None
    cancelling: tuple[str, ...] = ()


def examine(
    tx: Tx, cursor: NavPoint | None, limits: BreakerLimits, now: datetime, *, day_may_roll: bool
) -> Examination:
    """Walk what is new since `cursor` and evaluate; writes nothing."""
    book, now_ms = tx.book(), to_ms(now)
    documents = book.documents
    current, waiting = nav_point(documents), unwatched(documents)
    begin = current
    if cursor is not None and _kept(tx, cursor, current, UNTHINNED_MS):
        begin = cursor
    if (
        waiting is not None
        and waiting.mark_id < begin.mark_id
        and _kept(tx, waiting, current, UNWATCHED_MAX_MS)
    ):
        begin = waiting
    reset = reset_mark(documents).point
    if reset.mark_id > begin.mark_id or (reset.mark_id and reset.mark_id == begin.mark_id):
        begin = reset
    due = None
    if begin.mark_id != current.mark_id:
        begin, due = _walk(tx, begin, current, limits, day_may_roll=day_may_roll)
    readings = evaluate(current.state, book.executions, limits, now_ms, day_may_roll=day_may_roll)
    found = breaches(readings)
    if due is None and found:
        due = (found[0], readings)
    return Examination(
        readings=readings,
        trip=book.trip,
        due=None if book.trip is not None else due,
        cursor=begin,
        whole=begin.mark_id == current.mark_id,
        owes=waiting is not None or _new_rules(documents, cursor, limits) is not None,
        age_ms=trusted_age_ms(current.state, now_ms, limits.nav),
        cancelling=() if book.trip is None else _cancelling(tx, book.trip, now_ms),
    )


def _kept(tx: Tx, point: NavPoint, current: NavPoint, span_ms: int) -> bool:
    """Whether what came after a point is so young that none of it was thinned out yet."""
    if point.mark_id >= current.mark_id:
        return True
    first = tx.marks(since_ms=0, after_id=point.mark_id, limit=1)
    return all(current.received_ms - mark.received_ms < span_ms for mark in first)


def _new_rules(
    documents: Mapping[str, str], cursor: NavPoint | None, limits: BreakerLimits
) -> str | None:
    """The rules to write: at a breaker's first check only, lest two that differ take turns."""
    text, found = rules_text(limits.nav), documents.get(NAV_RULES)
    return text if text != found and (cursor is None or found is None) else None


def _cancelling(tx: Tx, trip: Trip, now_ms: int) -> tuple[str, ...]:
    """The venues that a kill switch with exchanges has looked after since the trip."""
    return tuple(
        record.venue
        for record in tx.close_records()
        if record.updated_ms >= trip.tripped_ms
        or heart_beats(tx.lease(lease_name(record.venue)), now_ms=now_ms)
    )


def _walk(
    tx: Tx,
    point: NavPoint,
    current: NavPoint,
    limits: BreakerLimits,
    *,
    day_may_roll: bool,
) -> tuple[NavPoint, tuple[Breach, Mapping[Metric, MetricReading]] | None]:
    """Take on every mark after `point`, one by one; the first loss that breaches is due."""
    due = None
    executions = tx.book().executions
    rows = tx.marks(since_ms=0, after_id=point.mark_id, limit=WALK_MAX)
    for row in rows:
        mark = Mark(
            row.account, row.equity, row.cash_flow, row.at_ms, not row.trusted, row.received_ms
        )
        state = apply_mark(point.state, mark, limits.nav, day_may_roll=day_may_roll)
        if isinstance(state, MarkRefused):
            state = point.state
        point = point.moved(row.id, row.received_ms, state)
        if due is not None:
            continue
        readings = evaluate(state, executions, limits, row.received_ms, day_may_roll=day_may_roll)
        lost = [breach for breach in breaches(readings) if breach.metric in LOSSES]
        if lost:
            due = (lost[0], readings)
    whole = len(rows) < WALK_MAX or point.mark_id >= current.mark_id
    return (current if whole else point), due


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
        # Two checks may owe one row, and one that was cancelled may have written it: once by id.
        tx.outbox(row)
    if rows:
        tx.drain_outbox()
    rules = _new_rules(tx.book().documents, cursor, limits)
    if rules is not None:
        tx.put_document(NAV_RULES, rules)
    trip = seen.trip
    if seen.due is not None:
        breach, readings = seen.due
        draft = draft_trip(breach, readings, trip_id=trip_id, now=now, now_ms=to_ms(now))
        if tx.add_trip(draft.trip):
            tx.audit(draft.row)
            trip = draft.trip
    if tx.document(UNWATCHED):
        tx.put_document(UNWATCHED, "" if seen.whole else seen.cursor.to_text())
    return replace(seen, trip=trip, due=None, owes=False)


def newest_row_ms(tx: Tx) -> int | None:
    """When the newest mark, attempt or audit row was written, by the clock of then."""
    moments = [tx.newest_mark_ms(), tx.book().executions.fed_at_ms]
    moments.extend(to_ms(datetime.fromisoformat(row.time)) for row in tx.audit_tail(1))
    known = [moment for moment in moments if moment is not None]
    return max(known) if known else None
