"""The monitor: looks at the breaker's metrics again and again, for as long as it is let."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.logs import get_logger

__all__ = ["run_circuit_breaker_monitor"]

CHECK_GAP_MIN_S: Final = 0.02
"""The least pause between two checks, however much arrives; a trip shows within 50 ms."""

_log = get_logger(__name__)

_running: Final[set[asyncio.Task[object]]] = set()
"""Every task that runs a monitor: the loop itself keeps only weak references to tasks."""


async def run_circuit_breaker_monitor(breaker: CircuitBreaker, *, interval: float = 1.0) -> None:
    """Check all metrics every `interval` seconds, and at once when something arrives.

    Runs until it is cancelled, or the breaker is closed. A check that fails is logged, counted by
    the breaker, and tried again; three in a row halt, and so does a monitor that is gone.

    Args:
        breaker: the breaker to look after; nothing else is needed.
        interval: seconds between checks; never more than the breaker's own `monitor_interval`,
            since its state counts as stale after three of those.

    Raises:
        ConfigurationError: `interval` is not above zero.
    """
    if not interval > 0:
        raise ConfigurationError(f"interval must be above 0 s, not {interval}")
    pause_s = min(interval, breaker.monitor_interval)
    task = asyncio.current_task()
    if task is not None:
        _running.add(task)
    try:
        while not breaker.closed:
            await _check(breaker)
            await asyncio.sleep(min(CHECK_GAP_MIN_S, pause_s))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(breaker.wait_for_activity(), pause_s)
    finally:
        if task is not None:
            _running.discard(task)


async def _check(breaker: CircuitBreaker) -> None:
    try:
        await breaker.check_all_metrics()
    except Exception as error:  # noqa: BLE001 - the monitor outlives any fault; the breaker counts it and halts
        _log.error(
            "circuit_breaker_check_failed",
            error=str(error),
            kind=type(error).__name__,
            failures_in_a_row=breaker.failed_checks,
        )
