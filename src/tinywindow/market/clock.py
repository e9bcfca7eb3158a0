"""Clocks: the wall's, read in this one place, and the market's, which a feed moves."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tinywindow.safety.errors import InvariantBroken

__all__ = ["MarketClock", "SystemClock"]


class SystemClock:
    """The machine's own clocks; implements `ports.Clock`."""

    def now(self) -> datetime:
        """The wall clock: an aware UTC datetime."""
        return datetime.now(UTC)  # house: the one place where the wall clock is read

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()  # house: the one place where the wall clock is read


class MarketClock:
    """The market's time; implements `ports.Clock`. It stands still until a feed moves it."""

    def __init__(self, start: datetime) -> None:
        """Start at an aware datetime; `monotonic` counts seconds from there."""
        if start.utcoffset() is None:
            raise InvariantBroken("the market's time needs a time zone")
        self._start = self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        """The market's time: an aware UTC datetime."""
        return self._now

    def monotonic(self) -> float:
        """Seconds of market time since the start."""
        return (self._now - self._start).total_seconds()

    def move_to(self, at: datetime) -> None:
        """Move on to `at`.

        Raises:
            InvariantBroken: `at` is before the time that stands.
        """
        if at < self._now:
            raise InvariantBroken(f"the market's time would go back from {self._now} to {at}")
        self._now = at.astimezone(UTC)
