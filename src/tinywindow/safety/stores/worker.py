"""A thread that runs one job after another, stops first.

A job may be given up only while it waits. Once it has begun it runs to its end, so that nobody
is ever told "busy" about a transaction that commits a moment later.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from tinywindow.safety.errors import LedgerBusy, StoreUnavailable

__all__ = ["InlineWorker", "Job", "Runner", "Worker"]

T = TypeVar("T")

QUEUE_MAX: Final = 4096
"""Jobs that may wait; one more is answered busy."""


class Job(Generic[T]):
    """One piece of work, and whether it may still be given up."""

    def __init__(self, work: Callable[[Job[T]], T]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._begun = False
        self._given_up = False
        self.future: Future[T] = Future()

    def begin(self) -> bool:
        """Say that the work begins now; False when it was given up."""
        with self._lock:
            if self._given_up:
                return False
            self._begun = True
            return True

    def give_up(self) -> bool:
        """Give the work up; False when it has begun, and its result must be waited for."""
        with self._lock:
            if self._begun:
                return False
            self._given_up = True
            return True

    def run(self) -> None:
        """Do the work and hand its result, or its fault, to whoever waits."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._work(self)
        except BaseException as fault:  # noqa: BLE001 - a fault is handed on whole, never dropped
            self.future.set_exception(fault)
        else:
            self.future.set_result(result)


class Runner:
    """Where jobs run: a thread of their own, or at once in a simulated world."""

    async def run(
        self, work: Callable[[Job[T]], T], *, timeout_s: float | None, first: bool = False
    ) -> T:
        """Run `work` and give its result.

        Raises:
            LedgerBusy: no turn came within `timeout_s`; the work did not and will not run.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Let the running job end, refuse the others, and let go of the thread."""
        raise NotImplementedError


def _seen(waiter: asyncio.Future[T]) -> None:
    """Mark a fault as seen, for the case that whoever waited was cancelled meanwhile."""
    if not waiter.cancelled():
        waiter.exception()


class InlineWorker(Runner):
    """Runs every job at once, for a simulated world with one history for each seed."""

    async def run(
        self, work: Callable[[Job[T]], T], *, timeout_s: float | None, first: bool = False
    ) -> T:
        """Run `work` here and now."""
        del timeout_s, first
        job = Job(work)
        job.run()
        return job.future.result()

    def stop(self) -> None:
        """Nothing runs in the background."""


class Worker(Runner):
    """One daemon thread; its loop ends at `stop()`."""

    def __init__(self, name: str, *, on_stop: Callable[[], None]) -> None:
        self._queue: deque[Job[object]] = deque()
        self._ready = threading.Condition()
        self._stopped = False
        self._on_stop = on_stop
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while True:
            with self._ready:
                while not self._queue and not self._stopped:
                    self._ready.wait()
                if self._stopped:
                    waiting, self._queue = tuple(self._queue), deque()
                    break
                job = self._queue.popleft()
            job.run()
        for job in waiting:
            if job.give_up() and job.future.set_running_or_notify_cancel():
                job.future.set_exception(StoreUnavailable("the store was closed"))
        self._on_stop()

    def _submit(self, job: Job[object], *, first: bool) -> None:
        with self._ready:
            if self._stopped:
                raise StoreUnavailable("the store is closed")
            if len(self._queue) >= QUEUE_MAX and not first:
                raise LedgerBusy(f"more than {QUEUE_MAX} requests wait for the store")
            if first:
                self._queue.appendleft(job)
            else:
                self._queue.append(job)
            self._ready.notify()

    async def run(
        self, work: Callable[[Job[T]], T], *, timeout_s: float | None, first: bool = False
    ) -> T:
        """Run `work` on the thread and give its result."""
        job = Job(work)
        self._submit(job, first=first)  # type: ignore[arg-type]
        waiter = asyncio.wrap_future(job.future)
        waiter.add_done_callback(_seen)
        done, _ = await asyncio.wait({waiter}, timeout=timeout_s)
        if not done and job.give_up():
            waiter.cancel()
            raise LedgerBusy(f"no turn at the store came within {timeout_s} s")
        return await waiter

    def stop(self) -> None:
        """Let the running job end, refuse the others, and wait for the thread."""
        with self._ready:
            self._stopped = True
            self._ready.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)
