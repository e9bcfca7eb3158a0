"""A thread that runs one job after another, stops first.

A job may be given up only while it waits. Once it has begun it runs to its end, so that nobody
is ever told "busy" about a transaction that commits a moment later. The thread first waits for
its turn and then picks the job, so that a stop never stands in line behind an order of its own
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from tinywindow.safety.errors import InvariantBroken, LedgerBusy, StoreUnavailable
from tinywindow.safety.stores.ticket import Turn

__all__ = ["InlineWorker", "Job", "Runner", "Worker"]

T = TypeVar("T")

QUEUE_MAX: Final = 4096
"""Jobs that may wait; one more is answered busy. Stops are not counted."""


class Job(Generic[T]):
    """One piece of work, whether it may still be given up, and what came of it."""

    def __init__(self, work: Callable[[], T], notify: Callable[[], None]) -> None:
        self._work = work
        self._notify = notify
        self._lock = threading.Lock()
        self._taken = False
        self._result: list[T] = []
        self._fault: BaseException | None = None

    def _take(self) -> bool:
        """Be the one who decides about the job; False when somebody did already."""
        with self._lock:
            taken, self._taken = self._taken, True
        return not taken

    def run(self) -> bool:
        """Do the work and keep its result or its fault; False when it was given up before."""
        if not self._take():
            return False
        try:
            self._result.append(self._work())
        except BaseException as fault:  # noqa: BLE001 - a fault is handed on whole, never dropped
            self._fault = fault
        self._notify()
        return True

    def give_up(self) -> bool:
        """Give the work up; False when it has begun, and its result must be waited for."""
        return self._take()

    def refuse(self, fault: BaseException) -> bool:
        """Give the work up with a fault for whoever waits; False when it has begun."""
        if not self._take():
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


class Runner:
    """Where jobs run: a thread of their own, or at once in a simulated world."""

    async def run(self, work: Callable[[], T], *, timeout_s: float, first: bool = False) -> T:
        """Run `work` and give its result.

        Raises:
            LedgerBusy: no turn came within `timeout_s`; the work did not and will not run.
            StoreUnavailable: the store is closed, or there can be no turn.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Let the running job end and refuse the others; waits for nothing."""
        raise NotImplementedError

    async def ended(self, *, timeout_s: float) -> None:
        """Wait until nothing runs any more, at most `timeout_s` seconds."""
        raise NotImplementedError


class InlineWorker(Runner):
    """Runs every job at once, for a simulated world with one history for each seed."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._stopped = False

    async def run(self, work: Callable[[], T], *, timeout_s: float, first: bool = False) -> T:
        """Run `work` here and now."""
        del timeout_s, first
        if self._stopped:
            raise StoreUnavailable("the store is closed")
        try:
            self._turn.take()
        except OSError as error:
            raise _no_turn(error) from error
        try:
            return work()
        finally:
            self._turn.give_back()

    def stop(self) -> None:
        """Refuse what comes from now on."""
        self._stopped = True

    async def ended(self, *, timeout_s: float) -> None:
        """Nothing runs in the background."""


class Worker(Runner):
    """One daemon thread; its loop ends at `stop()`."""

    def __init__(self, name: str, *, turn: Turn, on_stop: Callable[[], None]) -> None:
        self._turn = turn
        self._stops: deque[Job[object]] = deque()
        self._others: deque[Job[object]] = deque()
        self._ready = threading.Condition()
        self._stopped = False
        self._over = False
        self._watchers: list[Callable[[], None]] = []
        self._on_stop = on_stop
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        try:
            while self._wait_for_work():
                self._one_turn()
        finally:
            self._on_stop()
            with self._ready:
                self._over = True
                watchers = tuple(self._watchers)
            for watcher in watchers:
                watcher()

    def _wait_for_work(self) -> bool:
        with self._ready:
            while not (self._stops or self._others or self._stopped):
                self._ready.wait()
            return not self._stopped

    def _one_turn(self) -> None:
        """Take the turn, then pick the job: what came meanwhile and is a stop goes first."""
        try:
            self._turn.take()
        except OSError as error:
            job = self._next()
            if job is not None:
                job.refuse(_no_turn(error))
            return
        try:
            job = self._next()
            while job is not None and not job.run():
                job = self._next()
        finally:
            self._turn.give_back()

    def _next(self) -> Job[object] | None:
        with self._ready:
            if self._stops:
                return self._stops.popleft()
            return self._others.popleft() if self._others else None

    def _submit(self, job: Job[object], *, first: bool) -> None:
        with self._ready:
            if self._stopped:
                raise StoreUnavailable("the store is closed")
            if first:
                self._stops.append(job)
            elif len(self._others) < QUEUE_MAX:
                self._others.append(job)
            else:
                raise LedgerBusy(f"more than {QUEUE_MAX} requests wait for the store")
            self._ready.notify()

    async def run(self, work: Callable[[], T], *, timeout_s: float, first: bool = False) -> T:
        """Run `work` on the thread and give its result."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        job = Job(work, _notifier(loop, waiter))

        def expire() -> None:
            if not waiter.done():
                job.refuse(LedgerBusy(f"no turn at the store came within {timeout_s} s"))

        self._submit(job, first=first)  # type: ignore[arg-type]
        timer = loop.call_later(timeout_s, expire)
        try:
            await waiter
        except asyncio.CancelledError:
            # Nobody waits for it any more; a stop is carried out all the same.
            if not first:
                job.give_up()
            raise
        finally:
            timer.cancel()
        return job.outcome()

    def stop(self) -> None:
        """Let the running job end and refuse the others; waits for nothing."""
        with self._ready:
            self._stopped = True
            waiting = (*self._stops, *self._others)
            self._stops.clear()
            self._others.clear()
            self._ready.notify()
        for job in waiting:
            job.refuse(StoreUnavailable("the store was closed"))

    async def ended(self, *, timeout_s: float) -> None:
        """Wait until the thread has let go of everything, at most `timeout_s` seconds."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        with self._ready:
            if self._over:
                return
            self._watchers.append(_notifier(loop, waiter))
        await asyncio.wait({waiter}, timeout=timeout_s)


def _notifier(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> Callable[[], None]:
    def settle() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def notify() -> None:
        # A loop that has ended has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    return notify


def _no_turn(error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"the database hands out no turn: {error}")
