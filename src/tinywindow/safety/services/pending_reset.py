"""A pending reset: what an operator is shown, and the confirmation that is bound to it."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import Protocol

from tinywindow.safety.domain import reset
from tinywindow.safety.domain.audit import AuditDraft
from tinywindow.safety.domain.breaker import (
    Audit,
    BreakerLimits,
    BreakerState,
    ClearCounts,
    ClearLatch,
    Metric,
    Rebaseline,
    evaluate,
    step,
)
from tinywindow.safety.domain.breaker import Breach as MetricBreach
from tinywindow.safety.domain.breaker_documents import (
    NAV,
    RESET_MARK,
    UNWATCHED,
    NavPoint,
    ResetMark,
    nav_point,
    reset_mark,
)
from tinywindow.safety.domain.nav import rebaseline as rebased
from tinywindow.safety.domain.nav_state import MarkRefused, is_trusted
from tinywindow.safety.domain.records import HoldState
from tinywindow.safety.domain.watch import readings_data
from tinywindow.safety.errors import ResetRefused
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.times import from_ms, to_ms

__all__ = ["PendingReset", "StillBreached", "confirm_reset"]


class Confirm(Protocol):
    """Confirms what was shown, or raises `ResetRefused`."""

    def __call__(
        self, pending: reset.PendingReset, operator: str, reason: str, *, rebaseline: bool
    ) -> Awaitable[None]:
        """Confirm it."""
        ...


class StillBreached(str):
    """The name of a metric that would trip again at once; `sentence` says by how much."""

    __slots__ = ("sentence",)

    sentence: str

    @classmethod
    def of(cls, breach: MetricBreach) -> StillBreached:
        """The name and the sentence of a breach."""
        one = cls(breach.metric.value)
        one.sentence = breach.sentence
        return one


class PendingReset:
    """What stands in the way of trading, as it was shown; it has cleared nothing yet."""

    __slots__ = ("_confirm", "_pending", "halt_reason")

    def __init__(
        self, pending: reset.PendingReset, halt_reason: str | None, confirm: Confirm
    ) -> None:
        self._pending = pending
        self._confirm = confirm
        self.halt_reason = halt_reason

    @property
    def still_breached(self) -> tuple[StillBreached, ...]:
        """The names of the metrics that would trip again at once and need a rebaseline."""
        return tuple(StillBreached.of(breach) for breach in self._pending.still_breached)

    @property
    def trip_id(self) -> str | None:
        """The trip that stood; None when none did."""
        return self._pending.trip_id

    @property
    def expires_at(self) -> datetime:
        """From then on, in UTC, it can no longer be confirmed."""
        return from_ms(self._pending.expires_ms)

    async def confirm(self, operator: str, reason: str, rebaseline: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is part of the public interface
        """Clear the latch, the failure streak, the error window and the velocity window.

        It permits trading and starts nothing.

        Args:
            operator: who confirms.
            reason: why; it stands in the audit log.
            rebaseline: measure the losses that are still breached from the current NAV on.

        Raises:
            ResetRefused: it may not be confirmed; the message says why. Nothing was changed.
            StoreUnavailable: nothing was changed.
        """
        named: tuple[object, ...] = (operator, reason)
        if not all(isinstance(one, str) for one in named):
            raise ResetRefused("who confirms the reset, and why, must be named")
        await self._confirm(self._pending, operator, reason, rebaseline=rebaseline)


def confirm_reset(
    tx: Tx,
    pending: reset.PendingReset,
    limits: BreakerLimits,
    *,
    operator: str,
    reason: str,
    rebaseline: bool,
    now: datetime,
    row_id: str,
    day_may_roll: bool,
) -> str:
    """Judge a pending reset again under the lock, and carry it out.

    Returns:
        Why it may not be confirmed now, empty when it was; a value, since a transaction that
        fails makes its process forget what it knows, and the next reset would show nothing.

    Raises:
        ResetRefused: it turned out to be impossible halfway; nothing was changed.
    """
    book, now_ms = tx.book(), to_ms(now)
    point, trip = nav_point(book.documents), tx.standing_trip()
    readings = evaluate(point.state, book.executions, limits, now_ms, day_may_roll=day_may_roll)
    verdict = reset.judge(
        pending,
        trip_id=None if trip is None else trip.id,
        readings=readings,
        now_ms=now_ms,
        nav_trusted=is_trusted(point.state, now_ms, limits.nav),
        operator=operator,
        reason=reason,
        rebaseline=rebaseline,
    )
    unknown = sum(hold.state is HoldState.UNKNOWN for hold in book.holds.values())
    reasons = list(verdict.reasons)
    if unknown:
        reasons.append(f"the outcome of {unknown} orders is not known; reconcile first")
    if verdict.confirmed is None or reasons:
        return "; ".join(reasons)
    state = BreakerState.ARMED if trip is None else BreakerState.TRIPPED
    shown = {"metrics": readings_data(readings), "trip": None if trip is None else trip.sentence}
    for effect in step(state, verdict.confirmed).effects:
        match effect:
            case ClearLatch(trip_id):
                tx.clear_trip(trip_id, at_ms=now_ms, by=verdict.confirmed.operator)
            case Rebaseline(metrics):
                point = _rebased(point, metrics, limits, now_ms)
                tx.put_document(NAV, point.to_text())
            case Audit(event_type, data):
                tx.audit(
                    AuditDraft(
                        row_id, now, event_type, verdict.confirmed.operator, {**data, **shown}
                    )
                )
            case ClearCounts():
                pass  # with the reset mark below, once the NAV it carries is known
            case _:
                raise ResetRefused(f"a reset has no effect {type(effect).__name__}")
    _mark_reset(tx, point)
    return ""


def _rebased(
    point: NavPoint, metrics: frozenset[Metric], limits: BreakerLimits, now_ms: int
) -> NavPoint:
    state = rebased(
        point.state,
        now_ms,
        limits.nav,
        daily_pnl=Metric.DAILY_PNL in metrics,
        drawdown=Metric.DRAWDOWN in metrics,
    )
    if isinstance(state, MarkRefused):
        raise ResetRefused(state.reason)
    return point.rebased(state)


def _mark_reset(tx: Tx, point: NavPoint) -> None:
    """Say through which attempt and which mark nothing trips any more, in every process."""
    book = tx.book()
    cleared_id = max(book.executions.last_id, reset_mark(book.documents).cleared_id)
    tx.put_document(RESET_MARK, ResetMark(cleared_id, point).to_text())
    if tx.document(UNWATCHED):
        tx.put_document(UNWATCHED, "")
