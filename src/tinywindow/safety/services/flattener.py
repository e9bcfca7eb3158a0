"""The flattener: carries stops out on all venues side by side, in a thread of its own.

A finished, blocked or cancelled event loop must not take a close along, so the thread has its
own loop, its own store connection and its own exchange instances. The end of the process waits
for a running close, up to `close_deadline`; another process resumes what is left.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from traceback import format_exc
from typing import Final, Protocol

from tinywindow.safety.config import KillSwitchConfig
from tinywindow.safety.domain.kill import KillState
from tinywindow.safety.ports import Clock, Exchange
from tinywindow.safety.services.bounded_store import BoundedStore
from tinywindow.safety.services.close_tally import CloseTally
from tinywindow.safety.services.context import ContextHandle
from tinywindow.safety.services.end_task import end_task
from tinywindow.safety.services.flatten_lease import VenueLease
from tinywindow.safety.services.flatten_ledger import FlattenLedger
from tinywindow.safety.services.kill_report import VenueReport
from tinywindow.safety.services.late_executor import LateExecutor
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.order_sweep import OrderSweep
from tinywindow.safety.services.position_closer import PositionCloser
from tinywindow.safety.services.round_errors import RoundErrors
from tinywindow.safety.services.stop_hints import StopHints
from tinywindow.safety.services.venue_calls import VenueCalls
from tinywindow.safety.services.venue_closer import VenueCloser

__all__ = ["FlattenTools", "Flattener", "FlattenerTask", "FlattenerThread"]

STORE_TIMEOUT_S: Final = 2.0
"""How long a flattener waits for its database before it goes on without."""
CLOSE_TIMEOUT_S: Final = 1.0
TICK_S: Final = 0.1
"""How often the thread looks whether the process is ending."""

HALT_EXIT_S: Final = 10.0
"""How long the end of the process waits for cancels that do not come through."""
_UNDER_WAY: Final = frozenset({KillState.CLOSING, KillState.INCOMPLETE})

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FlattenTools:
    """What a flattener works with, whichever thread it runs in."""

    clock: Clock
    config: KillSwitchConfig
    hints: StopHints
    owner: str
    new_id: Callable[[], str]
    new_order_id: Callable[[], str]


class Flattener(Protocol):
    """A flattener as the kill switch drives it."""

    @property
    def reports(self) -> Mapping[str, VenueReport]:
        """The newest report of each venue of this process."""
        ...

    def ensure(self, *, wake: bool) -> None:
        """Make sure that it runs; with `wake`, have it look at the stops at once."""
        ...

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        ...

    async def stop(self) -> None:
        """End a task of this loop; a thread goes on by itself until its work is done."""
        ...


@dataclass(slots=True)
class _Crew:
    """The closers of all venues on one event loop."""

    tools: FlattenTools
    publish: Callable[[VenueReport], None]
    abandoned: Callable[[], bool] = lambda: False
    closers: list[VenueCloser] = field(default_factory=list)

    def hire(self, handle: ContextHandle, exchanges: Mapping[str, Exchange]) -> None:
        """Make a closer for each venue."""
        for name, exchange in exchanges.items():
            self.closers.append(
                self._closer(name, exchange, BoundedStore(handle, STORE_TIMEOUT_S, hasty=True))
            )

    def _closer(self, name: str, exchange: Exchange, store: BoundedStore) -> VenueCloser:
        tools = self.tools
        calls = VenueCalls(exchange, name, tools.config.venue_timeout)
        ledger = FlattenLedger(
            venue=name,
            store=store,
            lease=VenueLease(name, tools.owner, store),
            clock=tools.clock,
            hints=tools.hints,
            cancel_on_trip=tools.config.cancel_entries_on_trip,
        )
        sweep = OrderSweep(
            calls, ledger, tools.clock, tools.config, tools.new_id, RoundErrors(), CloseTally()
        )
        return VenueCloser(
            sweep=sweep,
            positions=PositionCloser(sweep, tools.new_order_id),
            publish=self.publish,
            leaving=lambda: tools.hints.detached,
            abandoned=self.abandoned,
        )

    async def work(self) -> None:
        """Run all venues side by side until each is done; one that fails delays no other."""
        results = await asyncio.gather(
            *(closer.run() for closer in self.closers), return_exceptions=True
        )
        for closer, result in zip(self.closers, results, strict=True):
            if isinstance(result, BaseException):
                _log.error("flatten_venue_ended", venue=closer.venue, error=repr(result))

    def wake(self) -> None:
        """Have every venue look at the stops now."""
        for closer in self.closers:
            closer.wake.set()


class FlattenerTask:
    """A flattener inside the caller's own loop: for simulation, where one loop is the world."""

    def __init__(
        self, handle: ContextHandle, exchanges: Mapping[str, Exchange], tools: FlattenTools
    ) -> None:
        self._handle = handle
        self._exchanges = exchanges
        self._tools = tools
        self._reports: dict[str, VenueReport] = {}
        self._crew: _Crew | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def reports(self) -> Mapping[str, VenueReport]:
        """The newest report of each venue."""
        return dict(self._reports)

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        return self._task is not None and not self._task.done()

    def ensure(self, *, wake: bool) -> None:
        """Make sure that the task runs; with `wake`, have it look at the stops at once."""
        if self.running and self._crew is not None:
            if wake:
                self._crew.wake()
            return
        self._crew = _Crew(self._tools, self._publish)
        self._crew.hire(self._handle, self._exchanges)
        self._task = asyncio.get_running_loop().create_task(
            self._crew.work(), name="tinywindow-flattener"
        )

    def _publish(self, report: VenueReport) -> None:
        self._reports[report.venue] = report

    async def stop(self) -> None:
        """End the task, wherever it is; the progress it saved is resumed by the next."""
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)


