"""How a store whose change token costs next to nothing waits for a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["POLL_INTERVAL_S", "polled"]

POLL_INTERVAL_S: Final = 0.01
"""How often the token is looked at: a stop of another process is seen within this time."""


async def polled(token: Callable[[], int], since: int) -> int:
    """Look at the token until it differs from `since`; gives the new one."""
    now = token()
    while now == since:
        await asyncio.sleep(POLL_INTERVAL_S)
        now = token()
    return now
