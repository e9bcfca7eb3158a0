"""Ending a background task for certain."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["end_task"]

AGAIN_S: Final = 0.1


async def end_task(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended: a library below it may swallow one cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_S)
