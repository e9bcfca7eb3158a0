"""Pieces of work that wait: one may be given up until it has begun, and has an outcome then."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from tinywindow.safety.errors import InvariantBroken

__all__ = [
    "Alone",
    "AnyJob",
    "Job",
    "Line",
    "Together",
    "giving",
    "raising",
    "waiter_and_notify",
]

T = TypeVar("T")
P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)


class Line(Protocol[P_co]):
    """The parts of one kind that wait. A part that was taken cannot be given up any more.

    It ends where there is no more of the kind, or where a stop waits.
    """

    def __iter__(self) -> Iterator[P_co]:
        """The line itself."""
        ...

    def __next__(self) -> P_co:
        """Take the next part."""
        ...

    def stop_waits(self) -> bool:
        """Whether a stop waits for what was taken."""
        ...


Together = Callable[[Line[P]], Iterator[Callable[[], T]]]
"""Takes parts from the line, at least one, and does them in their order. Gives each one's outcome
as it is known: a result, or a fault raised. A fault of its own, outside of any outcome, is that of
all parts that were taken and had none yet."""


class Job(Generic[P, T]):
    """One piece of work, whether it may still be given up, and what came of it."""

    def __init__(self, part: P, together: Together[P, T], notify: Callable[[], None]) -> None:
        self.part = part
        self.together = together
        self._notify = notify
        self._lock = threading.Lock()
        self._taken = False
        self._result: list[T] = []
        self._fault: BaseException | None = None

    def take(self) -> bool:
        """Begin the work, or give it up; False when somebody did already."""
        with self._lock:
            taken, self._taken = self._taken, True
        return not taken

    def settle(self, outcome: Callable[[], T]) -> None:
        """Keep the result, or the fault, of work that was begun, and wake up who waits for it."""
        try:
            self._result.append(outcome())
        except BaseException as fault:  # noqa: BLE001 - a fault is handed on whole, never dropped
            self._fault = fault
        self._notify()

    def refuse(self, fault: BaseException) -> bool:
        """Give the work up with a fault for whoever waits; False when it has begun."""
        if not self.take():
            return False
        self._fault = fault
        self._notify()
        return True

    def outcome(self) -> T:
        """The result, or the fault raised, once the job has ended."""
        if self._fault is not None:
            raise self._fault
        if not self._result:
            raise InvariantBroken("a job was asked for its result before it ended")
        return self._result[0]


AnyJob = Job[Any, Any]


class Alone:
    """A line of one, in a world where nothing comes beside it."""

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self._parts = iter(parts)

    def __iter__(self) -> Iterator[Any]:
        return self._parts

    def __next__(self) -> Any:  # noqa: ANN401 - whatever the kind's parts are
        return next(self._parts)

    def stop_waits(self) -> bool:
        """Never: every job is done at once."""
        return False


def giving(result: T) -> Callable[[], T]:
    """The outcome that is a result."""
    return lambda: result


def raising(fault: BaseException) -> Callable[[], Any]:
    """The outcome that is a fault."""

    def outcome() -> object:
        raise fault

    return outcome


def waiter_and_notify() -> tuple[asyncio.Future[None], Callable[[], None]]:
    """What to wait for in the running loop, and what ends the wait from any thread."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def notify() -> None:
        # A loop that has ended has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    return waiter, notify
