"""The breaker's transaction scripts: record what happened, and trip in the same transaction.

Each script is a plain function over a `Tx`. What it records is evaluated at once, so that a
breach between two checks trips even if it has recovered by the next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from tinywindow.safety.domain.audit import AuditDraft, EventType, canonical_json
from tinywindow.safety.domain.breaker import BreakerLimits, breaches, evaluate
from tinywindow.safety.domain.breaker_documents import (
    NAV,
    NAV_RULES,
    UNWATCHED,
    WATCHES,
    NavPoint,
    nav_point,
    unwatched,
)
from tinywindow.safety.domain.equity_jump import (
    EquityWatch,
    judged,
    passed_over,
    snapshot,
    watches_of,
    watches_text,
)
from tinywindow.safety.domain.money import plain
from tinywindow.safety.domain.nav import apply_mark
from tinywindow.safety.domain.nav_state import (
    Mark,
    MarkRefused,
    NavConfig,
    NavState,
    Trust,
    is_trusted,
    trust_of,
)
from tinywindow.safety.domain.records import MarkRecord, ReferencePrice, Trip
from tinywindow.safety.domain.trading_day import DayRule
from tinywindow.safety.domain.watch import draft_trip, readings_data
from tinywindow.safety.domain.windows import ExecutionKind, Outcome, may_become
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.times import from_ms, to_ms

__all__ = [
    "Attempt",
    "MarkResult",
    "latch_fault",
    "outcome_of",
    "record_attempt",
    "record_mark",
    "rules_text",
    "trip_if_breached",
    "trusted_age_ms",
]

ACTOR: Final = "circuit-breaker"

THIN_EVERY: Final = 5_000
"""Marks between two thinnings."""
THINNING: Final = ((25 * 3_600_000, 60_000), (30 * 86_400_000, 3_600_000))
"""How marks are thinned with age: beyond 25 h one a minute stays, beyond 30 days one an hour.

What no breaker has looked at yet waits for it, but for no longer than a week.
"""
UNWATCHED_MAX_MS: Final = 7 * 86_400_000
_OUTCOMES: Final[Mapping[bool | None, Outcome]] = {
    True: Outcome.OK,
    False: Outcome.FAILED,
    None: Outcome.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class MarkResult:
    """What became of a mark.

    Attributes:
        trust: whether it was believed, and why not.
        refused: why it was not taken on at all; empty when it was.
        trip: the trip that it caused; None when it caused none.
        age_ms: how old the portfolio's equity is now, where it may be believed; else None.
    """

    trust: Trust
    refused: str = ""
    trip: Trip | None = None
    age_ms: int | None = None


def record_mark(
    tx: Tx,
    *,
    equity: Decimal,
    cash_flow: Decimal,
    account: str,
    at: datetime,
    now: datetime,
    estimated: bool,
    new_id: Callable[[], str],
    limits: BreakerLimits | None = None,
    day_may_roll: bool = True,
    prices: Sequence[ReferencePrice] = (),
) -> MarkResult:
    """Record an equity mark: judge it, move the NAV on, evaluate, and trip if that breaches.

    Args:
        tx: the transaction.
        equity: cash and positions at market value in USD, after `cash_flow`.
        cash_flow: what was paid in since the account's mark before, in USD.
        account: whose equity.
        at: when it was true.
        now: our wall clock.
        estimated: whether some position had no fresh price.
        new_id: makes unique row ids.
        limits: the breaker's thresholds; without them the mark waits for the breaker's next
            check, which evaluates each that came in so.
        day_may_roll: False while the wall clock is not believed.
        prices: reference prices that are set in the same transaction.
    """
    now_ms = to_ms(now)
    mark = Mark(account, equity, cash_flow, to_ms(at), estimated, now_ms)
    book = tx.book()
    before = nav_point(book.documents)
    config = _stored_rules(tx) if limits is None else limits.nav
    watches = watches_of(book.documents.get(WATCHES))
    watch, trust, note = _judge(
        tx, mark, watches.get(account, EquityWatch()), config, {one.symbol: one for one in prices}
    )
    after = apply_mark(
        before.state,
        mark,
        config,
        unexplained_jump=trust is Trust.UNEXPLAINED_JUMP,
        day_may_roll=day_may_roll,
    )
    if isinstance(after, MarkRefused):
        tx.audit(_untrusted_row(mark, now, new_id(), after.reason))
        return MarkResult(trust, after.reason)
    if trust is not Trust.TRUSTED and not watch.streak:
        tx.audit(_untrusted_row(mark, now, new_id(), note))
    watch = replace(watch, streak=trust is not Trust.TRUSTED)
    tx.put_document(WATCHES, watches_text({**watches, account: watch}))
    point = _write(tx, mark, trust, before, after)
    if limits is None:
        if not tx.document(UNWATCHED):
            tx.put_document(UNWATCHED, before.to_text())
        return MarkResult(trust, age_ms=trusted_age_ms(after, now_ms, config))
    trip = trip_if_breached(
        tx, point.state, limits, now=now, trip_id=new_id(), day_may_roll=day_may_roll
    )
    return MarkResult(trust, trip=trip, age_ms=trusted_age_ms(after, now_ms, config))


def trusted_age_ms(state: NavState, now_ms: int, config: NavConfig) -> int | None:
    """How old the oldest account's mark is, where the portfolio may be believed; else None."""
    if not is_trusted(state, now_ms, config):
        return None
    return max(0, now_ms - min(mark.at_ms for mark in state.accounts.values()))


