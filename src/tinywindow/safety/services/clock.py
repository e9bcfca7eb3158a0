"""The system's clock: the one place where TinyWindow reads the wall clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["SystemClock"]


class SystemClock:
    """Implements `ports.Clock` on the operating system's clocks.

    The monotonic clock counts on while the machine sleeps, where the system has such a clock: a
    pause that nobody noticed must age what is known.
    """

    __slots__ = ("_boot_clock",)

    def __init__(self) -> None:
        self._boot_clock: int | None = getattr(time, "CLOCK_BOOTTIME", None)

    def now(self) -> datetime:
        """The wall clock: an aware UTC datetime."""
        return datetime.now(UTC)  # house: the one place where the wall clock is read

    def monotonic(self) -> float:
        """Seconds since an unspecified moment, on a clock that never goes back."""
        if self._boot_clock is None:
            return time.monotonic()  # house: the one place where the monotonic clock is read
        return time.clock_gettime(self._boot_clock)
