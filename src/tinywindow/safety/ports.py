"""Ports: what the safety layer needs from the world, as protocols.

Clock, randomness and every kind of I/O come in through these, so that a simulated world can
run the real code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Protocol, TypeVar, runtime_checkable

from tinywindow.safety.domain.approval import Approved
from tinywindow.safety.domain.audit import AuditDraft, AuditRow
from tinywindow.safety.domain.book import Book, DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.kill import KillSwitchMode, Latch
from tinywindow.safety.domain.records import (
    CloseRecord,
    Head,
    Hold,
    Lease,
    MarkRecord,
    Position,
    ReferencePrice,
    TradingState,
    Trip,
)
from tinywindow.safety.domain.venue import (
    MarketRules,
    OrderReport,
    Placed,
    VenueAccount,
    VenuePosition,
)
from tinywindow.safety.domain.windows import Execution, Outcome

__all__ = ["Clock", "Doorbell", "Exchange", "PriceSource", "Ring", "Store", "Tx"]

T = TypeVar("T")


@runtime_checkable
class Clock(Protocol):
    """Time as a parameter."""

    def now(self) -> datetime:
        """The wall clock: an aware UTC datetime."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; ages are measured on it."""
        ...


class PriceSource(Protocol):
    """Where reference prices come from, when nobody sets them one by one."""

    def reference_price(self, symbol: str) -> tuple[Decimal, datetime] | None:
        """The last price of `symbol` in quote units and when it was seen, or None."""
        ...


