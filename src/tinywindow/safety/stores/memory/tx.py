"""A transaction over plain tables: the rules that the SQL stores keep with constraints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from tinywindow.safety.domain.audit import AuditDraft, AuditRow, SealedDraft, link, seal
from tinywindow.safety.domain.book import Book, Changes
from tinywindow.safety.domain.kill import Latch
from tinywindow.safety.domain.records import (
    CloseRecord,
    Head,
    Hold,
    HoldState,
    Lease,
    MarkRecord,
    Position,
    ReferencePrice,
    TradingState,
    Trip,
)
from tinywindow.safety.domain.windows import Execution, ExecutionKind, Outcome
from tinywindow.safety.errors import InvariantBroken, StoreUnavailable
from tinywindow.safety.ports import Clock
from tinywindow.safety.stores.memory.tables import Tables
from tinywindow.safety.stores.wall_time import stamped

__all__ = ["MemoryTx"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // _MS


class MemoryTx:
    """Implements `ports.Tx`."""

    wall: Clock | None = None

    def __init__(self, tables: Tables, book: Book, *, read_only: bool) -> None:
        self._tables = tables
        self._book = book
        self._before = tables.head
        self._head = tables.head
        self._read_only = read_only
        self._latches_moved = False
        self._trip_moved = False
        self._holds: list[Hold] = []
        self._positions: list[Position] = []
        self._prices: list[ReferencePrice] = []
        self._executions: list[Execution] = []
        self._documents: dict[str, str] = {}

    def _writing(self) -> None:
        if self._read_only:
            raise StoreUnavailable("a read must not write")

    def _touch(self) -> None:
        self._writing()
        if self._head.version == self._before.version:
            self._head = replace(self._head, version=self._before.version + 1)

    def _new_epoch(self) -> None:
        self._touch()
        self._head = replace(
            self._head, stop_epoch=self._head.stop_epoch + 1, trading=TradingState.STOPPED
        )

    def book(self) -> Book:
        """The book as it stood when the transaction began; read it before writing."""
        return self._book

    def head(self) -> Head:
        """The head row, own writes included."""
        return self._head

    def set_trading(self, state: TradingState) -> None:
        """Set whether an operator wants trading."""
        self._touch()
        self._head = replace(self._head, trading=state)

    # Stops.

    def standing_latches(self) -> tuple[Latch, ...]:
        """Every latch that stands, oldest first."""
        standing = (latch for latch in self._tables.latches.rows.values() if latch.standing)
        return tuple(sorted(standing, key=lambda latch: (latch.activated_at, latch.id)))

    def latch(self, latch_id: str) -> Latch | None:
        """One latch by its id, standing or released."""
        return self._tables.latches.rows.get(latch_id)

    def add_latch(self, latch: Latch) -> bool:
        """Latch a stop: grows the epoch and stops trading. False when the id was known."""
        self._writing()
        if latch.id in self._tables.latches.rows:
            return False
        kept = replace(
            latch,
            activated_at=_EPOCH + _ms(latch.activated_at) * _MS,
            released_at=latch.released_at and _EPOCH + _ms(latch.released_at) * _MS,
        )
        self._tables.latches.put(latch.id, kept)
        if latch.standing:
            self._new_epoch()
            self._latches_moved = True
        return True

    def release_latch(self, latch_id: str, *, at_ms: int, by: str, reason: str) -> bool:
        """Turn one standing latch into a tombstone. False when it did not stand."""
        self._writing()
        latch = self.latch(latch_id)
        if latch is None or not latch.standing:
            return False
        released = replace(
            latch, released_at=_EPOCH + at_ms * _MS, released_by=by, release_reason=reason
        )
        self._tables.latches.put(latch_id, released)
        self._touch()
        self._latches_moved = True
        return True

    def last_release_ms(self) -> int | None:
        """When a latch was last released, or None."""
        moments = [
            _ms(latch.released_at)
            for latch in self._tables.latches.rows.values()
            if latch.released_at is not None
        ]
        return max(moments, default=None)

    def standing_trip(self) -> Trip | None:
        """The breaker's standing trip, or None."""
        standing = (trip for trip in self._tables.trips.rows.values() if trip.cleared_ms is None)
        return next(standing, None)

    def last_trip(self) -> Trip | None:
        """The newest trip, standing or cleared."""
        trips = self._tables.trips.rows.values()
        return max(trips, key=lambda trip: (trip.tripped_ms, trip.id), default=None)

    def add_trip(self, trip: Trip) -> bool:
        """Latch a trip: grows the epoch and stops trading. False when one stands already."""
        self._writing()
        if self.standing_trip() is not None:
            return False
        _must(trip.id not in self._tables.trips.rows, f"the trip {trip.id} was written before")
        self._tables.trips.put(trip.id, replace(trip, cleared_ms=None, cleared_by=None))
        self._new_epoch()
        self._trip_moved = True
        return True

    def clear_trip(self, trip_id: str, *, at_ms: int, by: str) -> bool:
        """Clear the standing trip by its id. False when that trip does not stand."""
        self._writing()
        trip = self.standing_trip()
        if trip is None or trip.id != trip_id:
            return False
        self._tables.trips.put(trip_id, replace(trip, cleared_ms=at_ms, cleared_by=by))
        self._touch()
        self._trip_moved = True
        return True

    # The ledger.

    def hold(self, client_order_id: str) -> Hold | None:
        """One reservation by its id, open or ended."""
        return self._tables.holds.rows.get(client_order_id)

    def decision_spent(self, decision_id: str, client_order_id: str) -> bool:
        """Whether another order than this one already used the decision."""
        return self._tables.decisions.rows.get(decision_id, client_order_id) != client_order_id

    def put_hold(self, hold: Hold) -> None:
        """Insert or replace a reservation."""
        self._touch()
        _must(hold.amount > 0, "an order's amount is above zero")
        _must(hold.filled >= 0, "what is filled is not negative")
        _must(hold.price is None or hold.price > 0, "a limit price is above zero")
        _must(
            hold.state is not HoldState.HELD or hold.intent_ms is None,
            "an order with an intent is no longer merely held",
        )
        before = self.hold(hold.client_order_id)
        if before is not None and before.decision_id not in {None, hold.decision_id}:
            self._tables.decisions.drop([str(before.decision_id)])
        if hold.decision_id is not None:
            spent = self.decision_spent(hold.decision_id, hold.client_order_id)
            _must(not spent, f"the decision {hold.decision_id} was spent before")
            self._tables.decisions.put(hold.decision_id, hold.client_order_id)
        self._tables.holds.put(hold.client_order_id, hold)
        self._holds.append(hold)

    def add_fill(self, hold: Hold, *, at_ms: int) -> None:
        """Record a cumulative fill report of `hold`, for history."""
        self._writing()
        self._tables.fills.put(len(self._tables.fills.rows) + 1, (hold, at_ms))

    def put_position(self, position: Position) -> None:
        """Insert or replace a position; a zero amount means flat."""
        self._touch()
        self._tables.positions.put(position.key, position)
        self._positions.append(position)

    def put_price(self, price: ReferencePrice) -> None:
        """Insert or replace a reference price."""
        self._touch()
        _must(price.price > 0, "a reference price is above zero")
        self._tables.prices.put(price.symbol, price)
        self._prices.append(price)

    def set_exposure(self, exposure_micros: int) -> None:
        """Set the worst-case total that an approval leaves behind."""
        self._touch()
        self._head = replace(self._head, exposure_micros=exposure_micros)

    # What the breaker measures.

    def add_mark(self, mark: MarkRecord) -> int:
        """Append an equity mark; its `id` is ignored and the store's own returned."""
        self._writing()
        mark_id = max(self._tables.marks.rows, default=0) + 1
        self._tables.marks.put(mark_id, replace(mark, id=mark_id))
        return mark_id

    def marks(self, *, since_ms: int, limit: int, after_id: int = 0) -> tuple[MarkRecord, ...]:
        """Marks after `after_id` that were received at or after `since_ms`, oldest first."""
        marks = self._tables.marks.rows.values()
        found = (mark for mark in marks if mark.id > after_id and mark.received_ms >= since_ms)
        return tuple(found)[:limit]

    def newest_mark_ms(self) -> int | None:
        """When the newest mark was received, or None."""
        marks = self._tables.marks.rows.values()
        return max((mark.received_ms for mark in marks), default=None)

    def thin_marks(self, *, before_ms: int, keep_every_ms: int, keep_ids: Iterable[int]) -> int:
        """Drop marks older than `before_ms` but the first in each span; returns how many."""
        self._writing()
        keep = set(keep_ids)
        spans: set[int] = set()
        dropped: list[int] = []
        for mark in self._tables.marks.rows.values():
            if mark.received_ms >= before_ms:
                continue
            span = mark.received_ms // keep_every_ms
            if span in spans and mark.id not in keep:
                dropped.append(mark.id)
            spans.add(span)
        self._tables.marks.drop(dropped)
        return len(dropped)

    def put_execution(
        self,
        *,
        kind: str,
        at_ms: int,
        outcome: Outcome,
        resolved_ms: int | None,
        client_order_id: str | None,
    ) -> Execution:
        """Insert an attempt, or revise the one with the same client order id."""
        self._writing()
        known = None if client_order_id is None else self.execution(client_order_id)
        if known is None:
            row_id = len(self._tables.executions.rows) + 1
            row = Execution(row_id, ExecutionKind(kind), at_ms, outcome, resolved_ms)
        else:
            row = replace(known, outcome=outcome, resolved_ms=resolved_ms)
        if row == known:
            return row
        self._touch()
        self._tables.executions.put(row.id, row)
        if client_order_id is not None:
            self._tables.attempts.put(client_order_id, row.id)
        self._executions.append(row)
        return row

    def execution(self, client_order_id: str) -> Execution | None:
        """The attempt recorded for an order, or None."""
        row_id = self._tables.attempts.rows.get(client_order_id)
        return None if row_id is None else self._tables.executions.rows[row_id]

    # The audit log.

    def audit(self, draft: AuditDraft) -> None:
        """Append a row to the chain, in this transaction."""
        self._append(seal(stamped(draft, self.wall)))

    def _append(self, sealed: SealedDraft) -> None:
        self._writing()
        _must(sealed.id not in self._tables.audit_ids.rows, f"the row {sealed.id} stands already")
        seq, before = self._head.audit_seq + 1, self._head.audit_hash
        row = AuditRow(
            seq=seq,
            id=sealed.id,
            time=sealed.time,
            event_type=sealed.event_type,
            actor=sealed.actor,
            agent_id=sealed.agent_id,
            order_id=sealed.order_id,
            decision_id=sealed.decision_id,
            data=sealed.data,
            prev_hash=before,
            hash=link(before, seq, sealed.body),
        )
        self._tables.audit.put(seq, row)
        self._tables.audit_ids.put(row.id, seq)
        self._head = replace(self._head, audit_seq=seq, audit_hash=row.hash)

    def outbox(self, draft: AuditDraft) -> None:
        """Leave a row to follow, exactly once by its id: what a stop uses."""
        self._writing()
        known = draft.id in self._tables.audit_ids.rows or draft.id in self._tables.outbox.rows
        if not known:
            self._tables.outbox.put(draft.id, seal(stamped(draft, self.wall)))

    def drain_outbox(self) -> int:
        """Append what waits in the outbox to the chain; returns how many rows."""
        self._writing()
        waiting = tuple(self._tables.outbox.rows.items())
        for row_id, sealed in waiting:
            if row_id not in self._tables.audit_ids.rows:
                self._append(sealed)
        self._tables.outbox.drop([row_id for row_id, _ in waiting])
        return len(waiting)

    def audit_rows(
        self, *, after: int = 0, limit: int = 1000, event_type: str | None = None
    ) -> tuple[AuditRow, ...]:
        """Rows after sequence number `after`, in order."""
        found: list[AuditRow] = []
        for seq in range(max(after, 0) + 1, self._head.audit_seq + 1):
            if len(found) >= limit:
                break
            row = self._tables.audit.rows[seq]
            if event_type is None or row.event_type == event_type:
                found.append(row)
        return tuple(found)

    def audit_tail(self, count: int) -> tuple[AuditRow, ...]:
        """The newest rows, in order."""
        return self.audit_rows(after=self._head.audit_seq - count, limit=count)

    # Closing, and small documents.

    def lease(self, name: str) -> Lease | None:
        """A lease by its name."""
        return self._tables.leases.rows.get(name)

    def put_lease(self, lease: Lease) -> None:
        """Insert or replace a lease."""
        self._writing()
        self._tables.leases.put(lease.name, lease)

    def close_records(self) -> tuple[CloseRecord, ...]:
        """How far the closing is, one record a venue."""
        return tuple(sorted(self._tables.closes.rows.values(), key=lambda record: record.venue))

    def put_close_record(self, record: CloseRecord) -> None:
        """Insert or replace a venue's closing record."""
        self._writing()
        self._tables.closes.put(record.venue, record)

    def document(self, key: str) -> str | None:
        """A small JSON text by its key, own writes included."""
        return self._tables.documents.rows.get(key)

    def put_document(self, key: str, text: str) -> None:
        """Insert or replace a small JSON text."""
        self._touch()
        self._tables.documents.put(key, text)
        self._documents[key] = text

    def finish(self) -> Changes:
        """Put the new head in place and give what the book must take on."""
        before, self._tables.head = self._tables.head, self._head
        self._tables.undo.add(lambda: setattr(self._tables, "head", before))
        trip = self.standing_trip()
        return Changes(
            head=self._head,
            latches=self.standing_latches() if self._latches_moved else None,
            trip=(() if trip is None else (trip,)) if self._trip_moved else None,
            holds=tuple(self._holds),
            positions=tuple(self._positions),
            prices=tuple(self._prices),
            executions=tuple(self._executions),
            documents=tuple(self._documents.items()),
        )


def _must(holds: bool, sentence: str) -> None:  # noqa: FBT001 - reads like the constraint it is
    if not holds:
        raise InvariantBroken(sentence)
