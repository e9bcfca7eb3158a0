"""The circuit breaker's configuration."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from typing import Annotated, ClassVar, Final
from zoneinfo import ZoneInfo

from pydantic import PlainValidator, ValidationInfo

from tinywindow.safety.config import rules
from tinywindow.safety.config.rules import Number, NumberRule, Wrong
from tinywindow.safety.config.section import Section
from tinywindow.safety.domain.breaker import BreakerLimits
from tinywindow.safety.domain.money import to_decimal
from tinywindow.safety.domain.nav import NavConfig
from tinywindow.safety.domain.trading_day import DayRule

__all__ = ["CircuitBreakerConfig"]

_LOSS: Final = NumberRule(
    "a loss in percent below 0 and not beyond -100, such as -10",
    low=Decimal(-100),
    high=Decimal(0),
    high_excluded=True,
)
_FRACTION: Final = Decimal(-1)


def _loss_limit(value: object, info: ValidationInfo) -> Number:
    number = _LOSS(value)
    if to_decimal(number) > _FRACTION and info.data.get("tight_limits") is not True:
        raise Wrong(
            "lies between -1 and 0, which is nearly always a fraction typed for a percentage",
            "a percentage such as -10, or tight_limits=true beside it",
        )
    return number


LossLimit = Annotated[Number, PlainValidator(_loss_limit)]
_Seconds = Annotated[float, PlainValidator(rules.seconds())]


class CircuitBreakerConfig(Section):
    """When trading is halted. Percentages are percent (`-10.0` is -10 %), durations seconds.

    What is not given comes from `TINYWINDOW_CIRCUIT_BREAKER__...`, then from the table
    `[circuit_breaker]` of `tinywindow.toml`, then from the defaults.

    Attributes:
        tight_limits: a loss limit between -1 and 0 is meant.
        daily_loss_limit: loss since the day opened at or beyond which trading halts.
        drawdown_limit: loss since the peak at or beyond which trading halts.
        max_trades_per_hour: orders sent within 3,600 s that are allowed; one more halts.
        error_rate_limit: failed calls of the last hour, in percent of those attempted, that halt.
        error_rate_min_samples: attempts below which the error rate is not judged.
        consecutive_failure_limit: failed order sends in a row that halt.
        monitor_interval: pause between two checks; a state older than three of them is a halt.
        equity_max_age: age beyond which an equity mark is not trusted.
        day_start: when the trading day opens, as HH:MM.
        day_timezone: the time zone of `day_start`, as in the IANA database.
        cancel_entries_on_trip: a trip cancels resting orders that could grow a position.
    """

    section: ClassVar[str | None] = "circuit_breaker"

    # First, because the loss limits are judged by it.
    tight_limits: Annotated[bool, PlainValidator(rules.flag)] = False
    daily_loss_limit: LossLimit = -10.0
    drawdown_limit: LossLimit = -15.0
    max_trades_per_hour: Annotated[
        int, PlainValidator(rules.whole("a whole number of orders above 0"))
    ] = 50
    error_rate_limit: Annotated[
        Number, PlainValidator(rules.positive("percent above 0 and at most 100", high=100))
    ] = 10.0
    error_rate_min_samples: Annotated[
        int, PlainValidator(rules.whole("a whole number of calls above 0"))
    ] = 20
    consecutive_failure_limit: Annotated[
        int, PlainValidator(rules.whole("a whole number of failures above 0"))
    ] = 5
    monitor_interval: Annotated[float, PlainValidator(rules.seconds(high=3600))] = 1.0
    equity_max_age: _Seconds = 60.0
    day_start: Annotated[str, PlainValidator(rules.day_start)] = "00:00"
    day_timezone: Annotated[str, PlainValidator(rules.time_zone)] = "UTC"
    cancel_entries_on_trip: Annotated[bool, PlainValidator(rules.flag)] = True

    def to_limits(self) -> BreakerLimits:
        """The thresholds as the breaker uses them: exact decimals, times in milliseconds."""
        hours, minutes = self.day_start.split(":")
        # `DayRule` takes the short way only for this very object.
        zone = UTC if self.day_timezone == "UTC" else ZoneInfo(self.day_timezone)
        day = DayRule(start_ms=(int(hours) * 60 + int(minutes)) * 60_000, timezone=zone)
        return BreakerLimits(
            daily_loss_limit=to_decimal(self.daily_loss_limit),
            drawdown_limit=to_decimal(self.drawdown_limit),
            max_trades_per_hour=self.max_trades_per_hour,
            error_rate_limit=to_decimal(self.error_rate_limit),
            error_rate_min_samples=self.error_rate_min_samples,
            consecutive_failure_limit=self.consecutive_failure_limit,
            nav=NavConfig(equity_max_age_ms=rules.to_ms(self.equity_max_age), day=day),
        )