class FlattenerThread:
    """A flattener in a thread of its own, started at the first stop and again at each later one."""

    def __init__(
        self,
        open_handle: Callable[[], ContextHandle],
        exchanges: Mapping[str, Exchange],
        tools: FlattenTools,
    ) -> None:
        self._open_handle = open_handle
        self._exchanges = exchanges
        self._tools = tools
        self._reports: dict[str, VenueReport] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._crew: _Crew | None = None
        self._ending_since_s: float | None = None

    @property
    def reports(self) -> Mapping[str, VenueReport]:
        """The newest report of each venue."""
        with self._lock:
            return dict(self._reports)

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        return self._thread is not None and self._thread.is_alive()

    def ensure(self, *, wake: bool) -> None:
        """Make sure that the thread runs; with `wake`, have it look at the stops at once."""
        with self._lock:
            if self.running:
                loop, crew = self._loop, self._crew
                if wake and loop is not None and crew is not None:
                    _call(loop, crew.wake)
                return
            forks = self._forks()
            self._loop = self._crew = None
            # No daemon: the interpreter waits for it before it ends.
            self._thread = threading.Thread(
                target=self._main, args=(forks,), name="tinywindow-flattener", daemon=False
            )
            self._thread.start()

    def _forks(self) -> dict[str, Exchange]:
        """An instance of each exchange for the thread; one that fails keeps back no other."""
        forks = {}
        for name, exchange in self._exchanges.items():
            try:
                forks[name] = exchange.fork()
            except Exception as fault:  # noqa: BLE001 - told; the venue stays CLOSING in reports
                _log.error("exchange_not_forked", venue=name, error=repr(fault))
        return forks

    def _publish(self, report: VenueReport) -> None:
        with self._lock:
            self._reports[report.venue] = report

    def _main(self, forks: Mapping[str, Exchange]) -> None:
        try:
            asyncio.run(self._work(forks))
        except Exception:  # noqa: BLE001 - nobody is above a thread
            # It is told, and the watcher starts another.
            _log.error("flattener_failed", trace=format_exc())

    async def _work(self, forks: Mapping[str, Exchange]) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(LateExecutor())
        handle = self._open_handle()
        crew = _Crew(self._tools, self._publish, self._abandoned)
        crew.hire(handle, forks)
        with self._lock:
            self._loop, self._crew = loop, crew
        ticker = asyncio.ensure_future(self._watch_process(crew))
        try:
            await crew.work()
        finally:
            ticker.cancel()
            with self._lock:
                self._loop = self._crew = None
            for name, fork in forks.items():
                await _close_quietly(name, fork)
            await handle.close()

    async def _watch_process(self, crew: _Crew) -> None:
        """Notice the end of the main thread: then only a running close is worth waiting for."""
        while threading.main_thread().is_alive():  # noqa: ASYNC110 - nothing else tells of it
            await asyncio.sleep(TICK_S)
        self._ending_since_s = self._tools.clock.monotonic()
        self._tools.hints.detached = True
        while True:
            crew.wake()
            await asyncio.sleep(TICK_S * 5)

    def _abandoned(self) -> bool:
        since_s = self._ending_since_s
        if since_s is None:
            return False
        closing = any(report.state in _UNDER_WAY for report in self.reports.values())
        limit_s = self._tools.config.close_deadline if closing else HALT_EXIT_S
        return self._tools.clock.monotonic() - since_s >= limit_s

    async def stop(self) -> None:
        """Let the thread end by itself: a close that runs goes on to its end."""
        self._tools.hints.detached = True
        with self._lock:
            loop, crew = self._loop, self._crew
        if loop is not None and crew is not None:
            _call(loop, crew.wake)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        # The loop was closed between two looks: its thread is ending, the watcher starts another.
        _log.debug("flattener_ended_meanwhile")


async def _close_quietly(name: str, exchange: Exchange) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await exchange.close()
    except Exception as fault:  # noqa: BLE001 - the work is done; a connection that will not close
        _log.warning("exchange_not_closed", venue=name, error=repr(fault))
