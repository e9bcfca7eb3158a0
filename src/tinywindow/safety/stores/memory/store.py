"""The store in memory: the same contract, without a file, a thread or a wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tinywindow.safety.domain.book import Book, Changes, DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.windows import ExecutionKind, Outcome
from tinywindow.safety.errors import InvariantBroken, StoreUnavailable
from tinywindow.safety.ports import Clock, Tx
from tinywindow.safety.stores.memory.tables import Tables
from tinywindow.safety.stores.memory.tx import MemoryTx
from tinywindow.safety.stores.polling import polled

__all__ = ["MemoryDatabase", "MemoryStore"]

T = TypeVar("T")


class MemoryDatabase:
    """What several stores share as they would share a file; ends with the process.

    `commits` counts the transactions that changed something.
    """

    def __init__(self) -> None:
        self.tables = Tables()
        self.book = Book(self.tables.head)
        self.commits = 0
        self.lock = threading.RLock()

    def rebuilt(self) -> Book:
        """The book made anew from the tables, to compare the cached one with."""
        tx = MemoryTx(self.tables, self.book, read_only=True)
        trip = tx.standing_trip()
        book = Book(self.tables.head)
        book.apply(
            Changes(
                head=self.tables.head,
                latches=tx.standing_latches(),
                trip=() if trip is None else (trip,),
                holds=tuple(self.tables.holds.rows.values()),
                positions=tuple(self.tables.positions.rows.values()),
                prices=tuple(self.tables.prices.rows.values()),
                executions=tuple(self.tables.executions.rows.values()),
                documents=tuple(self.tables.documents.rows.items()),
            )
        )
        return book


class MemoryStore:
    """Implements `ports.Store` in memory; never busy, and never durable."""

    def __init__(
        self, database: MemoryDatabase | None = None, *, wall: Clock | None = None
    ) -> None:
        """Open a database in memory; a new one when none is given.

        With a `wall` clock every audit row tells its time beside the row's own.
        """
        self.database = MemoryDatabase() if database is None else database
        self._wall = wall
        self._seen = False
        self._closed = False

    async def decide(self, ids: DecisionIds, propose: Callable[[DecisionView], Draft[T]]) -> T:
        """Take the order's way: show the book, commit the draft, give its result."""

        def script(tx: MemoryTx) -> T:
            spent = ids.decision_id is not None and tx.decision_spent(
                ids.decision_id, ids.client_order_id
            )
            view = DecisionView(tx.book(), tx.hold(ids.client_order_id), spent)
            return _commit_draft(tx, propose(view))

        return self._run(script)

    async def transact(self, script: Callable[[Tx], T], *, stop: bool = False) -> T:
        """Run a script in one transaction: committed whole, or leaving nothing."""
        del stop
        return self._run(script)

    async def read(self, script: Callable[[Tx], T]) -> T:
        """Run a script that only reads."""
        with self.database.lock:
            self._check_open()
            result = script(MemoryTx(self.database.tables, self.database.book, read_only=True))
            self._seen = True
            return result

    def peek(self, look: Callable[[Book | None], T]) -> T:
        """Look at the book; None before the first transaction, and after one that failed."""
        with self.database.lock:
            return look(self.database.book if self._seen else None)

    def change_token(self) -> int:
        """A number that changes when any store on the database committed."""
        return -1 if self._closed else self.database.commits

    async def changed(self, since: int) -> int:
        """Wait until the change token differs from `since`, and give the new one."""
        return await polled(self.change_token, since)

    def stop_token(self) -> int:
        """The same as `change_token`: any commit may have been a stop."""
        return self.change_token()

    async def close(self) -> None:
        """Let go; the database stays for whoever else holds it."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _run(self, script: Callable[[MemoryTx], T]) -> T:
        with self.database.lock:
            self._check_open()
            tables = self.database.tables
            tables.undo.begin()
            tx = MemoryTx(tables, self.database.book, read_only=False)
            tx.wall = self._wall
            try:
                result = script(tx)
                # The head counts as a change only where it moved.
                moved = len(tables.undo) > 0 or tx.head() != tables.head
                changes = tx.finish()
            except BaseException:  # all or nothing, whatever broke
                tables.undo.roll_back()
                self._seen = False
                raise
            tables.undo.begin()
            self.database.book.apply(changes)
            self.database.commits += moved
            self._seen = True
            return result


def _commit_draft(tx: MemoryTx, draft: Draft[T]) -> T:
    if draft.trip is not None:
        tx.add_trip(draft.trip)
    if draft.hold is not None:
        tx.put_hold(draft.hold)
        if draft.entry:
            if draft.symbol_micros > draft.symbol_cap_micros:
                raise InvariantBroken(f"the exposure of {draft.hold.key.symbol} is above its cap")
            if draft.exposure_micros > draft.exposure_cap_micros:
                raise InvariantBroken("the total exposure is above its cap")
            tx.set_exposure(draft.exposure_micros)
        if draft.take_slot:
            tx.put_execution(
                kind=ExecutionKind.ORDER.value,
                at_ms=draft.at_ms,
                outcome=Outcome.PENDING,
                resolved_ms=None,
                client_order_id=draft.hold.client_order_id,
            )
    for key, text in draft.documents.items():
        tx.put_document(key, text)
    for row in draft.audit:
        tx.audit(row)
    return draft.result
