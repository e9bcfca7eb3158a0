"""The breaker's state mirrored into Redis: for people and dashboards, never read back.

The latch lives in the database. What stands under the key is a copy that may be late or lost;
nothing in TinyWindow decides by it, and what others write there is no command. It expires, so
that a process that is gone leaves no "all is well" behind.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from tinywindow.safety.ports import Clock
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.doorbells import doorbell_for
from tinywindow.safety.services.heartbeat import HEARTBEAT_INTERVAL_S, Heartbeat, TextBoard
from tinywindow.safety.services.logs import get_logger

__all__ = ["MIRROR_KEY", "StateMirror"]

MIRROR_KEY: Final = "tinywindow:circuit_breaker:state"
"""The key under which the state is mirrored, as one JSON text."""
MIRROR_TTL_S: Final = 60.0
TIMEOUT_S: Final = 0.2
"""How long one publication may take; what is slower is dropped, and the next one tried."""

_log = get_logger(__name__)


class StateMirror:
    """Publishes the newest state, best effort and in the background; one publication at a time.

    With it goes the heartbeat of the role `circuit-breaker`: it beats while checks are made.
    """

    def __init__(self, redis_client: object, clock: Clock | None = None) -> None:
        """Check what was passed; nothing is connected before the first publication.

        Raises:
            ConfigurationError: it is neither None, a `redis.asyncio` client, a URL nor a doorbell.
        """
        self._bell = doorbell_for(redis_client)
        self._given = self._bell is redis_client
        self._clock: Clock = SystemClock() if clock is None else clock
        self._beat = Heartbeat(self._clock, secrets.token_hex(4), {"circuit-breaker"})
        self._beaten_s: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def offer(self, text: str) -> None:
        """Publish a state unless the one before is still on its way."""
        board: object = self._bell
        if not isinstance(board, TextBoard) or (self._task is not None and not self._task.done()):
            return
        self._task = asyncio.get_running_loop().create_task(
            self._publish(board, text), name="tinywindow-breaker-mirror"
        )

    async def _publish(self, board: TextBoard, text: str) -> None:
        now_s = self._clock.monotonic()
        try:
            await board.put(MIRROR_KEY, text, ttl_s=MIRROR_TTL_S, timeout_s=TIMEOUT_S)
            if self._beaten_s is None or now_s - self._beaten_s >= HEARTBEAT_INTERVAL_S:
                await self._beat.write(board)
                self._beaten_s = now_s
        except Exception as error:  # noqa: BLE001 - a mirror that fails is logged once, and harms nothing
            if not self._failing:
                _log.warning("circuit_breaker_mirror_failed", error=str(error) or repr(error))
            self._failing = True
        else:
            self._failing = False

    async def close(self) -> None:
        """Let the last publication end and let go of the connection."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=2 * TIMEOUT_S)
            self._task = None
        if self._bell is not None and not self._given:
            await self._bell.close()
