"""What one venue's flattening reads and writes, with the database or, while it is away, without.

The database is asked first, always, within a bound. What it cannot take goes to the journal, and
the closing goes on from what was last known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

import structlog

from tinywindow.safety.domain.audit import AuditDraft, EventType, seal
from tinywindow.safety.domain.flatten import is_spot
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, effective_mode
from tinywindow.safety.domain.money import EXACT, ZERO, plain
from tinywindow.safety.domain.order import DEFAULT_ACCOUNT, PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState, Position
from tinywindow.safety.domain.venue import OrderReport, VenuePosition
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.ports import Clock, Tx
from tinywindow.safety.services.bounded_store import BoundedStore
from tinywindow.safety.services.flatten_lease import VenueLease
from tinywindow.safety.services.kill_report import VenueReport, record_of, venue_report_of
from tinywindow.safety.services.settlement import FillReport, book_fill, move, release
from tinywindow.safety.services.stop_hints import StopHints
from tinywindow.safety.services.times import to_ms

__all__ = ["Directive", "FlattenLedger", "Intent", "directive_of"]

ACTOR: Final = "flattener"
_CLOSE: Final = KillSwitchMode.CLOSE_POSITIONS

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Directive:
    """What the standing stops ask of a venue; nothing where `mode` is None.

    `latch_ids` are the stops that ask for it; a breaker's trip has none, and cancels entries.
    """

    mode: KillSwitchMode | None = None
    latch_ids: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """How much it asks for."""
        return -1 if self.mode is None else self.mode.rank


@dataclass(frozen=True, slots=True)
class Intent:
    """The answer to a wish to send: may it go, at which epoch, and if not, why."""

    allowed: bool
    epoch: int = 0
    reason: str = ""


def directive_of(latches: tuple[Latch, ...], *, tripped: bool) -> Directive:
    """What a set of stops asks for."""
    mode = effective_mode(latches)
    if mode is None:
        return Directive(KillSwitchMode.HALT_ONLY) if tripped else Directive()
    ids = {latch.id for latch in latches if latch.standing and latch.mode is mode}
    return Directive(mode, tuple(sorted(ids)))


@dataclass(slots=True)
class FlattenLedger:
    """One venue's view of the ledger and the stops; belongs to one event loop."""

    venue: str
    store: BoundedStore
    lease: VenueLease
    clock: Clock
    hints: StopHints
    cancel_on_trip: bool
    _last: Directive = field(default_factory=Directive)
    _managed: dict[PositionKey, Decimal] = field(default_factory=dict)
    _holds: dict[str, Hold] = field(default_factory=dict)
    _offline: dict[str, Hold] = field(default_factory=dict)

    def now_ms(self) -> int:
        """The wall clock in milliseconds of Unix time."""
        return to_ms(self.clock.now())

    async def directive(self) -> Directive:
        """What the stops ask for now; what was last known counts while the database is away."""
        await self._catch_up()
        hints = self.hints.latches()

        def script(tx: Tx) -> Directive:
            tripped = self.cancel_on_trip and tx.standing_trip() is not None
            self._remember(tx)
            return directive_of((*tx.standing_latches(), *_unmerged(tx, hints)), tripped=tripped)

        try:
            self._last = await self.store.read(script)
        except StoreUnavailable as fault:
            _log.warning("flatten_without_database", venue=self.venue, error=str(fault))
            self._last = self._offline_directive()
        return self._last

    def _remember(self, tx: Tx) -> None:
        book = tx.book()
        self._managed = {
            key: position.amount
            for key, position in book.positions.items()
            if key.venue == self.venue
        }
        self._holds = {
            hold.client_order_id: hold
            for hold in book.holds.values()
            if hold.key.venue == self.venue and hold.intent_ms is not None
        }

    def _offline_directive(self) -> Directive:
        latches = (*self.hints.latches(), *self.store.kill_file.read())
        seen = directive_of(latches, tripped=False)
        return seen if seen.rank >= self._last.rank else self._last

    def managed(self) -> Mapping[str, Decimal]:
        """What our ledger manages here, signed, in base units by symbol, over all accounts.

        It is what was last read, moved by what filled while the database was away.
        """
        sums: dict[str, Decimal] = {}
        for key, amount in self._managed.items():
            sums[key.symbol] = EXACT.add(sums.get(key.symbol, ZERO), amount)
        for hold in self._offline.values():
            booked = self._holds.get(hold.client_order_id)
            new = EXACT.subtract(hold.filled, ZERO if booked is None else booked.filled)
            moved = new if hold.side is Side.BUY else -new
            sums[hold.key.symbol] = EXACT.add(sums.get(hold.key.symbol, ZERO), moved)
        return sums

    def key_of(self, symbol: str, leg: str) -> PositionKey:
        """The position of our ledger that a close of `symbol` moves."""
        keys = [key for key in self._managed if key.symbol == symbol and key.leg == leg]
        keys.sort(key=lambda key: (-abs(self._managed[key]), key))
        return keys[0] if keys else PositionKey(self.venue, DEFAULT_ACCOUNT, symbol, leg)

    def open_intents(self) -> tuple[Hold, ...]:
        """Every order of ours here, whichever process made it, that has not ended."""
        holds = {**self._holds, **self._offline}
        return tuple(hold for hold in holds.values() if hold.state.open)

    def in_flight(self, symbol: str, side: Side) -> Decimal:
        """What orders of ours may still fill on one side, in base units."""
        total = ZERO
        for hold in self.open_intents():
            if hold.key.symbol == symbol and hold.side is side:
                total = EXACT.add(total, hold.remaining)
        return total

    def row(
        self,
        row_id: str,
        data: Mapping[str, object],
        *,
        order_id: str | None = None,
        event: EventType = EventType.KILL_STEP,
    ) -> AuditDraft:
        """The audit row of one step of the flattening."""
        body = {"venue": self.venue, **data}
        return AuditDraft(row_id, self.clock.now(), event, ACTOR, body, order_id=order_id)

    async def intend(self, hold: Hold, step: AuditDraft) -> Intent:
        """Record the intent to send a slice, if the lease and the stop still stand."""
        hints = self.hints.latches()

        def script(tx: Tx) -> Intent:
            if not self.lease.mine(tx, now_ms=hold.created_ms):
                return Intent(False, reason="another flattener holds the lease")
            if effective_mode((*tx.standing_latches(), *_unmerged(tx, hints))) is not _CLOSE:
                return Intent(False, reason="the stop that asked for closing was released")
            if tx.hold(hold.client_order_id) is not None:
                return Intent(False, reason=f"the id {hold.client_order_id} is spent")
            tx.put_hold(hold)
            tx.audit(step)
            return Intent(True, tx.head().stop_epoch)

        try:
            intent = await self.store.write(script)
        except StoreUnavailable as fault:
            if self._offline_directive().mode is not _CLOSE or not self.lease.lock_host():
                return Intent(False, reason=f"{fault}; nothing here says that this process closes")
            self._journal(step)
            self._offline[hold.client_order_id] = hold
            return Intent(True)
        if intent.allowed:
            self._holds[hold.client_order_id] = hold
        return intent

    async def book(self, report: OrderReport, row: AuditDraft) -> None:
        """Book what the venue says of an order, if our ledger knows it."""
        ended = report.status.terminal
        price = report.average_price or report.price or ZERO
        fill = FillReport(
            report.client_order_id, report.filled, price, report.fee, ended, self.now_ms()
        )

        def script(tx: Tx) -> Hold | None:
            if tx.hold(report.client_order_id) is None:
                return None
            hold = book_fill(tx, fill, row)
            return hold if ended else move(tx, report.client_order_id, HoldState.WORKING, None)

        await self._settle(report.client_order_id, script, row, filled=report.filled, ended=ended)

    async def end(self, client_order_id: str, row: AuditDraft) -> None:
        """End an order of which nothing more can fill."""

        def script(tx: Tx) -> Hold | None:
            known = tx.hold(client_order_id) is not None
            return release(tx, client_order_id, row) if known else None

        await self._settle(client_order_id, script, row, ended=True)

    async def doubt(self, client_order_id: str, row: AuditDraft) -> None:
        """Say that nobody knows what became of an order."""

        def script(tx: Tx) -> Hold | None:
            known = tx.hold(client_order_id) is not None
            return move(tx, client_order_id, HoldState.UNKNOWN, row) if known else None

        await self._settle(client_order_id, script, row)

    async def _settle(
        self,
        client_order_id: str,
        script: Callable[[Tx], Hold | None],
        row: AuditDraft,
        *,
        filled: Decimal = ZERO,
        ended: bool = False,
    ) -> None:
        hold = self._offline.get(client_order_id)
        if hold is None:
            try:
                settled = await self.store.write(script)
            except StoreUnavailable:
                hold = self._holds.get(client_order_id)
                if hold is None:
                    return
            else:
                if settled is not None:
                    self._moved(settled)
                return
        # Its outcome is booked, and has its row, once the database is back.
        data = {"step": "SETTLED_WITHOUT_DATABASE", **row.data}
        self._journal(replace(row, event_type=EventType.KILL_STEP, data=data))
        state = hold.state
        if ended:
            state = HoldState.FILLED if filled >= hold.amount else HoldState.RELEASED
        filled = max(filled, hold.filled)
        self._offline[client_order_id] = replace(hold, filled=filled, state=state)

    def _moved(self, hold: Hold) -> None:
        """Take on what was just booked: what is managed must shrink with every sale, at once."""
        before = self._holds.get(hold.client_order_id)
        self._holds[hold.client_order_id] = hold
        more = EXACT.subtract(hold.filled, ZERO if before is None else before.filled)
        # How much of a purchase was booked before may not be known: then it waits for a read.
        bought = ZERO if before is None else more
        signed = bought if hold.side is Side.BUY else -more
        self._managed[hold.key] = EXACT.add(self._managed.get(hold.key, ZERO), signed)

    async def _catch_up(self) -> None:
        """Give the database the orders that were sent while it was away.

        They come in as UNKNOWN, so that what became of them is asked of the venue and booked.
        """
        if not self._offline:
            return
        offline = tuple(self._offline.values())

        def script(tx: Tx) -> None:
            for hold in offline:
                if tx.hold(hold.client_order_id) is None:
                    tx.put_hold(replace(hold, filled=ZERO, state=HoldState.UNKNOWN))

        try:
            await self.store.write(script)
        except StoreUnavailable:
            return
        self._offline.clear()

    async def align(self, positions: Iterable[VenuePosition], new_id: Callable[[], str]) -> None:
        """Have our ledger say what a venue that was proven flat says: what is left is dust.

        Of a spot balance never more than was ours before.
        """
        found = {(position.symbol, position.leg): position for position in positions}
        moved = []
        for key, amount in self._managed.items():
            seen = found.get((key.symbol, key.leg))
            left = ZERO if seen is None else seen.amount
            if is_spot(key.symbol):
                left = min(max(amount, ZERO), left)
            if left != amount:
                price = ZERO if seen is None else seen.mark_price or seen.entry_price or ZERO
                moved.append((key, left, price, new_id()))
        now_ms = self.now_ms()

        def script(tx: Tx) -> None:
            for key, left, price, row_id in moved:
                before = tx.book().positions.get(key)
                booked = ZERO if before is None else before.amount
                entry = price if before is None else before.price
                tx.put_position(Position(key, left, entry, now_ms, read_ms=now_ms))
                data = {"symbol": key.symbol, "booked": plain(booked), "found": plain(left)}
                tx.audit(self.row(row_id, data, event=EventType.POSITION_SET))

        if not moved:
            return
        try:
            await self.store.write(script)
        except StoreUnavailable as fault:
            _log.warning("flatten_ledger_not_aligned", venue=self.venue, error=str(fault))

    async def save(self, report: VenueReport) -> None:
        """Keep the progress, so that another process can go on and others can see it."""
        record = record_of(report, now_ms=self.now_ms())
        try:
            await self.store.write(lambda tx: tx.put_close_record(record))
        except StoreUnavailable as fault:
            _log.warning("flatten_progress_not_saved", venue=self.venue, error=str(fault))

    async def saved(self) -> VenueReport | None:
        """The progress that was last kept, by whichever process."""

        def script(tx: Tx) -> VenueReport | None:
            found = [record for record in tx.close_records() if record.venue == self.venue]
            return venue_report_of(found[0]) if found else None

        try:
            return await self.store.read(script)
        except StoreUnavailable:
            return None

    async def note(self, row: AuditDraft) -> None:
        """Leave an audit row, exactly once by its id; the journal takes it while need be."""

        def script(tx: Tx) -> None:
            tx.outbox(row)
            tx.drain_outbox()

        try:
            await self.store.write(script)
        except StoreUnavailable:
            self._journal(row)

    def _journal(self, row: AuditDraft) -> None:
        body = seal(row).body
        try:
            self.store.journal.append({"kind": "audit", "id": row.id, "body": body})
        except OSError as fault:
            _log.error("flatten_not_journalled", venue=self.venue, row=body, error=str(fault))


def _unmerged(tx: Tx, hints: tuple[Latch, ...]) -> tuple[Latch, ...]:
    """The stops of this process that the database does not know yet."""
    return tuple(latch for latch in hints if tx.latch(latch.id) is None)