def _judge(
    tx: Tx,
    mark: Mark,
    watch: EquityWatch,
    config: NavConfig,
    prices: Mapping[str, ReferencePrice],
) -> tuple[EquityWatch, Trust, str]:
    trust = trust_of(mark, mark.received_ms, config)
    if trust is not Trust.TRUSTED:
        return passed_over(watch, cash_flow=mark.cash_flow), trust, trust.value
    seen = snapshot(tx.book(), mark.account, mark.equity, mark.at_ms, prices=prices)
    watch, note = judged(watch, seen, cash_flow=mark.cash_flow)
    return watch, Trust.UNEXPLAINED_JUMP if note else trust, note


def _write(tx: Tx, mark: Mark, trust: Trust, before: NavPoint, after: NavState) -> NavPoint:
    record = MarkRecord(
        id=0,
        account=mark.account,
        equity=mark.equity,
        cash_flow=mark.cash_flow,
        at_ms=mark.at_ms,
        received_ms=mark.received_ms,
        trusted=trust is Trust.TRUSTED,
        nav=after.nav,
    )
    point = before.moved(tx.add_mark(record), mark.received_ms, after)
    tx.put_document(NAV, point.to_text())
    if point.mark_id % THIN_EVERY == 0:
        waiting = unwatched(tx.book().documents)
        kept_ms = mark.received_ms - UNWATCHED_MAX_MS
        for age_ms, keep_every_ms in THINNING:
            before_ms = mark.received_ms - age_ms
            if waiting is not None and waiting.received_ms < before_ms:
                before_ms = min(before_ms, max(waiting.received_ms, kept_ms))
            tx.thin_marks(
                before_ms=before_ms,
                keep_every_ms=keep_every_ms,
                keep_ids=point.ids,
            )
    return point


