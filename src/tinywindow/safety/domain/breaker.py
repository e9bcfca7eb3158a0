"""The circuit breaker: five metrics, their limits, and the latch that they trip.

Theory. The breaker has two states and no way back by itself. Any breach trips it; a metric that
recovers, midnight, a restart and the loss of Redis do not arm it again; only a person's confirmed
reset does. There is no half-open state: a probe with real money is an order like any other.

    ARMED ──Breach──▶ TRIPPED ──ConfirmReset──▶ ARMED
      │                 │ Breach: already tripped, nothing new
      └─ConfirmReset: nothing is latched, but the counts are cleared all the same

What is breached at its limit: a loss that is at or beyond it, an error rate or a streak that is at
or above it, and a velocity that is above it, since as many orders as the limit are allowed. What
cannot be measured is UNKNOWN, which is no trip: entries are refused until it can be again.

`TRANSITIONS` is the whole machine; effects are data, for the shell to carry out in the transaction
of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from typing import Any, Final

from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.money import EXACT, plain
from tinywindow.safety.domain.nav import NavConfig, NavState, performance
from tinywindow.safety.domain.windows import ExecutionBook
from tinywindow.safety.errors import InvariantBroken

__all__ = [
    "LOSSES",
    "Audit",
    "Breach",
    "BreakerLimits",
    "BreakerState",
    "CancelEntries",
    "ClearCounts",
    "ClearLatch",
    "ConfirmReset",
    "Latch",
    "Metric",
    "MetricReading",
    "MetricState",
    "Rebaseline",
    "Step",
    "breaches",
    "evaluate",
    "halt_reason",
    "step",
    "velocity",
]


class Metric(StrEnum):
    """What the breaker measures; the order is the one in which a trip names its cause."""

    DAILY_PNL = "daily_pnl"
    DRAWDOWN = "drawdown"
    TRADE_VELOCITY = "trade_velocity"
    ERROR_RATE = "error_rate"
    CONSECUTIVE_FAILURES = "consecutive_failures"


LOSSES: Final = frozenset({Metric.DAILY_PNL, Metric.DRAWDOWN})
"""The metrics that a reset does not clear: they need a rebaseline."""


class MetricState(StrEnum):
    """Where a metric stands. UNKNOWN is neither: nothing that may be believed tells it."""

    OK = "OK"
    BREACHED = "BREACHED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class MetricReading:
    """One metric at one moment.

    Attributes:
        value: percent for losses and error rate, a number for the others; None when there is
            nothing to measure.
        limit: the threshold, in the same unit.
        state: whether it is breached.
        fed_at_ms: when something last came in for it, in Unix milliseconds.
        note: what a reader should know beside the figures; empty when there is nothing.
    """

    value: Decimal | None
    limit: Decimal
    state: MetricState
    fed_at_ms: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """The thresholds, and how a loss is measured. Losses and error rate are percent."""

    daily_loss_limit: Decimal = Decimal(-10)
    drawdown_limit: Decimal = Decimal(-15)
    max_trades_per_hour: int = 50
    error_rate_limit: Decimal = Decimal(10)
    error_rate_min_samples: int = 20
    consecutive_failure_limit: int = 5
    nav: NavConfig = field(default_factory=NavConfig)


_RATE_STEP: Final = Decimal("1e-12")
_OVERFLOW_NOTE: Final = "more attempts than can be kept; what is not counted counts as breached"


def evaluate(
    nav_state: NavState,
    executions: ExecutionBook,
    limits: BreakerLimits,
    now_ms: int,
    *,
    day_may_roll: bool = True,
) -> dict[Metric, MetricReading]:
    """Read all five metrics at `now_ms`; the cost does not depend on the length of history.

    Args:
        nav_state: the marks so far.
        executions: the attempts so far.
        limits: the thresholds.
        now_ms: our clock, in Unix milliseconds.
        day_may_roll: False while the wall clock is not believed.
    """
    seen = performance(nav_state, now_ms, limits.nav, day_may_roll=day_may_roll)
    note = "" if seen.trusted else "no trusted mark"
    daily_note = "estimated baseline" if seen.estimated_baseline and seen.trusted else note
    fed_at_ms = nav_state.fed_at_ms
    daily_limit, limit = limits.daily_loss_limit, limits.drawdown_limit
    daily_state = _loss_state(seen.daily_pnl, daily_limit, trusted=seen.trusted)
    state = _loss_state(seen.drawdown, limit, trusted=seen.trusted)
    return {
        Metric.DAILY_PNL: MetricReading(
            seen.daily_pnl, daily_limit, daily_state, fed_at_ms, daily_note
        ),
        Metric.DRAWDOWN: MetricReading(seen.drawdown, limit, state, fed_at_ms, note),
        Metric.TRADE_VELOCITY: velocity(executions, limits, now_ms),
        Metric.ERROR_RATE: _error_rate(executions, limits, now_ms),
        Metric.CONSECUTIVE_FAILURES: _streak(executions, limits, now_ms),
    }


def _loss_state(value: Decimal | None, limit: Decimal, *, trusted: bool) -> MetricState:
    # A loss that cannot be believed may be smaller than it seems, or larger: it counts.
    if value is not None and value <= limit:
        return MetricState.BREACHED
    return MetricState.OK if trusted and value is not None else MetricState.UNKNOWN


def velocity(
    executions: ExecutionBook, limits: BreakerLimits, now_ms: int, *, asking: int = 0
) -> MetricReading:
    """Read the velocity as it would be with `asking` more orders.

    The gate asks with one: when that reads BREACHED, the order is refused and the breaker trips.
    """
    count, limit = executions.velocity(now_ms) + asking, limits.max_trades_per_hour
    return _count_reading(executions, Decimal(count), Decimal(limit), breached=count > limit)


def _error_rate(executions: ExecutionBook, limits: BreakerLimits, now_ms: int) -> MetricReading:
    attempted, failed = executions.errors(now_ms)
    limit, samples = limits.error_rate_limit, limits.error_rate_min_samples
    value, note = None, ""
    if attempted:
        # Rounded toward the breach.
        quotient = EXACT.divide(Decimal(100 * failed), Decimal(attempted))
        value = quotient.quantize(_RATE_STEP, ROUND_CEILING, EXACT)
    if attempted < samples:
        note = f"{attempted} of the {samples} attempts that it needs"
    breached = value is not None and attempted >= samples and value >= limit
    seen = _count_reading(executions, value, limit, breached=breached, note=note)
    return replace(seen, fed_at_ms=executions.fed_at_ms)


def _streak(executions: ExecutionBook, limits: BreakerLimits, now_ms: int) -> MetricReading:
    failures, limit = executions.streak(now_ms), limits.consecutive_failure_limit
    return _count_reading(executions, Decimal(failures), Decimal(limit), breached=failures >= limit)


def _count_reading(
    executions: ExecutionBook,
    value: Decimal | None,
    limit: Decimal,
    *,
    breached: bool,
    note: str = "",
) -> MetricReading:
    if executions.overflowed or executions.unread:
        breached, note = True, _OVERFLOW_NOTE
    state = MetricState.BREACHED if breached else MetricState.OK
    return MetricReading(value, limit, state, executions.orders_fed_at_ms, note)


def breaches(readings: Mapping[Metric, MetricReading]) -> tuple[Breach, ...]:
    """The metrics that are breached, in the order in which a trip names its cause."""
    return tuple(
        Breach(metric, readings[metric])
        for metric in Metric
        if readings[metric].state is MetricState.BREACHED
    )


def halt_reason(metric: Metric, reading: MetricReading) -> str:
    """Say in a sentence, with code, value and limit, why trading is halted."""
    value, limit = reading.value, reading.limit
    code = metric.value.upper()
    if value is None or reading.note == _OVERFLOW_NOTE:
        return f"{code}: {reading.note}"
    if metric in LOSSES:
        shown = _percent(value, limit, below=True)
        return f"{code}: {shown} is at or beyond the limit of {_exact_percent(limit)}"
    if metric is Metric.ERROR_RATE:
        shown = _percent(value, limit, below=False)
        return f"{code}: {shown} is at or above the limit of {_exact_percent(limit)}"
    if metric is Metric.TRADE_VELOCITY:
        return f"{code}: {value} orders within an hour are above the limit of {limit}"
    return f"{code}: a streak of {value} is at or above the limit of {limit}"


def _percent(value: Decimal, limit: Decimal, *, below: bool) -> str:
    """A percentage with two decimals, or with as many as keep it on its side of the limit."""
    for decimals in range(2, 12):
        shown = value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN, EXACT)
        if (shown <= limit) if below else (shown >= limit):
            return f"{shown:f} %"
    return _exact_percent(value)


def _exact_percent(value: Decimal) -> str:
    """A percentage with two decimals, or with all that it has."""
    text = plain(value)
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<2} %"


# The machine.


class BreakerState(StrEnum):
    """Whether the breaker has tripped. It is latched: see the theory above."""

    ARMED = "ARMED"
    TRIPPED = "TRIPPED"


@dataclass(frozen=True, slots=True)
class Breach:
    """A metric was read as breached."""

    metric: Metric
    reading: MetricReading

    @property
    def sentence(self) -> str:
        """Why trading is halted, with code, value and limit."""
        return halt_reason(self.metric, self.reading)


@dataclass(frozen=True, slots=True)
class ConfirmReset:
    """A person confirmed a pending reset; `domain.reset` judges whether that may be.

    Attributes:
        trip_id: the trip that is cleared; None when none stood.
        operator: who confirmed it.
        reason: why, in the operator's words.
        rebaseline: the losses that are measured from the current NAV on.
    """

    trip_id: str | None
    operator: str
    reason: str
    rebaseline: frozenset[Metric] = frozenset()


@dataclass(frozen=True, slots=True)
class Latch:
    """Commit the trip, by an insert that fails where one stands already."""

    breach: Breach


@dataclass(frozen=True, slots=True)
class CancelEntries:
    """Cancel resting orders that could grow a position, unless the configuration says not to."""


@dataclass(frozen=True, slots=True)
class ClearLatch:
    """Clear exactly this trip."""

    trip_id: str


@dataclass(frozen=True, slots=True)
class ClearCounts:
    """Clear the failure streak, the error window and the velocity window."""


@dataclass(frozen=True, slots=True)
class Rebaseline:
    """Measure these losses from the current NAV on."""

    metrics: frozenset[Metric]


@dataclass(frozen=True, slots=True)
class Audit:
    """Append one audit row."""

    event_type: EventType
    data: Mapping[str, object]


BreakerEvent = Breach | ConfirmReset
Effect = Latch | CancelEntries | ClearLatch | ClearCounts | Rebaseline | Audit


@dataclass(frozen=True, slots=True)
class Step:
    """The state after an event, and what the shell has to do, in this order."""

    state: BreakerState
    effects: tuple[Effect, ...] = ()


def _trip(breach: Breach) -> Step:
    reading = breach.reading
    data = {
        "metric": breach.metric.value,
        "value": None if reading.value is None else plain(reading.value),
        "limit": plain(reading.limit),
        "reason": breach.sentence,
    }
    return Step(
        BreakerState.TRIPPED,
        (Latch(breach), Audit(EventType.CIRCUIT_BREAKER_TRIP, data), CancelEntries()),
    )


def _stay_tripped(_: Breach) -> Step:
    return Step(BreakerState.TRIPPED)


def _arm(reset: ConfirmReset) -> Step:
    if reset.trip_id is None:
        raise InvariantBroken("a reset of a tripped breaker names the trip that it clears")
    return Step(BreakerState.ARMED, (ClearLatch(reset.trip_id), *_cleared(reset)))


def _stay_armed(reset: ConfirmReset) -> Step:
    return Step(BreakerState.ARMED, _cleared(reset))


def _cleared(reset: ConfirmReset) -> tuple[Effect, ...]:
    metrics = sorted(metric.value for metric in reset.rebaseline)
    data = {
        "trip_id": reset.trip_id,
        "operator": reset.operator,
        "reason": reset.reason,
        "rebaselined": metrics,
    }
    rebaseline = (Rebaseline(reset.rebaseline),) if metrics else ()
    return (ClearCounts(), *rebaseline, Audit(EventType.CIRCUIT_BREAKER_RESET, data))


TRANSITIONS: Final[dict[tuple[BreakerState, type[BreakerEvent]], Callable[[Any], Step]]] = {
    (BreakerState.ARMED, Breach): _trip,
    (BreakerState.ARMED, ConfirmReset): _stay_armed,
    (BreakerState.TRIPPED, Breach): _stay_tripped,
    (BreakerState.TRIPPED, ConfirmReset): _arm,
}
"""The whole machine: every state meets every event."""


def step(state: BreakerState, event: BreakerEvent) -> Step:
    """Move the breaker on by one event.

    Raises:
        InvariantBroken: a reset of a tripped breaker names no trip.
    """
    return TRANSITIONS[state, type(event)](event)
