"""A thread that runs one job after another, stops first.

A job may be given up only while it waits. Once it has begun it runs to its end, so that nobody
is ever told "busy" about a transaction that commits a moment later. The thread first waits for
its turn and then picks the job, so that a stop never stands in line behind an order of its own
process that has not begun. Jobs of one kind that wait in line together may be done together.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from tinywindow.safety.errors import InvariantBroken, LedgerBusy, StoreUnavailable
from tinywindow.safety.stores.jobs import (
    Alone,
    AnyJob,
    Job,
    Line,
    Together,
    raising,
    waiter_and_notify,
)
from tinywindow.safety.stores.ticket import Turn

__all__ = ["InlineWorker", "Runner", "Worker"]

T = TypeVar("T")
P = TypeVar("P")

QUEUE_MAX: Final = 4096
"""Jobs that may wait; one more is answered busy. Stops are not counted."""
TOGETHER_MAX: Final = 16
"""Jobs that are done together at most: a stop that comes meanwhile waits for all of them."""


class Runner:
    """Where jobs run: a thread of their own, or at once in a simulated world."""

    async def run(self, work: Callable[[], T], *, timeout_s: float, first: bool = False) -> T:
        """Run `work` and give its result.

        Raises:
            LedgerBusy: no turn came within `timeout_s`; the work did not and will not run.
            StoreUnavailable: the store is closed, or there can be no turn.
        """
        raise NotImplementedError

    async def share(self, part: P, together: Together[P, T], *, timeout_s: float) -> T:
        """Do `part`, together with those in line for the same `together`; raises as `run` does."""
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

    async def share(self, part: P, together: Together[P, T], *, timeout_s: float) -> T:
        """Do `part` here and now, by itself."""

        def alone() -> T:
            (outcome,) = together(Alone((part,)))
            return outcome()

        return await self.run(alone, timeout_s=timeout_s)

    def stop(self) -> None:
        """Refuse what comes from now on."""
        self._stopped = True

    async def ended(self, *, timeout_s: float) -> None:
        """Nothing runs in the background."""


class Worker(Runner):
    """One daemon thread; its loop ends at `stop()`."""

    def __init__(self, name: str, *, turn: Turn, on_stop: Callable[[], None]) -> None:
        self._turn = turn
        self._stops: deque[AnyJob] = deque()
        self._others: deque[AnyJob] = deque()
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
            while job is not None and not self._done(job):
                job = self._next()
        finally:
            self._turn.give_back()

    def _next(self) -> AnyJob | None:
        with self._ready:
            if self._stops:
                return self._stops.popleft()
            return self._others.popleft() if self._others else None

    def behind(self, first: AnyJob) -> AnyJob | None:
        """The job right behind, where it can be done together with the first and no stop waits."""
        with self._ready:
            if self._stops or not self._others or first.together == _apart:
                return None
            return self._others.popleft() if self._others[0].together == first.together else None

    def stop_waits(self) -> bool:
        """Whether a stop waits for the job at hand."""
        return bool(self._stops)

    def _done(self, first: AnyJob) -> bool:
        """Do a job, and what may be done with it; False when it was given up before."""
        if not first.take():
            return False
        taken = _Taken(self, first)
        try:
            for outcome in first.together(taken):
                taken.waiting.popleft().settle(outcome)
            fault: BaseException = InvariantBroken("a job has no outcome")
        except BaseException as raised:  # noqa: BLE001 - a fault is handed on whole, never dropped
            fault = raised
        for job in taken.waiting:
            job.settle(raising(fault))
        return True

    def _submit(self, job: AnyJob, *, first: bool) -> None:
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
        return await self._answered(work, _apart, timeout_s, first=first)

    async def share(self, part: P, together: Together[P, T], *, timeout_s: float) -> T:
        """Do `part` on the thread, together with those that wait in line right behind it."""
        return await self._answered(part, together, timeout_s, first=False)

    async def _answered(
        self, part: P, together: Together[P, T], timeout_s: float, *, first: bool
    ) -> T:
        waiter, notify = waiter_and_notify()
        job = Job(part, together, notify)

        def expire() -> None:
            if not waiter.done():
                job.refuse(LedgerBusy(f"no turn at the store came within {timeout_s} s"))

        self._submit(job, first=first)
        timer = asyncio.get_running_loop().call_later(timeout_s, expire)
        try:
            await waiter
        except asyncio.CancelledError:
            # Nobody waits for it any more; a stop is carried out all the same.
            if not first:
                job.take()
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
        waiter, notify = waiter_and_notify()
        with self._ready:
            if self._over:
                return
            self._watchers.append(notify)
        await asyncio.wait({waiter}, timeout=timeout_s)


class _Taken:
    """A worker's line from one job on, and the jobs taken from it that have no outcome yet."""

    def __init__(self, worker: Worker, first: AnyJob) -> None:
        self._worker = worker
        self._first = first
        # No generator: it would know the line and the line it, and a result would outlive its job.
        self._left = TOGETHER_MAX
        self.waiting = deque([first])
        self.stop_waits = worker.stop_waits

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - whatever the kind's parts are
        begins = self._left == TOGETHER_MAX
        while self._left > 0:
            self._left -= 1
            if begins:
                return self._first.part
            job = self._worker.behind(self._first)
            if job is None:
                self._left = 0
            elif job.take():
                self.waiting.append(job)
                return job.part
        raise StopIteration


def _apart(works: Line[Callable[[], T]]) -> Iterator[Callable[[], T]]:
    """The way of jobs of which each has its turn by itself."""
    yield next(works)


def _no_turn(error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"the database hands out no turn: {error}")
