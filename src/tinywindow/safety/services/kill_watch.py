"""The watcher: sees stops that came by file, Redis or journal, latches and keeps them rung."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

import structlog

from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.errors import DoorbellUnavailable, StoreUnavailable
from tinywindow.safety.ports import Ring, Tx
from tinywindow.safety.services.end_task import end_task
from tinywindow.safety.services.stop_merge import (
    Arrivals,
    merge_journal,
    merge_stops,
    ring_digest,
)
from tinywindow.safety.services.stop_register import Seen, StopRegister, View, strongest
from tinywindow.safety.stores.ring_value import enveloped

__all__ = ["RELEASE_GRACE_S", "KillWatch"]

RELEASE_GRACE_S: Final = 2.0
"""How long a released latch's envelope may still stand: its release may just be under way."""
DRAIN_INTERVAL_S: Final = 5.0
"""How often the outbox is looked at without a reason; a stop of another process fills it."""

_log = structlog.get_logger(__name__)


class OnLook(Protocol):
    """Called after each look; `changed` says that it saw other stops than the one before."""

    def __call__(self, seen: Seen, *, changed: bool) -> None:
        """Take on what was seen."""
        ...


class KillWatch:
    """Looks every 100 ms, from the kill switch's first await on; absence never clears anything."""

    def __init__(
        self,
        register: StopRegister,
        *,
        on_look: OnLook,
        new_id: Callable[[], str],
    ) -> None:
        self._register = register
        self._on_look = on_look
        self._new_id = new_id
        self._task: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()
        self._before: object = None
        self._drained_s: float | None = None
        self._offline: dict[str, str] = {}
        self._standing: frozenset[str] = frozenset()

    def start(self) -> None:
        """Begin to watch, once; needs a running loop."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(
                self._watch(), name="tinywindow-kill-watch"
            )

    async def stop(self) -> None:
        """Watch no longer."""
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - a watcher that ends is a stop nobody sees
                _log.exception("kill_watch_failed")
            await asyncio.sleep(self._register.config.watch_interval)

    async def look(self) -> Seen:
        """Look once at everything, latch what is new, and give what was seen before that."""
        async with self._one:
            seen = await self._register.read()
            if seen.view is None:
                await self._without_database(seen)
            else:
                await self._with_database(seen, seen.view)
            signature = (
                frozenset(latch.id for latch in seen.latches),
                seen.mode,
                seen.view is not None and seen.view.tripped,
            )
            changed, self._before = signature != self._before, signature
            self._on_look(seen, changed=changed)
            return seen

    async def _with_database(self, seen: Seen, view: View) -> None:
        register = self._register
        self._standing = frozenset(latch.id for latch in view.standing)
        for latch in seen.local:
            if view.known.get(latch.id) is not None:
                register.let_go(latch.id)
        added = await self._merge(seen, view)
        if added:
            _log.warning("stops_latched", latch_ids=[latch.id for latch in added])
        await self._drain(due=bool(added))
        if added and any(latch.source is LatchSource.FILE for latch in added):
            self._own_file()
        self._clear_file(seen, view)
        await self._keep_rung(seen, (*view.standing, *added))

    async def _merge(self, seen: Seen, view: View) -> tuple[Latch, ...]:
        register = self._register
        unknown = tuple(latch for latch in (*seen.local, *seen.file) if latch.id not in view.known)
        ring = await self._arrived(seen.ring, view)
        try:
            offset, entries = register.store.journal.pending()
        except OSError as fault:
            _log.error("journal_not_read", error=str(fault))
            offset, entries = 0, ()
        if not unknown and ring is None and not entries:
            return ()
        arrivals = Arrivals(unknown, ring, view.last_release_ms, register.clock.now())

        def script(tx: Tx) -> tuple[int, tuple[Latch, ...] | None]:
            # First what was seen just now, so that the file's own mode is not taken for old.
            stops = merge_stops(tx, arrivals)
            return merge_journal(tx, entries), stops

        try:
            journalled, stops = await register.store.write(script)
        except StoreUnavailable as fault:
            _log.warning("stops_not_merged", error=str(fault))
            return ()
        register.store.journal.merged(offset)
        if journalled:
            _log.warning("journal_merged", latches=journalled)
            self._drained_s = None
        return () if stops is None else stops

    async def _arrived(self, ring: Ring | None, view: View) -> Ring | None:
        """The ring if it may be a stop that the database does not know."""
        if ring is None:
            return None
        latch_id = ring.latch_id
        if latch_id is None:
            return ring
        if any(latch.id == latch_id for latch in view.standing):
            return None
        asked = await self._register.view(
            frozenset({latch_id}), timeout_s=self._register.config.read_timeout
        )
        released = asked.known.get(latch_id)
        if released is None:
            return ring if latch_id not in asked.known else None
        age = abs(self._register.clock.now() - released)
        return ring if age > timedelta(seconds=RELEASE_GRACE_S) else None

    async def _drain(self, *, due: bool) -> None:
        now_s = self._register.clock.monotonic()
        if due or self._drained_s is None or now_s - self._drained_s >= DRAIN_INTERVAL_S:
            await self._register.drain()
            self._drained_s = now_s

    def _own_file(self) -> None:
        """Put our own form in place of a foreign file's content, under the same identity."""
        try:
            self._register.store.kill_file.write(())
        except OSError as fault:
            _log.warning("kill_file_not_replaced", error=str(fault))

    def _clear_file(self, seen: Seen, view: View) -> None:
        """Finish a release that another process or host began: the file names tombstones only."""
        if not seen.file:
            return
        released = [latch.id for latch in seen.file if view.known.get(latch.id) is not None]
        if len(released) < len(seen.file):
            return
        try:
            self._register.store.kill_file.remove(released)
        except OSError as fault:
            _log.warning("kill_file_not_removed", error=str(fault))

    async def _keep_rung(self, seen: Seen, standing: tuple[Latch, ...]) -> None:
        """Ring again what was lost, and put an envelope in place of a foreign value."""
        register = self._register
        latch = strongest(standing)
        if register.doorbell is None or latch is None:
            return
        if seen.ring is not None and seen.ring.latch_id is not None:
            if any(known.id == seen.ring.latch_id for known in standing):
                return
        elif seen.unknown:
            return
        replacing = None if seen.ring is None else seen.ring.raw
        if await register.ring(latch, replacing=replacing) is not None:
            return
        await self._take_back_if_released(latch)

    async def _take_back_if_released(self, latch: Latch) -> None:
        """Read the latch again after ringing: a release may have come in between."""
        register = self._register
        try:
            asked = await register.view(
                frozenset({latch.id}), timeout_s=register.config.read_timeout
            )
            if asked.known.get(latch.id) is not None and register.doorbell is not None:
                await register.doorbell.silence([latch.id])
        except (StoreUnavailable, DoorbellUnavailable) as fault:
            _log.warning("ring_not_checked", error=str(fault))

    async def _without_database(self, seen: Seen) -> None:
        """Hold what is seen in this process and in the journal, until the database is back."""
        register = self._register
        held = {latch.id for latch in seen.local}
        for latch in seen.file:
            if latch.id not in held:
                register.hold(latch)
                register.write_journal(latch)
        ring = seen.ring
        if ring is None or ring.latch_id in held | self._standing:
            return
        digest = ring_digest(ring.raw)
        if self._offline.get(digest) in held:
            return
        latch = self._offline_latch(ring)
        self._offline[digest] = latch.id
        register.hold(latch)
        register.write_file(latch)
        register.write_journal(latch)
        if ring.latch_id is None:
            await register.ring(latch, replacing=ring.raw)

    def _offline_latch(self, ring: Ring) -> Latch:
        """The latch for a ring whose history cannot be asked; an envelope can at most halt."""
        now = self._register.clock.now()
        named = enveloped(ring.raw)
        if named is not None:
            reason = f"Redis names the stop {named.id}, and the database cannot be asked about it"
            return Latch(
                f"seen-{named.id}"[:64],
                KillSwitchMode.HALT_ONLY,
                reason,
                named.actor,
                LatchSource.REDIS,
                now,
            )
        shown = ascii(ring.raw[:80].decode("utf-8", "replace"))
        reason = f"the Redis key was set by hand to {shown}"
        return Latch(self._new_id(), ring.mode, reason, "unknown", LatchSource.REDIS, now)