def _untrusted_row(mark: Mark, now: datetime, row_id: str, note: str) -> AuditDraft:
    data = {
        "account": mark.account,
        "equity": plain(mark.equity),
        "cash_flow": plain(mark.cash_flow),
        "reason": note,
    }
    return AuditDraft(row_id, now, EventType.MARK_UNTRUSTED, ACTOR, data)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call that trading depends on, and what became of it."""

    kind: ExecutionKind
    outcome: Outcome
    at_ms: int
    client_order_id: str | None = None


def record_attempt(
    tx: Tx,
    attempt: Attempt,
    *,
    limits: BreakerLimits,
    now: datetime,
    trip_id: str,
    day_may_roll: bool = True,
) -> Trip | None:
    """Record an attempt, or revise the one with its order id; evaluate, and trip on a breach.

    What is already known of an attempt stays: saying it again changes nothing. What is said to
    lie ahead of our clock was made now: else it would count for as long as it lies ahead.
    """
    order_id, outcome = attempt.client_order_id, attempt.outcome
    known = None if order_id is None else tx.execution(order_id)
    if known is None and outcome is Outcome.VOID:
        return None
    if known is None or (known.outcome is not outcome and may_become(known.outcome, outcome)):
        row = tx.put_execution(
            kind=(attempt.kind if known is None else known.kind).value,
            at_ms=min(attempt.at_ms, to_ms(now)),
            outcome=outcome,
            resolved_ms=None if outcome is Outcome.PENDING else to_ms(now),
            client_order_id=order_id,
        )
        # The transaction's book is of its beginning; a fault after this line forgets it whole.
        tx.book().executions.upsert(row)
    state = nav_point(tx.book().documents).state
    return trip_if_breached(tx, state, limits, now=now, trip_id=trip_id, day_may_roll=day_may_roll)


def outcome_of(ok: object) -> Outcome:
    """What a caller says of an attempt, told by identity: 1 and 0 are no truth values here.

    Raises:
        ValueError: it is neither True, False nor None.
    """
    for value, outcome in _OUTCOMES.items():
        if ok is value:
            return outcome
    raise ValueError(f"ok is {ok!r}; wanted True, False or None")


def trip_if_breached(
    tx: Tx,
    state: NavState,
    limits: BreakerLimits,
    *,
    now: datetime,
    trip_id: str,
    day_may_roll: bool,
) -> Trip | None:
    """Evaluate all five metrics and latch the first breach, unless a trip stands already."""
    if tx.standing_trip() is not None:
        return None
    now_ms = to_ms(now)
    readings = evaluate(state, tx.book().executions, limits, now_ms, day_may_roll=day_may_roll)
    found = breaches(readings)
    if not found:
        return None
    draft = draft_trip(found[0], readings, trip_id=trip_id, now=now, now_ms=now_ms)
    if not tx.add_trip(draft.trip):
        return None
    tx.audit(draft.row)
    return draft.trip


def latch_fault(tx: Tx, trip: Trip, limits: BreakerLimits) -> bool:
    """Latch a trip for a reason that is no metric, with its row; False when one stands already."""
    if not tx.add_trip(trip):
        return False
    book = tx.book()
    state = nav_point(book.documents).state
    data = {
        "trip_id": trip.id,
        "metric": trip.metric,
        "value": trip.value,
        "limit": trip.limit,
        "reason": trip.sentence,
        "metrics": readings_data(evaluate(state, book.executions, limits, trip.tripped_ms)),
    }
    moment = from_ms(trip.tripped_ms)
    tx.audit(AuditDraft(trip.id, moment, EventType.CIRCUIT_BREAKER_TRIP, ACTOR, data))
    return True


def rules_text(config: NavConfig) -> str | None:
    """When a day opens, for those who record marks without a breaker; None when it has no name."""
    zone = config.day.timezone
    name = "UTC" if zone is UTC else getattr(zone, "key", None)
    if name is None:
        return None
    return canonical_json([config.equity_max_age_ms, config.day.start_ms, name])


def _stored_rules(tx: Tx) -> NavConfig:
    text = tx.book().documents.get(NAV_RULES)
    if text is None:
        return NavConfig()
    age_ms, start_ms, name = json.loads(text)
    zone = UTC if name == "UTC" else ZoneInfo(name)
    return NavConfig(equity_max_age_ms=age_ms, day=DayRule(start_ms, zone))
