"""What one venue's flattening writes, with the database or, while it is away, without.

The database is asked first, always, within a bound. What it cannot take goes to the journal, and
the closing goes on from what was last known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from tinywindow.safety.domain.audit import AuditDraft, EventType, seal
from tinywindow.safety.domain.flatten import is_spot
from tinywindow.safety.domain.kill import KillSwitchMode, effective_mode
from tinywindow.safety.domain.money import EXACT, ZERO, plain
from tinywindow.safety.domain.order import Side
from tinywindow.safety.domain.records import CloseRecord, Hold, HoldState, Position
from tinywindow.safety.domain.venue import OrderReport, VenuePosition
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.directive import unmerged
from tinywindow.safety.services.flatten_view import FlattenView
from tinywindow.safety.services.journalled_intents import entry_of
from tinywindow.safety.services.kill_report import VenueReport, record_of, venue_report_of
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.settlement import FillReport, book_fill, move, release

__all__ = ["FlattenLedger", "Intent"]

ACTOR: Final = "flattener"
_CLOSE: Final = KillSwitchMode.CLOSE_POSITIONS

MOVED: Final = "the ledger moved since this was planned; it is planned anew"

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Intent:
    """The answer to a wish to send: may it go, at which epoch, and if not, why."""

    allowed: bool
    epoch: int = 0
    reason: str = ""


@dataclass(slots=True)
class FlattenLedger(FlattenView):
    """One venue's ledger as its flattener writes it; belongs to one event loop."""

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
        """Record the intent to send a slice, if lease, stop and ledger are still as planned."""
        self._notice_sleep()
        hints = self.hints.latches()
        record = self._record()

        def script(tx: Tx) -> Intent:
            if not self.lease.mine(tx, now_ms=hold.created_ms):
                return Intent(False, reason="another flattener holds the lease")
            if effective_mode((*tx.standing_latches(), *unmerged(tx, hints))) is not _CLOSE:
                return Intent(False, reason="the stop that asked for closing was released")
            if tx.hold(hold.client_order_id) is not None:
                return Intent(False, reason=f"the id {hold.client_order_id} is spent")
            if not self._as_planned(tx, hold):
                return Intent(False, reason=f"{hold.key.symbol}: {MOVED}")
            tx.put_hold(hold)
            tx.audit(step)
            self._keep(tx, record)
            return Intent(True, tx.head().stop_epoch)

        try:
            intent = await self.store.write(script)
        except StoreUnavailable as fault:
            if self._offline_directive().mode is not _CLOSE or not self.lease.lock_host():
                return Intent(False, reason=f"{fault}; nothing here says that this process closes")
            if is_spot(hold.key.symbol) and not self._known:
                return Intent(False, reason=f"{hold.key.symbol}: {fault}; {MOVED}")
            self._append(entry_of(hold))
            self._journal(step)
            self._offline[hold.client_order_id] = hold
            return Intent(True)
        if intent.allowed:
            self._holds[hold.client_order_id] = hold
        return intent

    def _as_planned(self, tx: Tx, hold: Hold) -> bool:
        """Whether nothing moved since the close was planned: no other sale, no other order.

        Another process may have sent an exit just before the stop reached the database; selling
        the same coins twice would sell the owner's.
        """
        symbol, side = hold.key.symbol, hold.side
        book = tx.book()
        rivals = [
            known
            for known in book.holds.values()
            if known.key.venue == self.venue and known.key.symbol == symbol
            if known.side is side and known.intent_ms is not None
        ]
        known_ids = {*self._holds, *self._offline}
        if any(rival.client_order_id not in known_ids for rival in rivals):
            return False
        if not is_spot(symbol):
            return True
        left = ZERO
        for key, position in book.positions.items():
            if key.venue == self.venue and key.symbol == symbol:
                left = EXACT.add(left, position.amount)
        for rival in rivals:
            left = EXACT.subtract(left, rival.remaining)
        return hold.amount <= left

    def _record(self) -> CloseRecord | None:
        if self.progress is None:
            return None
        return record_of(self.progress(), now_ms=self.now_ms())

    def _keep(self, tx: Tx, record: CloseRecord | None) -> None:
        """Keep the progress in the transaction that makes it, if this flattener still is the one.

        So whoever resumes after a crash knows exactly what was sent and filled.
        """
        if record is not None and self.lease.stands(tx):
            tx.put_close_record(record)

    async def book(self, report: OrderReport, row: AuditDraft) -> None:
        """Book what the venue says of an order, if our ledger knows it."""
        ended = report.status.terminal
        now_ms = self.now_ms()

        def script(tx: Tx) -> Hold | None:
            known = tx.hold(report.client_order_id)
            if known is None:
                return None
            price = self._price_of(tx, known, report)
            if price is None:
                _log.error("fill_without_price", venue=self.venue, order_id=known.client_order_id)
                return known
            fill = FillReport(
                report.client_order_id, report.filled, price, report.fee, ended, now_ms
            )
            hold = book_fill(tx, fill, row)
            return hold if ended else move(tx, report.client_order_id, HoldState.WORKING, None)

        await self._settle(report.client_order_id, script, row, filled=report.filled, ended=ended)

    def _price_of(self, tx: Tx, hold: Hold, report: OrderReport) -> Decimal | None:
        """The price of a fill; the nearest that is known where the venue does not say.

        A venue that tells an amount and no price may not keep the fill out of the ledger, since
        nothing could be closed or proven any more. None where no price is known at all.
        """
        if report.filled.is_zero():
            return ZERO
        book = tx.book()
        position = book.positions.get(hold.key)
        reference = book.prices.get(hold.key.symbol)
        candidates = (
            report.average_price,
            report.price,
            hold.price,
            self.marks.get(hold.key.symbol),
            None if reference is None else reference.price,
            None if position is None else position.price,
        )
        return next((price for price in candidates if price is not None and price > 0), None)

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
        record = self._record()

        def whole(tx: Tx) -> Hold | None:
            settled = script(tx)
            if settled is not None and settled.flatten:
                self._keep(tx, record)
            return settled

        if hold is None:
            try:
                settled = await self.store.write(whole)
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

    async def align(self, positions: Iterable[VenuePosition], new_id: Callable[[], str]) -> None:
        """Have our ledger say what a venue that was proven flat says: what is left is dust.

        Of a spot balance never more than was ours before.
        """
        found = {(position.symbol, position.leg): position for position in positions}
        seen_before = dict(self._managed)
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
            if effective_mode(tx.standing_latches()) is not _CLOSE:
                return
            for key, left, price, row_id in moved:
                before = tx.book().positions.get(key)
                booked = ZERO if before is None else before.amount
                if booked != seen_before[key]:
                    # Something was booked since: what the venue said then is no longer the news.
                    continue
                entry = price if before is None else before.price
                tx.put_position(Position(key, left, entry, now_ms, read_ms=now_ms))
                data = {"symbol": key.symbol, "booked": plain(booked), "found": plain(left)}
                tx.audit(self.row(row_id, data, event=EventType.POSITION_SET))

        if not moved or not self.fresh:
            return
        try:
            await self.store.write(script)
        except StoreUnavailable as fault:
            _log.warning("flatten_ledger_not_aligned", venue=self.venue, error=str(fault))

    async def save(self, report: VenueReport) -> bool:
        """Keep the progress, so that another process can go on and others can see it."""
        record = record_of(report, now_ms=self.now_ms())

        def script(tx: Tx) -> bool:
            stands = self.lease.stands(tx)
            if stands:
                tx.put_close_record(record)
            return stands

        try:
            return await self.store.write(script)
        except StoreUnavailable as fault:
            _log.warning("flatten_progress_not_saved", venue=self.venue, error=str(fault))
            return False

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
        self._append({"kind": "audit", "id": row.id, "body": body})

    def _append(self, entry: Mapping[str, object]) -> None:
        try:
            self.store.journal.append(entry)
        except OSError as fault:
            _log.error("flatten_not_journalled", venue=self.venue, entry=entry, error=str(fault))
