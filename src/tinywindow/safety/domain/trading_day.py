"""The trading day: which day an instant belongs to, and when that day opens.

By default a day is a UTC day. `start_ms` moves its opening away from midnight, `timezone` makes
it a local day; a local day may last 23 or 25 hours. A day is named by its proleptic Gregorian
ordinal, the number of `datetime.date.toordinal`. An instant belongs to the newest day whose
opening is not after it, so that days never run backwards, not even where local clocks do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

__all__ = ["DAY_MS", "DayRule"]

DAY_MS: Final = 86_400_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL: Final = _EPOCH.toordinal()
_MS: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class DayRule:
    """When a trading day opens.

    Attributes:
        start_ms: how long after local midnight the day opens, in milliseconds.
        timezone: whose midnight; UTC unless said otherwise.
    """

    start_ms: int = 0
    timezone: tzinfo = UTC

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms < DAY_MS:
            raise ValueError(f"a day starts within itself, not after {self.start_ms} ms")

    def day_of(self, at_ms: int) -> int:
        """The ordinal of the day to which an instant belongs."""
        if self.timezone is UTC:
            return _EPOCH_ORDINAL + (at_ms - self.start_ms) // DAY_MS
        local = (_EPOCH + at_ms * _MS).astimezone(self.timezone)
        day = local.toordinal() + 1
        while self.open_ms(day) > at_ms:
            day -= 1
        return day

    def open_ms(self, day: int) -> int:
        """When a day opens, in Unix milliseconds.

        Where a local time comes twice, the first counts; where it is skipped, the day opens as
        if the clocks had not been changed yet.
        """
        if self.timezone is UTC:
            return (day - _EPOCH_ORDINAL) * DAY_MS + self.start_ms
        midnight = datetime.combine(date.fromordinal(day), datetime.min.time())
        local = (midnight + self.start_ms * _MS).replace(tzinfo=self.timezone)
        return (local - _EPOCH) // _MS
