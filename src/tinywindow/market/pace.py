"""The pace of a feed: how long to wait in real seconds for a stretch of market time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final

from tinywindow.safety.errors import ConfigurationError

__all__ = ["PAUSE_S_MAX", "Pace", "Sleep"]

Sleep = Callable[[float], Awaitable[object]]

PAUSE_S_MAX: Final = 60.0
"""Real seconds that one wait may take: an exchange's outage of 33 hours is skipped over."""


class Pace:
    """Waits out market time at a speed; None is as fast as it goes.

    At full speed it still gives the loop a turn at each moment.
    """

    def __init__(self, speed: float | None, sleep: Sleep = asyncio.sleep) -> None:
        """Take a speed in seconds of market time for one real second, > 0.

        Raises:
            ConfigurationError: the speed is not finite and above zero.
        """
        if speed is not None and not (math.isfinite(speed) and speed > 0):
            raise ConfigurationError(f"speed is {speed}; wanted a number above 0, or max")
        self._speed = speed
        self._sleep = sleep

    async def wait(self, market_s: float) -> None:
        """Wait for `market_s` seconds of market time to pass."""
        await self._sleep(0 if self._speed is None else min(market_s / self._speed, PAUSE_S_MAX))
