"""Watching: what the breaker says to one order, and what equity the limits may rely on.

Read from the cached book inside the order's own transaction, so that the order that would cross
a line is refused and not noticed afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from tinywindow.safety.domain import breaker
from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.breaker import (
    BreakerLimits,
    BreakerState,
    Metric,
    MetricReading,
    MetricState,
)
from tinywindow.safety.domain.breaker_documents import nav_state
from tinywindow.safety.domain.decision import Breach, Reason
from tinywindow.safety.domain.limits import EquityView
from tinywindow.safety.domain.money import plain
from tinywindow.safety.domain.nav_state import FUTURE_TOLERANCE_MS
from tinywindow.safety.domain.records import Trip

__all__ = [
    "BreakerView",
    "TripDraft",
    "draft_trip",
    "equity_view",
    "readings_data",
    "watch_breaker",
]

ACTOR: Final = "circuit-breaker"


@dataclass(frozen=True, slots=True)
class BreakerView:
    """What the breaker says to one order.

    Attributes:
        refusals_of_entry: why an order that can grow risk is refused.
        breach: the breach to latch now: one that stands, or the velocity with this order.
        readings: all five metrics, the velocity with this order.
    """

    refusals_of_entry: tuple[Breach, ...]
    breach: breaker.Breach | None
    readings: Mapping[Metric, MetricReading]


class TripDraft(NamedTuple):
    """A trip, and the audit row that must be committed with it."""

    trip: Trip
    row: AuditDraft


def watch_breaker(
    book: Book,
    limits: BreakerLimits,
    now_ms: int,
    *,
    asking: int = 1,
    day_may_roll: bool = True,
) -> BreakerView:
    """Read all metrics as they would be with `asking` more orders at `now_ms`.

    `day_may_roll` is False while the wall clock is not believed: a day that only such a clock
    has opened erases no loss.
    """
    executions = book.executions
    readings = breaker.evaluate(
        nav_state(book.documents), executions, limits, now_ms, day_may_roll=day_may_roll
    )
    readings[Metric.TRADE_VELOCITY] = breaker.velocity(executions, limits, now_ms, asking=asking)
    found = breaker.breaches(readings)
    refusals = [_unknown(metric, limits) for metric in Metric if _is_unknown(readings[metric])]
    refusals.extend(_refusal(breach) for breach in found)
    return BreakerView(tuple(refusals), found[0] if found else None, readings)


def _is_unknown(reading: MetricReading) -> bool:
    return reading.state is MetricState.UNKNOWN


def _unknown(metric: Metric, limits: BreakerLimits) -> Breach:
    age_s = Decimal(limits.nav.equity_max_age_ms) / 1000
    message = f"{metric.value} cannot be measured: no trusted equity mark within {plain(age_s)} s"
    return Breach(Reason.METRIC_UNKNOWN, message, limit=age_s, unit="s")


def _refusal(breach: breaker.Breach) -> Breach:
    reading = breach.reading
    velocity = breach.metric is Metric.TRADE_VELOCITY
    code = Reason.TRADE_VELOCITY if velocity else Reason.CIRCUIT_BREAKER_TRIPPED
    # The code of a velocity refusal is the sentence's own.
    sentence = breach.sentence
    message = sentence.removeprefix(f"{code.value}: ")
    return Breach(code, message, limit=reading.limit, observed=reading.value)


def readings_data(readings: Mapping[Metric, MetricReading]) -> dict[str, dict[str, object]]:
    """All readings as plain data for audit rows and JSON; decimals are text."""
    return {
        metric.value: {
            "value": None if reading.value is None else plain(reading.value),
            "limit": plain(reading.limit),
            "state": reading.state.value,
        }
        for metric, reading in readings.items()
    }


def draft_trip(
    breach: breaker.Breach,
    readings: Mapping[Metric, MetricReading],
    *,
    trip_id: str,
    now: datetime,
    now_ms: int,
    order_id: str | None = None,
) -> TripDraft:
    """Draft the trip that a breach makes of an armed breaker, with its audit row."""
    reading = breach.reading
    trip = Trip(
        id=trip_id,
        metric=breach.metric.value,
        value="" if reading.value is None else plain(reading.value),
        limit=plain(reading.limit),
        sentence=breach.sentence,
        tripped_ms=now_ms,
    )
    data: dict[str, object] = {"trip_id": trip_id, "metrics": readings_data(readings)}
    for effect in breaker.step(BreakerState.ARMED, breach).effects:
        if isinstance(effect, breaker.Audit):
            data.update(effect.data)
    row = AuditDraft(
        id=trip_id,
        time=now,
        event_type=EventType.CIRCUIT_BREAKER_TRIP,
        actor=ACTOR,
        data=data,
        order_id=order_id,
    )
    return TripDraft(trip, row)


def equity_view(documents: Mapping[str, str], now_ms: int, equity_max_age_ms: int) -> EquityView:
    """Portfolio equity as the accounts' last marks tell it, and whether it may be relied on."""
    state = nav_state(documents)
    if not state.accounts:
        return EquityView(None, known=False, note="there is no equity mark yet")
    for name, mark in sorted(state.accounts.items()):
        if not mark.trusted or not mark.counted:
            note = f"the last equity mark of account {name} is not trusted"
            return EquityView(state.equity, known=False, note=note)
        age_ms = now_ms - mark.at_ms
        if age_ms > equity_max_age_ms or age_ms < -FUTURE_TOLERANCE_MS:
            bound_s = plain(Decimal(equity_max_age_ms) / 1000)
            note = f"account {name} has no equity mark of the last {bound_s} s"
            return EquityView(state.equity, known=False, note=note)
    return EquityView(state.equity, known=True)
