"""The ear: looks at Redis often and alone, so that no slow database keeps a stop from being heard.

What it hears is left in the register's notes, which every order commits against; the watcher
latches it. Announcements wake it early and are trusted for nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Final, Protocol, runtime_checkable

from tinywindow.safety.errors import DoorbellUnavailable
from tinywindow.safety.services.end_task import end_task
from tinywindow.safety.services.heartbeat import HEARTBEAT_INTERVAL_S, Heartbeat, TextBoard
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.redis_advice import Asked, advise
from tinywindow.safety.services.stop_register import StopRegister

__all__ = ["Announcing", "BellWatch"]

LOOK_INTERVAL_S: Final = 0.1
"""How often Redis is looked at; the watcher's interval where that is shorter."""
LOOK_GAP_MIN_S: Final = 0.01
"""The least pause between two looks, however many announcements arrive."""
LISTEN_PAUSE_S: Final = 1.0
"""How long after a failure Redis is listened to again."""

_log = get_logger(__name__)


@runtime_checkable
class Announcing(Protocol):
    """A doorbell that can say "look now"."""

    def announcements(self) -> AsyncIterator[None]:
        """Give one item for each time that something may have changed."""
        ...


class BellWatch:
    """Three tasks on one doorbell: looking, listening, and the process's own heartbeat."""

    def __init__(self, register: StopRegister, heartbeat: Heartbeat) -> None:
        self._register = register
        self._heartbeat = heartbeat
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, once; needs a running loop. Does nothing where there is no Redis."""
        bell = self._register.doorbell
        if bell is None or self._tasks:
            return
        self._run(self._look_on(), "look")
        if isinstance(bell, Announcing):
            self._run(self._listen(bell), "listen")
        if isinstance(bell, TextBoard):
            self._run(self._beat(bell), "beat")

    def _run(self, work: Coroutine[object, object, None], name: str) -> None:
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(work, name=f"tinywindow-bell-{name}"))

    async def stop(self) -> None:
        """Hear nothing more."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            await end_task(task)

    async def _look_on(self) -> None:
        config = self._register.config
        interval_s = min(config.watch_interval, LOOK_INTERVAL_S)
        told = _Told("redis_not_read")
        while True:
            self._woken.clear()
            begun_s = self._register.clock.monotonic()
            try:
                await self._register.look(timeout_s=config.read_timeout)
                told.well()
            except Exception as fault:  # noqa: BLE001 - what is not heard makes orders be refused
                told.failed(fault)
            await asyncio.sleep(min(LOOK_GAP_MIN_S, interval_s))
            await self._until_due(begun_s, interval_s)

    async def _until_due(self, begun_s: float, interval_s: float) -> None:
        """Wait until somebody rings, or until nobody has looked for so long: orders look too."""
        register = self._register
        while not self._woken.is_set():
            heard_s = register.notes.heard_s
            newest_s = begun_s if heard_s is None else max(begun_s, heard_s)
            left_s = newest_s + interval_s - register.clock.monotonic()
            if left_s <= 0:
                return
            await _until(self._woken, left_s)

    async def _listen(self, bell: Announcing) -> None:
        told = _Told("redis_not_listened_to")
        while True:
            try:
                async for _ in bell.announcements():
                    told.well()
                    self._woken.set()
                # What was missed between two subscriptions is looked for at once.
                self._woken.set()
            except Exception as fault:  # noqa: BLE001 - a hint that is lost: the looks go on
                told.failed(fault)
            await asyncio.sleep(LISTEN_PAUSE_S)

    async def _beat(self, board: TextBoard) -> None:
        told = _Told("heartbeat_not_written")
        advised = False
        while True:
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)
            try:
                if not advised and isinstance(board, Asked):
                    advised = True
                    await _warn(board)
                await self._heartbeat.write(board)
                told.well()
            except Exception as fault:  # noqa: BLE001 - a heartbeat stops and starts nothing
                told.failed(fault)


async def _warn(bell: Asked) -> None:
    """Say once what in Redis's settings may lose a stop that nobody saw yet."""
    async for advice in advise(bell):
        if advice.grave:
            _log.warning("redis_settings", what=advice.what, mend=advice.mend)


class _Told:
    """Says once that something fails, and once that it works again."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._failing = False
        self._say: Callable[..., object] = _log.warning

    def failed(self, fault: Exception) -> None:
        if not self._failing:
            kind = "" if isinstance(fault, DoorbellUnavailable) else type(fault).__name__
            self._say(self._event, error=str(fault) or repr(fault), kind=kind)
        self._failing = True

    def well(self) -> None:
        if self._failing:
            self._say(f"{self._event}_over")
        self._failing = False


async def _until(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for an event, at most so long."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
