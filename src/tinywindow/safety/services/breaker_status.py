"""What a check of the breaker says: a thin, immutable view for people, JSON and tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tinywindow.safety.domain.audit import utc_text
from tinywindow.safety.domain.breaker import Metric, MetricReading, MetricState
from tinywindow.safety.domain.money import plain
from tinywindow.safety.domain.records import Trip
from tinywindow.safety.services.breaker_check import Examination
from tinywindow.safety.services.times import from_ms

__all__ = ["CircuitBreakerStatus", "MetricStatus", "metrics_of", "note_of"]


@dataclass(frozen=True, slots=True)
class MetricStatus:
    """One metric at the moment of the check.

    Attributes:
        value: percent for losses and error rate, a number for the others; None when there is
            nothing to measure.
        limit: the threshold, in the same unit.
        state: `OK`, `BREACHED` or `UNKNOWN`.
        fed_at: when something last came in for it, in UTC; None when nothing ever did.
        note: what a reader should know beside the figures.
    """

    value: Decimal | None
    limit: Decimal
    state: MetricState
    fed_at: datetime | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class CircuitBreakerStatus:
    """The breaker at the moment of the check.

    Attributes:
        is_halted: whether trading is halted.
        halt_reason: why, as a sentence that starts with a code; None when it is not.
        metrics: all five metrics by name.
        checked_at: when they were read, in UTC.
        trip: the standing trip; None when the halt has another cause, or there is none.
        entries_cancelled_by: the venues where, since the trip, a kill switch that has exchanges
            cancels the resting orders that could grow a position; empty without a trip.
        note: what a reader should know beside it, such as that nobody cancels them.
    """

    is_halted: bool
    halt_reason: str | None
    metrics: Mapping[str, MetricStatus]
    checked_at: datetime
    trip: Trip | None = None
    entries_cancelled_by: tuple[str, ...] = ()
    note: str = ""

    def to_json(self) -> str:
        """The status as one JSON text; decimals are text, times are ISO 8601 in UTC."""
        metrics = {
            name: {
                "value": None if metric.value is None else plain(metric.value),
                "limit": plain(metric.limit),
                "state": metric.state.value,
                "fed_at": None if metric.fed_at is None else utc_text(metric.fed_at),
            }
            for name, metric in self.metrics.items()
        }
        return json.dumps(
            {
                "is_halted": self.is_halted,
                "halt_reason": self.halt_reason,
                "checked_at": utc_text(self.checked_at),
                "entries_cancelled_by": list(self.entries_cancelled_by),
                "note": self.note,
                "metrics": metrics,
            }
        )


def note_of(seen: Examination, *, cancels: bool) -> str:
    """Say whether resting entry orders are cancelled after a trip; empty where somebody does."""
    if seen.trip is None or seen.cancelling:
        return ""
    if not cancels:
        return "resting entry orders are left to fill: cancel_entries_on_trip is off"
    return (
        "no kill switch with exchanges has been seen on this store since the trip: "
        "resting entry orders are not cancelled and may still fill"
    )


def metrics_of(readings: Mapping[Metric, MetricReading]) -> dict[str, MetricStatus]:
    """Readings as the status shows them."""
    return {
        metric.value: MetricStatus(
            reading.value,
            reading.limit,
            reading.state,
            None if reading.fed_at_ms is None else from_ms(reading.fed_at_ms),
            reading.note,
        )
        for metric, reading in readings.items()
    }