@runtime_checkable
class Exchange(Protocol):
    """A venue. Reads raise `VenueUnavailable`; a failed read is never an empty answer."""

    @property
    def name(self) -> str:
        """The venue's name, as orders, positions and reports carry it."""
        ...

    async def place(self, approved: Approved) -> Placed:
        """Send one approved order; call `approved.redeem()` in the loop turn of the send.

        Never raises for the venue's trouble: what is not known is `Unknown`. Lets
        `ApprovalVoid` through: then nothing was sent.
        """
        ...

    async def cancel(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """Cancel an order and report it as it is then; None when the venue never knew it."""
        ...

    async def find(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """Look an order up by our id, open or done; None when the venue never knew it."""
        ...

    async def open_orders(self) -> tuple[OrderReport, ...]:
        """Every resting order of the account, trigger orders included."""
        ...

    async def positions(self) -> tuple[VenuePosition, ...]:
        """Every position that is not zero; for spot every managed balance that is not zero."""
        ...

    async def account(self) -> VenueAccount:
        """Cash and equity in USD."""
        ...

    async def account_id(self) -> str | None:
        """What tells this account from any other at the venue; the same for as long as it is.

        None where the venue cannot say: then nothing is compared.
        """
        ...

    async def market(self, symbol: str) -> MarketRules:
        """What the venue demands of orders on `symbol`."""
        ...

    def fork(self) -> Exchange:
        """An independent instance for another thread and event loop, on the same account."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Tx(Protocol):
    """One transaction, as a script sees it: synchronous, under the store's write lock.

    A script is a plain function over a `Tx`. It awaits nothing, and it may run twice when the
    engine asks for it, so it has no effect but through the transaction.
    """

    def book(self) -> Book:
        """The book as it stood when the transaction began; read it before writing."""
        ...

    def head(self) -> Head:
        """The head row, own writes included."""
        ...

    def set_trading(self, state: TradingState) -> None:
        """Set whether an operator wants trading."""
        ...

    def standing_latches(self) -> tuple[Latch, ...]:
        """Every latch that stands, oldest first."""
        ...

    def latch(self, latch_id: str) -> Latch | None:
        """One latch by its id, standing or released."""
        ...

    def add_latch(self, latch: Latch) -> bool:
        """Latch a stop: grows the epoch and stops trading. False when the id was known."""
        ...

    def release_latch(self, latch_id: str, *, at_ms: int, by: str, reason: str) -> bool:
        """Turn one standing latch into a tombstone. False when it did not stand."""
        ...

    def last_release_ms(self) -> int | None:
        """When a latch was last released, or None."""
        ...

    def standing_trip(self) -> Trip | None:
        """The breaker's standing trip, or None."""
        ...

    def last_trip(self) -> Trip | None:
        """The newest trip, standing or cleared."""
        ...

    def add_trip(self, trip: Trip) -> bool:
        """Latch a trip: grows the epoch and stops trading. False when one stands already."""
        ...

    def clear_trip(self, trip_id: str, *, at_ms: int, by: str) -> bool:
        """Clear the standing trip by its id. False when that trip does not stand."""
        ...

    def hold(self, client_order_id: str) -> Hold | None:
        """One reservation by its id, open or ended."""
        ...

    def put_hold(self, hold: Hold) -> None:
        """Insert or replace a reservation."""
        ...

    def add_fill(self, hold: Hold, *, at_ms: int) -> None:
        """Record a cumulative fill report of `hold`, for history."""
        ...

    def put_position(self, position: Position) -> None:
        """Insert or replace a position; a zero amount means flat."""
        ...

    def put_price(self, price: ReferencePrice) -> None:
        """Insert or replace a reference price."""
        ...

    def add_mark(self, mark: MarkRecord) -> int:
        """Append an equity mark; its `id` is ignored and the store's own returned."""
        ...

    def marks(self, *, since_ms: int, limit: int, after_id: int = 0) -> tuple[MarkRecord, ...]:
        """Marks after `after_id` that were received at or after `since_ms`, oldest first."""
        ...

    def newest_mark_ms(self) -> int | None:
        """When the newest mark was received, or None."""
        ...

    def thin_marks(self, *, before_ms: int, keep_every_ms: int, keep_ids: Iterable[int]) -> int:
        """Drop marks older than `before_ms` but the first in each span; returns how many."""
        ...

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
        ...

    def execution(self, client_order_id: str) -> Execution | None:
        """The attempt recorded for an order, or None."""
        ...

    def audit(self, draft: AuditDraft) -> None:
        """Append a row to the chain, in this transaction."""
        ...

    def outbox(self, draft: AuditDraft) -> None:
        """Leave a row to follow, exactly once by its id: what a stop uses."""
        ...

    def drain_outbox(self) -> int:
        """Append what waits in the outbox to the chain; returns how many rows."""
        ...

    def audit_rows(
        self, *, after: int = 0, limit: int = 1000, event_type: str | None = None
    ) -> tuple[AuditRow, ...]:
        """Rows after sequence number `after`, in order."""
        ...

    def audit_tail(self, count: int) -> tuple[AuditRow, ...]:
        """The newest rows, in order."""
        ...

    def lease(self, name: str) -> Lease | None:
        """A lease by its name."""
        ...

    def put_lease(self, lease: Lease) -> None:
        """Insert or replace a lease."""
        ...

    def close_records(self) -> tuple[CloseRecord, ...]:
        """How far the closing is, one record a venue."""
        ...

    def put_close_record(self, record: CloseRecord) -> None:
        """Insert or replace a venue's closing record."""
        ...

    def document(self, key: str) -> str | None:
        """A small JSON text by its key, own writes included."""
        ...

    def put_document(self, key: str, text: str) -> None:
        """Insert or replace a small JSON text."""
        ...


class Store(Protocol):
    """Durable state. Every method raises `StoreUnavailable` when the database is.

    The unit of work is coarse: one call takes a decision to its commit.
    """

    async def decide(self, ids: DecisionIds, propose: Callable[[DecisionView], Draft[T]]) -> T:
        """Take the order's way: show the book under the lock, commit the draft, give its result.

        `propose` is pure and may be called more than once.

        Raises:
            LedgerBusy: no turn came within the bound; nothing was decided.
        """
        ...

    async def transact(self, script: Callable[[Tx], T], *, stop: bool = False) -> T:
        """Run a script in one write transaction; a stop goes before waiting orders."""
        ...

    async def read(self, script: Callable[[Tx], T]) -> T:
        """Run a script that only reads, on a snapshot, without waiting for writers."""
        ...

    def peek(self, look: Callable[[Book | None], T]) -> T:
        """Look at the cached book without I/O; None before the first transaction."""
        ...

    def change_token(self) -> int:
        """A number that changes when any process committed; cheap enough to poll."""
        ...

    async def changed(self, since: int) -> int:
        """Wait until the change token differs from `since`, and give the new one."""
        ...

    def stop_token(self) -> int:
        """A number that changes with every stop, trip and start, as soon as `change_token` does.

        It may change with other commits as well. Without I/O but on shared memory.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


class Ring(Protocol):
    """What was found on the doorbell's key."""

    @property
    def mode(self) -> KillSwitchMode:
        """The mode that the value asks for; anything unreadable is HALT_ONLY."""
        ...

    @property
    def latch_id(self) -> str | None:
        """The latch that our own envelope names, None for a foreign value."""
        ...

    @property
    def raw(self) -> bytes:
        """The value as it stood, bounded."""
        ...


class Doorbell(Protocol):
    """The shared kill key. Its presence is a stop; its absence means nothing."""

    async def look(self, *, timeout_s: float) -> Ring | None:
        """Read the key, any value and any type; None when it is absent.

        Raises:
            DoorbellUnavailable: it cannot be read within the time-out.
        """
        ...

    async def ring(self, latch: Latch, *, replacing: bytes | None = None) -> None:
        """Set the key to an envelope that names `latch`."""
        ...

    async def silence(self, latch_ids: Iterable[str]) -> bool:
        """Delete the key if its envelope names one of the released latches; True when gone."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...
