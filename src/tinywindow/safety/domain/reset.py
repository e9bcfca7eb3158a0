"""A pending reset of the circuit breaker: what was shown, and whether it may be confirmed.

Asking for a reset clears nothing. It shows the standing trip and every metric that is breached;
confirming it is bound to what was shown. It is void once ten minutes are over, once another trip
stands, or once a metric is breached that was not shown. A loss that is still breached needs a
rebaseline, which covers only what was shown; the counts are cleared by the confirmation itself.

Times are Unix milliseconds in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tinywindow.safety.domain.breaker import (
    LOSSES,
    Breach,
    ConfirmReset,
    Metric,
    MetricReading,
    breaches,
)

__all__ = ["RESET_LIFETIME_MS", "PendingReset", "ResetVerdict", "judge", "pending_reset"]

RESET_LIFETIME_MS: Final = 600_000
"""How long a pending reset may be confirmed."""


@dataclass(frozen=True, slots=True)
class PendingReset:
    """What an operator was shown.

    Attributes:
        trip_id: the trip that stood; None when none did.
        expires_ms: from then on it can no longer be confirmed.
        shown: every metric that was breached.
    """

    trip_id: str | None
    expires_ms: int
    shown: tuple[Breach, ...]

    @property
    def still_breached(self) -> tuple[Breach, ...]:
        """What would trip again at once: the losses, since a reset clears the counts."""
        return tuple(breach for breach in self.shown if breach.metric in LOSSES)


@dataclass(frozen=True, slots=True)
class ResetVerdict:
    """Whether a pending reset may be confirmed.

    Attributes:
        confirmed: the event for the breaker; None when it may not.
        void: whether a new reset has to be asked for.
        reasons: why not, a sentence each.
    """

    confirmed: ConfirmReset | None
    void: bool = False
    reasons: tuple[str, ...] = ()


def pending_reset(
    trip_id: str | None, readings: Mapping[Metric, MetricReading], now_ms: int
) -> PendingReset:
    """Show what stands and what is breached at `now_ms`."""
    return PendingReset(trip_id, now_ms + RESET_LIFETIME_MS, breaches(readings))


def judge(
    pending: PendingReset,
    *,
    trip_id: str | None,
    readings: Mapping[Metric, MetricReading],
    now_ms: int,
    nav_trusted: bool,
    operator: str,
    reason: str,
    rebaseline: bool,
) -> ResetVerdict:
    """Say whether a pending reset may be confirmed now, in the transaction that would do so.

    Args:
        pending: what was shown.
        trip_id: the trip that stands now.
        readings: all metrics, read now.
        now_ms: our clock.
        nav_trusted: whether the NAV may be believed now.
        operator: who confirms.
        reason: why, in the operator's words.
        rebaseline: whether losses that are still breached are measured anew from now on.
    """
    breached = [breach.metric for breach in breaches(readings)]
    void = _void(pending, trip_id, breached, now_ms)
    if void:
        return ResetVerdict(None, void=True, reasons=void)
    losses = frozenset(breached) & LOSSES
    reasons = []
    if not operator.strip():
        reasons.append("the operator is blank")
    if not reason.strip():
        reasons.append("the reason is blank")
    if losses and not rebaseline:
        names = ", ".join(sorted(losses))
        reasons.append(f"{names} would trip again at once; it needs a rebaseline")
    if losses and rebaseline and not nav_trusted:
        reasons.append("a rebaseline needs a trusted mark")
    if reasons:
        return ResetVerdict(None, reasons=tuple(reasons))
    return ResetVerdict(ConfirmReset(trip_id, operator.strip(), reason.strip(), losses))


def _void(
    pending: PendingReset, trip_id: str | None, breached: list[Metric], now_ms: int
) -> tuple[str, ...]:
    reasons = []
    if now_ms >= pending.expires_ms:
        reasons.append("the pending reset is older than 10 min")
    if trip_id != pending.trip_id:
        reasons.append("the trip was already cleared" if trip_id is None else "a newer trip stands")
    shown = {breach.metric for breach in pending.shown}
    reasons += [
        f"{metric.value} is breached, which was not shown"
        for metric in breached
        if metric not in shown
    ]
    return tuple(reasons)
