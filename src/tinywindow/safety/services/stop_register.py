"""Where the stops of this process are read from and written to: own flag, file, database, Redis."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from tinywindow.safety.config import KillSwitchConfig
from tinywindow.safety.domain.breaker_documents import entries_go_on_trip
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, effective_mode
from tinywindow.safety.errors import DoorbellUnavailable, StoreUnavailable
from tinywindow.safety.ports import Clock, Doorbell, Ring, Tx
from tinywindow.safety.services.bounded_store import BoundedStore
from tinywindow.safety.services.kill_report import VenueReport, venue_report_of
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.ring_notes import RingNotes, Sighting
from tinywindow.safety.services.stop_hints import StopHints
from tinywindow.safety.stores.fast_files import journal_entry
from tinywindow.safety.stores.latch_fields import activation_draft, latch_to_fields

__all__ = ["Seen", "StopRegister", "View"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """What the database said at one moment.

    `cancels_entries` says that a trip stands which cancels resting entries.
    `known` tells of the stops that were asked for: when each was released, None while it
    stands; one that the database does not know is not in it.
    """

    standing: tuple[Latch, ...]
    last_release_ms: int | None
    cancels_entries: bool
    records: tuple[VenueReport, ...]
    record_times_ms: tuple[int, ...]
    known: dict[str, datetime | None]


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that says whether a stop is in force; `unknown` is what could not be read."""

    view: View | None
    ring: Ring | None
    file: tuple[Latch, ...]
    local: tuple[Latch, ...]
    unknown: tuple[str, ...] = ()
    pending: tuple[Sighting, ...] = ()
    """Values seen on Redis's key, now or before, that are not known to be in the database."""

    @property
    def latches(self) -> tuple[Latch, ...]:
        """The stops with an identity that are in force, oldest first."""
        standing = () if self.view is None else self.view.standing
        found = {latch.id: latch for latch in standing}
        for latch in self._unreleased((*self.local, *self.file)):
            found.setdefault(latch.id, latch)
        return tuple(sorted(found.values(), key=lambda latch: (latch.activated_at, latch.id)))

    @property
    def active(self) -> bool:
        """Whether a stop is in force: anything that stands, rings, or cannot be read."""
        standing = self.view is not None and bool(self.view.standing)
        rings = self.ring is not None or bool(self.pending)
        local = bool(self._unreleased(self.local))
        return standing or rings or local or bool(self.file) or bool(self.unknown)

    def _unreleased(self, latches: tuple[Latch, ...]) -> tuple[Latch, ...]:
        known = {} if self.view is None else self.view.known
        return tuple(latch for latch in latches if known.get(latch.id) is None)

    @property
    def mode(self) -> KillSwitchMode | None:
        """The mode in force; what is present but cannot be read is HALT_ONLY."""
        modes = [latch.mode for latch in self.latches if latch.standing]
        rings = [sighting.ring for sighting in self.pending]
        if self.ring is not None:
            rings.append(self.ring)
        for ring in rings:
            # An envelope that names a released latch never closes anything.
            ours = ring.latch_id is not None
            modes.append(KillSwitchMode.HALT_ONLY if ours else ring.mode)
        if not modes:
            return KillSwitchMode.HALT_ONLY if self.active else None
        return max(modes, key=lambda mode: mode.rank)


