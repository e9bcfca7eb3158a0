"""The watcher: sees stops that came by file, Redis or journal, latches and keeps them rung."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.errors import DoorbellUnavailable, StoreUnavailable
from tinywindow.safety.ports import Ring, Tx
from tinywindow.safety.services.bell_watch import BellWatch
from tinywindow.safety.services.end_task import end_task
from tinywindow.safety.services.heartbeat import Heartbeat
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.ring_notes import Sighting
from tinywindow.safety.services.stop_merge import (
    RELEASE_GRACE_S,
    SEEN,
    Arrivals,
    merge_journal,
    merge_stops,
    ring_digest,
)
from tinywindow.safety.services.stop_register import Seen, StopRegister, View, strongest
from tinywindow.safety.stores.ring_value import enveloped

__all__ = ["RELEASE_GRACE_S", "KillWatch"]

DRAIN_INTERVAL_S: Final = 5.0
"""How often the outbox is looked at without a reason; a stop of another process fills it."""
QUIET_S: Final = 1.0
"""How long a database in which nothing stood is believed while no stop moved its token."""

_log = get_logger(__name__)


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
        heartbeat: Heartbeat,
    ) -> None:
        self._register = register
        self._ear = BellWatch(register, heartbeat)
        self._woken = asyncio.Event()
        register.notes.on_new = self._woken.set
        self._last_release_ms: int | None = None
        self._on_look = on_look
        self._new_id = new_id
        self._task: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()
        self._before: object = None
        self._drained_s: float | None = None
        self._offline: dict[str, str] = {}
        self._standing: frozenset[str] = frozenset()
        self._unchecked: dict[str, Latch] = {}
        self._quiet: tuple[int, float] | None = None

    def start(self) -> None:
        """Begin to watch, once; needs a running loop."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(
                self._watch(), name="tinywindow-kill-watch"
            )
        self._ear.start()

    async def stop(self) -> None:
        """Watch no longer."""
        await self._ear.stop()
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    async def _watch(self) -> None:
        while True:
            self._woken.clear()
            try:
                if not self._still_quiet():
                    await self.look()
            except Exception:  # noqa: BLE001 - a watcher that ends is a stop nobody sees
                _log.exception("kill_watch_failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._register.config.watch_interval):
                    await self._woken.wait()

    def _still_quiet(self) -> bool:
        """Whether nothing stood at the last look, and nothing came since that a look would find.

        A stop in the database moves its token, and everything else shows without asking it: so
        processes that trade in peace do not read it ten times a second.
        """
        if self._quiet is None or self._one.locked():
            return False
        token, looked_s = self._quiet
        register = self._register
        try:
            journalled = bool(register.store.journal.pending()[1])
        except OSError:
            return False
        return (
            register.clock.monotonic() - looked_s < QUIET_S
            and self._token() == token
            and not register.local()
            and not register.store.kill_file.exists()
            and not journalled
            and (register.doorbell is None or register.notes.breach() is None)
        )

    def _token(self) -> int:
        """The store's token of stops; -1 where it is not known."""
        context = self._register.store.handle.glance()
        return -1 if context is None else context.store.stop_token()

    async def look(self) -> Seen:
        """Look once at everything, latch what is new, and give what was seen before that."""
        async with self._one:
            begun = self._register.clock.now()
            token, looked_s = self._token(), self._register.clock.monotonic()
            seen = await self._register.read()
            if seen.view is None:
                await self._without_database(seen)
            else:
                await self._with_database(seen, seen.view, begun)
            signature = (
                frozenset(latch.id for latch in seen.latches),
                seen.mode,
                seen.view is not None and seen.view.cancels_entries,
            )
            changed, self._before = signature != self._before, signature
            self._on_look(seen, changed=changed)
            nothing = not seen.active and seen.view is not None and not seen.view.cancels_entries
            quiet = nothing and not changed and not self._unchecked and token >= 0
            self._quiet = (token, looked_s) if quiet else None
            return seen

    async def _with_database(self, seen: Seen, view: View, begun: datetime) -> None:
        register = self._register
        if view.last_release_ms != self._last_release_ms:
            self._last_release_ms = view.last_release_ms
            register.notes.released(())
        self._standing = frozenset(latch.id for latch in view.standing)
        for latch in seen.local:
            if view.known.get(latch.id) is not None:
                register.let_go(latch.id)
        added = await self._merge(seen, view, begun)
        if added:
            _log.warning("stops_latched", latch_ids=[latch.id for latch in added])
        await self._drain(due=bool(added))
        if added and any(latch.source is LatchSource.FILE for latch in added):
            self._own_file()
        self._clear_file(seen, view)
        for latch in tuple(self._unchecked.values()):
            await self._take_back_if_released(latch)
        await self._keep_rung(seen, (*view.standing, *added))

    async def _merge(self, seen: Seen, view: View, begun: datetime) -> tuple[Latch, ...]:
        register = self._register
        unknown = tuple(latch for latch in (*seen.local, *seen.file) if latch.id not in view.known)
        rings = await self._arrived(seen, view, begun)
        try:
            offset, entries = register.store.journal.pending()
        except OSError as fault:
            _log.error("journal_not_read", error=str(fault))
            offset, entries = 0, ()
        if not unknown and not rings and not entries:
            return ()
        arrivals = Arrivals(unknown, rings, view.last_release_ms, register.clock.now())

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
        if stops is None:
            return ()
        for sighting in rings:
            register.notes.settle(sighting)
        return stops

    async def _arrived(self, seen: Seen, view: View, begun: datetime) -> tuple[Sighting, ...]:
        """What was seen on the key and may be a stop that the database does not know.

        What needs nothing is settled; the value that stands now comes last.
        """
        sightings = list(seen.pending)
        now = seen.ring
        if now is not None and all(one.ring.raw != now.raw for one in sightings):
            sightings.append(Sighting(now, begun))
        arrived = []
        for sighting in sorted(sightings, key=lambda one: now is not None and one.ring == now):
            try:
                new = await self._may_be_new(sighting.ring, view, stands=sighting.ring == now)
            except StoreUnavailable as fault:
                # It stays, and entries with it, until the database can say.
                _log.warning("ring_not_judged", error=str(fault))
                continue
            if new:
                arrived.append(sighting)
            else:
                self._register.notes.settle(sighting)
        return tuple(arrived)

    async def _may_be_new(self, ring: Ring, view: View, *, stands: bool) -> bool:
        latch_id = ring.latch_id
        if latch_id is None:
            return True
        if any(latch.id == latch_id for latch in view.standing):
            return False
        asked = await self._register.view(
            frozenset({latch_id}), timeout_s=self._register.config.read_timeout
        )
        released = asked.known.get(latch_id)
        if released is None:
            return latch_id not in asked.known
        age = abs(self._register.clock.now() - released)
        return stands and age > timedelta(seconds=RELEASE_GRACE_S)

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
        if await self._released(latch) is not False:
            return
        replacing = None if seen.ring is None else seen.ring.raw
        # From here on the ring may stand, whatever becomes of the answer.
        self._unchecked[latch.id] = latch
        await register.ring(latch, replacing=replacing)
        await self._take_back_if_released(latch)

    async def _take_back_if_released(self, latch: Latch) -> None:
        """Read the latch again after ringing: a release may have come in between.

        What cannot be read, or not be taken back, is tried again at the next look.
        """
        bell = self._register.doorbell
        released = await self._released(latch)
        if released is None or bell is None:
            return
        try:
            if released:
                await bell.silence([latch.id])
        except DoorbellUnavailable as fault:
            _log.warning("ring_not_taken_back", error=str(fault))
            return
        self._unchecked.pop(latch.id, None)

    async def _released(self, latch: Latch) -> bool | None:
        """Whether the database says that a latch was released; None where it says nothing."""
        register = self._register
        try:
            asked = await register.view(
                frozenset({latch.id}), timeout_s=register.config.read_timeout
            )
        except StoreUnavailable as fault:
            _log.warning("ring_not_checked", error=str(fault))
            return None
        return asked.known.get(latch.id) is not None

    async def _without_database(self, seen: Seen) -> None:
        """Hold what is seen in this process and in the journal, until the database is back."""
        register = self._register
        held = {latch.id for latch in seen.local}
        for latch in seen.file:
            if latch.id not in held:
                register.hold(latch)
                register.write_journal(latch)
        rings = [sighting.ring for sighting in seen.pending]
        if seen.ring is not None and seen.ring not in rings:
            rings.append(seen.ring)
        for ring in rings:
            await self._hold_offline(ring, held)
        for sighting in seen.pending:
            register.notes.settle(sighting)

    async def _hold_offline(self, ring: Ring, held: set[str]) -> None:
        register = self._register
        digest = ring_digest(ring.raw)
        if ring.latch_id in held | self._standing or self._offline.get(digest) in held:
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
                f"{SEEN}{named.id}"[:64],
                KillSwitchMode.HALT_ONLY,
                reason,
                named.actor,
                LatchSource.REDIS,
                now,
            )
        shown = ascii(ring.raw[:80].decode("utf-8", "replace"))
        reason = f"the Redis key was set by hand to {shown}"
        # The id tells the value, so that what others latched for it is known for the same stop.
        latch_id = f"{SEEN}redis-{ring_digest(ring.raw)}-{self._new_id()}"[:64]
        return Latch(latch_id, ring.mode, reason, "unknown", LatchSource.REDIS, now)
