"""The kill switch: stop now, everywhere, durably; close if asked; release only by name."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Final, Self, TypeVar

from tinywindow.safety.config import KillSwitchConfig
from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.decision import Breach, Reason
from tinywindow.safety.domain.kill import KillState, KillSwitchMode, Latch, LatchSource
from tinywindow.safety.errors import DoorbellUnavailable, StartRefused
from tinywindow.safety.ports import Clock
from tinywindow.safety.services.adapters import adapt_all
from tinywindow.safety.services.bounded_store import BoundedStore
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.context import ContextHandle
from tinywindow.safety.services.doorbells import doorbell_for
from tinywindow.safety.services.flattener import (
    Flattener,
    FlattenerTask,
    FlattenerThread,
    FlattenTools,
)
from tinywindow.safety.services.heartbeat import Heartbeat
from tinywindow.safety.services.kill_report import KillReport, KillSwitchStatus
from tinywindow.safety.services.kill_status import StatusReader
from tinywindow.safety.services.kill_watch import KillWatch
from tinywindow.safety.services.kill_words import clean_line, known_mode
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.order_validator import new_order_id
from tinywindow.safety.services.release import (
    PendingRelease,
    Releaser,
    check_second,
    pending_release,
)
from tinywindow.safety.services.stop_hints import StopHints
from tinywindow.safety.services.stop_register import Seen, StopRegister
from tinywindow.safety.services.trading import start_trading, stop_trading

__all__ = ["KillSwitch"]

T = TypeVar("T")

STORE_TIMEOUT_S: Final = 2.0
"""How long what is no stop waits for the database."""
POLL_S: Final = 0.02
CLOSE_WAIT_S: Final = 2.0
"""How long `close()` waits for a flattener that has nothing left to do."""

_log = get_logger(__name__)


def _new_latch_id() -> str:
    return "K" + secrets.token_hex(10)


class KillSwitch:
    """Stops new trades at once, and closes positions where asked.

    It watches Redis, the file `KILL` and the journal from its first await on. One object may be
    used by many tasks of one event loop.
    """

    def __init__(
        self,
        redis_client: object,
        exchanges: object,
        db_connection: object,
        *,
        config: KillSwitchConfig | None = None,
        clock: Clock | None = None,
        new_id: Callable[[], str] = _new_latch_id,
        order_id: Callable[[], str] = new_order_id,
        inline: bool = False,
    ) -> None:
        """Check what was passed; nothing is opened before the first await.

        Args:
            redis_client: None, a URL, a `redis.asyncio` client, or a `Doorbell`.
            exchanges: a mapping from names to exchanges, or a list of exchanges.
            db_connection: an `AsyncEngine`, a database URL, or the path of an SQLite file.
            config: see `KillSwitchConfig`.
            clock: the system's by default.
            new_id: makes ids of latches and audit rows.
            order_id: makes client order ids.
            inline: flatten inside the caller's loop, with the caller's exchanges; for simulation.

        Raises:
            ConfigurationError: one of them is of a kind that is not accepted.
        """
        self._config = KillSwitchConfig() if config is None else config
        self._clock: Clock = SystemClock() if clock is None else clock
        self._new_id = new_id
        self._handle = ContextHandle(db_connection)
        exchanges_by_name = adapt_all(exchanges)
        hints = StopHints()
        self._register = StopRegister(
            BoundedStore(self._handle, STORE_TIMEOUT_S),
            doorbell_for(redis_client),
            self._clock,
            self._config,
            hints,
        )
        owner = f"{os.uname().nodename}:{os.getpid()}:{new_id()}"
        tools = FlattenTools(self._clock, self._config, hints, owner, new_id, order_id)
        self._flattener: Flattener | None = None
        if exchanges_by_name:
            self._flattener = (
                FlattenerTask(self._handle, exchanges_by_name, tools)
                if inline
                else FlattenerThread(
                    # At a stop every process opens one, and all read the whole book at once.
                    lambda: ContextHandle(db_connection, attempts=False),
                    exchanges_by_name,
                    tools,
                )
            )
        self._roles = {"kill-switch"} | ({"flattener"} if exchanges_by_name else set())
        self._watch = KillWatch(
            self._register,
            on_look=self._looked,
            new_id=new_id,
            heartbeat=Heartbeat(
                self._clock, secrets.token_hex(4), self._roles, self._register.halted_here
            ),
        )
        self._releaser = Releaser(self._register, new_id)
        self._status = StatusReader(self._clock, tuple(exchanges_by_name), self._flattener)
        self._pending: dict[str, PendingRelease] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    async def activate(
        self,
        mode: KillSwitchMode | str = KillSwitchMode.HALT_ONLY,
        reason: str = "",
        *,
        actor: str | None = None,
        source: LatchSource = LatchSource.PYTHON,
    ) -> KillReport:
        """Stop, now. Never raises for what is broken, and never lowers the mode in force.

        The process's own flag and the file `KILL` stand before anything is awaited; then the
        database and Redis are told at once, each within its bound; then venues cancel and close.
        It reports after `report_wait` seconds at the latest; closing goes on behind it.
        """
        errors: list[str] = []
        latch = Latch(
            self._new_id(),
            known_mode(mode, errors),
            clean_line(reason),
            clean_line(actor or "unknown"),
            source,
            self._clock.now(),
        )
        self._register.hold(latch)
        fault = self._register.write_file(latch)
        if fault is not None:
            errors.append(fault)
        # Whoever waits may be cancelled; the stop may not.
        return await asyncio.shield(self._task(self._carry_out(latch, errors)))

    async def _carry_out(self, latch: Latch, errors: list[str]) -> KillReport:
        self._watch.start()
        errors.extend(self._start_flattener())
        not_committed, not_rung = await asyncio.gather(
            self._register.commit(latch), self._register.ring(latch)
        )
        if not_committed is not None:
            not_journalled = self._register.write_journal(latch)
            errors.extend(e for e in (not_committed, not_journalled) if e is not None)
        if not_rung is not None:
            errors.append(not_rung)
        errors.extend(self._start_flattener())
        durable = not_committed is None
        if durable:
            self._behind(self._register.drain())
        _log.warning(
            "kill_switch_activated",
            latch_id=latch.id,
            mode=latch.mode.value,
            reason=latch.reason,
            actor=latch.actor,
            durable=durable,
            errors=errors,
        )
        seen = await self._register.read(ordered=False)
        await self._wait(lambda: self._status.reported(seen), self._config.report_wait)
        return self._status.report(
            await self._register.read(ordered=False), latch.id, tuple(errors), durable=durable
        )

    def _start_flattener(self) -> tuple[str, ...]:
        """Have the flattener look at the stops; what keeps it from starting, as sentences."""
        if self._flattener is None:
            return ()
        try:
            self._flattener.ensure(wake=True)
        except Exception as fault:  # noqa: BLE001 - a stop is told of it, and stands all the same
            _log.exception("flattener_not_started")
            return (f"the flattener could not be started: {type(fault).__name__}: {fault}",)
        return ()

    async def is_active(self) -> bool:
        """Whether a stop is in force: a latch, the file, the key, or a state that is unknown."""
        self._watch.start()
        return (await self._register.read(ordered=False)).active

    async def get_status(self) -> KillSwitchStatus:
        """Whether a stop is in force, why, and how far it is on each venue."""
        self._watch.start()
        return self._status.status(await self._register.read(ordered=False))

    async def found(self) -> tuple[Breach, ...]:
        """What Redis says against an order, within the order's bound; for the gate."""
        self._watch.start()
        self._roles.add("gate")
        try:
            ring = await self._register.look(timeout_s=self._config.order_timeout)
        except DoorbellUnavailable as fault:
            return (Breach(Reason.STATE_UNKNOWN, str(fault) or "Redis cannot be read"),)
        if ring is None:
            return ()
        return (Breach(Reason.KILL_SWITCH_ACTIVE, f"Redis holds a stop: {ring.mode.value}"),)

    async def deactivate(
        self,
        *,
        reason: str = "",
        actor: str | None = None,
        force: bool = False,
        seen: KillSwitchStatus | None = None,
    ) -> KillSwitchStatus | PendingRelease:
        """Release the stops that stand now, or those that the status `seen` shows; no others.

        It sends nothing and starts nothing: trading stays stopped until it is started. With
        `two_person` it gives a pending release, which another operator confirms.

        Raises:
            ReleaseRefused: a close is running, an outcome or the state is unknown, or a stop
                could not be cleared everywhere.
        """
        self._watch.start()
        asked_at = self._clock.now()
        # What rings or lies there unseen was there when the caller asked: it is latched first.
        await self._watch.look()
        status = await self.get_status()
        ids = frozenset(status.latch_ids_until(asked_at) if seen is None else seen.latch_ids)
        self._releaser.check(status, ids, closing=self._close_runs(status) and not force)
        by = clean_line(actor or "")
        if not self._config.two_person or not ids:
            return await self._release(ids, by=by or "unknown", reason=reason, force=force)
        pending = pending_release(
            tuple(sorted(ids)),
            release_id=self._new_id(),
            by=by,
            reason=clean_line(reason),
            now=self._clock.now(),
            ttl_s=self._config.release_ttl,
            confirm=lambda asked, second, why: self._confirm(asked, second, why, force=force),
        )
        self._pending = {key: known for key, known in self._pending.items() if not known.used} | {
            pending.id: pending
        }
        return pending

    def pending(self, release_id: str) -> PendingRelease | None:
        """A release that waits for its second operator, by its id."""
        return self._pending.get(release_id)

    async def _confirm(
        self, pending: PendingRelease, actor: str, reason: str, *, force: bool
    ) -> KillSwitchStatus:
        check_second(pending, actor, self._clock.now())
        ids = frozenset(pending.latch_ids)
        status = await self.get_status()
        self._releaser.check(status, ids, closing=self._close_runs(status) and not force)
        why = "; ".join(text for text in (pending.reason, clean_line(reason)) if text)
        by = f"{pending.requested_by} and {clean_line(actor)}"
        return await self._release(ids, by=by, reason=why, force=force)

    async def _release(
        self, ids: frozenset[str], *, by: str, reason: str, force: bool
    ) -> KillSwitchStatus:
        if ids:
            work = self._releaser.release(ids, by=by, reason=clean_line(reason), force=force)
            released = await asyncio.shield(self._task(work))
            _log.warning("kill_switch_released", latch_ids=list(released), by=by, forced=force)
        if self._flattener is not None and self._flattener.running:
            self._flattener.ensure(wake=True)
        return await self.get_status()

    def _close_runs(self, status: KillSwitchStatus) -> bool:
        """Whether anybody closes, or has to; without a venue anywhere there is nobody."""
        return self._flattener is not None or bool(status.venues)

    async def wait_flat(self, timeout: float) -> KillReport:  # noqa: ASYNC109 - the public name
        """Wait until every venue was proven flat, or `timeout` seconds have passed; report."""
        self._watch.start()
        until_s = self._clock.monotonic() + timeout
        while True:
            seen = await self._register.read(ordered=False)
            report = self._status.report(seen, "", seen.unknown, durable=seen.view is not None)
            if report.flat or self._clock.monotonic() >= until_s:
                return report
            await asyncio.sleep(min(POLL_S * 5, max(until_s - self._clock.monotonic(), 0)))

    async def start_trading(self, *, actor: str, reason: str = "") -> bool:
        """Set trading to running again; False when it runs already.

        Raises:
            StartRefused: a stop, a trip or an unknown state stands against it.
            StoreUnavailable: the database cannot be written.
        """
        status = await self.get_status()
        if status.active:
            raise StartRefused(f"the kill switch is active: {status.reason}")
        row = self._trading_row(EventType.TRADING_STARTED, actor, reason)
        return await self._register.store.write(lambda tx: start_trading(tx, row))

    async def stop_trading(self, *, actor: str, reason: str = "") -> bool:
        """Set trading to stopped, without a latch; False when it is stopped already.

        Raises:
            StoreUnavailable: the database cannot be written.
        """
        row = self._trading_row(EventType.TRADING_STOPPED, actor, reason)
        return await self._register.store.write(lambda tx: stop_trading(tx, row))

    def _trading_row(self, event: EventType, actor: str, reason: str) -> AuditDraft:
        data = {"reason": clean_line(reason)}
        return AuditDraft(self._new_id(), self._clock.now(), event, clean_line(actor), data)

    def _looked(self, seen: Seen, *, changed: bool) -> None:
        """After each look of the watcher: have the flattener run while anything asks for it."""
        if self._flattener is None:
            return
        tripped = seen.view is not None and seen.view.cancels_entries
        wanted = seen.latches or (tripped and self._config.cancel_entries_on_trip)
        if wanted or (changed and self._flattener.running):
            self._flattener.ensure(wake=changed)

    async def _wait(self, done: Callable[[], bool], timeout_s: float) -> None:
        until_s = self._clock.monotonic() + timeout_s
        while not done() and self._clock.monotonic() < until_s:  # noqa: ASYNC110 - other thread
            await asyncio.sleep(POLL_S)

    def _behind(self, work: Coroutine[object, object, None]) -> None:
        """Run work that nobody waits for; `close()` does."""
        task = self._task(work)
        task.add_done_callback(_told)

    def _task(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run work that must not end with whoever waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Let go of everything. A close of positions that runs goes on to its end."""
        await self._watch.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_WAIT_S)
        flattener = self._flattener
        if flattener is not None:
            await flattener.stop()
            states = {report.state for report in flattener.reports.values()}
            if not states & {KillState.CLOSING, KillState.INCOMPLETE}:
                await self._wait(lambda: not flattener.running, CLOSE_WAIT_S)
        self._register.leave()
        if self._register.doorbell is not None:
            await self._register.doorbell.close()
        await self._handle.close()

    async def __aenter__(self) -> Self:
        """Open the store and begin to watch."""
        await self.is_active()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()


def _told(task: asyncio.Task[None]) -> None:
    """Log the fault of work that nobody waits for."""
    if not task.cancelled() and task.exception() is not None:
        _log.error("kill_switch_task_failed", error=repr(task.exception()))