@dataclass(slots=True)
class StopRegister:
    """One kill switch's access to every place where a stop can stand."""

    store: BoundedStore
    doorbell: Doorbell | None
    clock: Clock
    config: KillSwitchConfig
    hints: StopHints
    notes: RingNotes = field(init=False)
    _own: dict[str, Latch] = field(default_factory=dict)
    _next_look: asyncio.Task[Ring | None] | None = None
    _looks: set[asyncio.Task[Ring | None]] = field(default_factory=set)
    _patience_s: float = 0.0

    def __post_init__(self) -> None:
        self.notes = RingNotes(self.clock)

    def hold(self, latch: Latch) -> None:
        """Set the process's own flag; nothing is awaited, so nothing can come in between."""
        self._own[latch.id] = latch
        self.hints.add(latch)
        context = self.store.handle.glance()
        if context is not None:
            context.local_stops[latch.id] = latch

    def let_go(self, latch_id: str) -> None:
        """Take the own flag back for a stop that is known to be released."""
        self._own.pop(latch_id, None)
        self.hints.drop(latch_id)
        context = self.store.handle.glance()
        if context is not None:
            context.local_stops.pop(latch_id, None)

    def local(self) -> tuple[Latch, ...]:
        """The process's own flag: stops not known to be released."""
        context = self.store.handle.glance()
        shared = {} if context is None else context.local_stops
        if context is not None:
            for latch_id, latch in self._own.items():
                shared.setdefault(latch_id, latch)
        return tuple({**shared, **self._own}.values())

    async def view(self, asked: frozenset[str], *, timeout_s: float) -> View:
        """Read the database.

        Raises:
            StoreUnavailable: it did not answer in time.
        """

        def script(tx: Tx) -> View:
            known = {}
            for latch_id in asked:
                latch = tx.latch(latch_id)
                if latch is not None:
                    known[latch_id] = latch.released_at
            records = tx.close_records()
            return View(
                standing=tx.standing_latches(),
                last_release_ms=tx.last_release_ms(),
                cancels_entries=tx.standing_trip() is not None
                and entries_go_on_trip(tx.book().documents),
                records=tuple(venue_report_of(record) for record in records),
                record_times_ms=tuple(record.updated_ms for record in records),
                known=known,
            )

        return await self.store.read(script, timeout_s=timeout_s)

    async def look(self, *, timeout_s: float) -> Ring | None:
        """Look at Redis; None where the key is absent, or where there is no Redis.

        All who ask in one turn of the loop share the look that begins in the next one.

        Raises:
            DoorbellUnavailable: it could not be read.
        """
        bell = self.doorbell
        if bell is None:
            return None
        self._listen()
        self._patience_s = max(self._patience_s, timeout_s)
        look = self._look_to_come(bell)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(look)
        except TimeoutError as fault:
            raise DoorbellUnavailable(f"Redis did not answer within {timeout_s} s") from fault
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if look.cancelled() and own is not None and not own.cancelling():
                # Not whoever asks was given up, but the look.
                raise DoorbellUnavailable("the look at Redis was given up") from None
            raise

    def _look_to_come(self, bell: Doorbell) -> asyncio.Task[Ring | None]:
        """The look that begins in the next turn of the running loop."""
        loop = asyncio.get_running_loop()
        known = self._next_look
        if known is not None and not known.done() and known.get_loop() is loop:
            return known
        look = loop.create_task(self._look(bell), name="tinywindow-look")
        self._next_look = look
        self._looks.add(look)
        look.add_done_callback(self._looked)
        return look

    async def _look(self, bell: Doorbell) -> Ring | None:
        self._next_look = None
        bound_s, self._patience_s = self._patience_s, 0.0
        begun_s, at = self.clock.monotonic(), self.clock.now()
        ring = await bell.look(timeout_s=bound_s)
        self.notes.heard(ring, begun_s, at)
        return ring

    def _looked(self, look: asyncio.Task[Ring | None]) -> None:
        """Whoever waited was told what came of it; where nobody waits any more, nobody is."""
        self._looks.discard(look)
        if not look.cancelled():
            look.exception()

    def _listen(self) -> None:
        """Have every order on this store refused for what these notes say."""
        context = self.store.handle.glance()
        if context is not None:
            context.bells.setdefault(id(self), self.notes.breach)

    def halted_here(self) -> bool:
        """Whether this process refuses entries for a stop, by what it has in memory."""
        context = self.store.handle.glance()
        if context is None:
            return bool(self._own)
        latched = context.store.peek(lambda book: book is not None and bool(book.latches))
        return latched or context.stop_probe() is not None

    def leave(self) -> None:
        """Look no more, and refuse no more orders for what these notes say."""
        for look in tuple(self._looks):
            look.cancel()
        context = self.store.handle.glance()
        if context is not None:
            context.bells.pop(id(self), None)

    async def read(self, *, ordered: bool = True) -> Seen:
        """Read everything; `ordered` reads the database strictly before Redis, else at once.

        The order matters to whoever latches what it sees: what rings after the database was read
        cannot have been released by what the database then said.
        """
        file = self.store.kill_file.read() if self.store.kill_file.exists() else ()
        # What the watcher latches after the database was read here is pending no more at the end.
        pending = self.notes.pending()
        asked = frozenset(latch.id for latch in (*file, *self.local()))
        if ordered:
            view = await self._view_or_fault(asked)
            ring = await self._ring_or_fault()
        else:
            view, ring = await asyncio.gather(self._view_or_fault(asked), self._ring_or_fault())
        unknown = [fault for fault in (view, ring) if isinstance(fault, str)]
        return Seen(
            None if isinstance(view, str) else view,
            None if isinstance(ring, str) else ring,
            file,
            # Opening the store brings the stops along that other objects of this process hold.
            self.local(),
            tuple(unknown),
            tuple(dict.fromkeys((*pending, *self.notes.pending()))),
        )

    async def _view_or_fault(self, asked: frozenset[str]) -> View | str:
        try:
            return await self.view(asked, timeout_s=self.config.read_timeout)
        except StoreUnavailable as fault:
            return f"the database cannot be read: {fault}"

    async def _ring_or_fault(self) -> Ring | str | None:
        try:
            return await self.look(timeout_s=self.config.read_timeout)
        except DoorbellUnavailable as fault:
            return str(fault) or "Redis cannot be read"

    def write_file(self, latch: Latch) -> str | None:
        """Put a stop into the file `KILL`; an error as a sentence."""
        try:
            self.store.kill_file.write([latch])
        except OSError as fault:
            _log.error("kill_file_not_written", error=str(fault), latch_id=latch.id)
            return f"the file KILL could not be written: {fault}"
        return None

    async def commit(self, latch: Latch) -> str | None:
        """Commit a stop to the database, its audit row in the outbox; an error as a sentence."""

        def script(tx: Tx) -> None:
            if tx.add_latch(latch):
                tx.outbox(activation_draft(latch))

        try:
            await self.store.write(script, timeout_s=self.config.write_timeout)
        except Exception as fault:  # noqa: BLE001 - whatever broke, the journal takes the stop
            _log.error("latch_not_committed", error=str(fault), latch_id=latch.id)
            return f"the database could not take the latch: {fault}"
        return None

    def write_journal(self, latch: Latch) -> str | None:
        """Put a stop into the journal, to be merged later; an error as a sentence."""
        try:
            self.store.journal.append(journal_entry(latch_to_fields(latch)))
        except OSError as fault:
            _log.error("latch_not_journalled", error=str(fault), latch_id=latch.id)
            return f"the journal could not take the latch: {fault}"
        return None

    async def ring(self, latch: Latch, *, replacing: bytes | None = None) -> str | None:
        """Ring Redis for a stop; an error as a sentence."""
        if self.doorbell is None:
            return None
        try:
            async with asyncio.timeout(self.config.write_timeout):
                await self.doorbell.ring(latch, replacing=replacing)
        except Exception as fault:  # noqa: BLE001 - whatever broke, the stop stands without it
            _log.warning("doorbell_not_rung", error=str(fault), latch_id=latch.id)
            return f"Redis could not be rung: {str(fault) or 'no answer in time'}"
        return None

    async def drain(self) -> None:
        """Let the audit rows of stops follow from the outbox; what fails is tried again later."""
        try:
            await self.store.write(lambda tx: tx.drain_outbox())
        except StoreUnavailable as fault:
            _log.warning("outbox_not_drained", error=str(fault))


def strongest(latches: tuple[Latch, ...]) -> Latch | None:
    """The stop that an envelope names: the first of the strongest mode."""
    mode = effective_mode(latches)
    return next((latch for latch in latches if latch.standing and latch.mode is mode), None)
