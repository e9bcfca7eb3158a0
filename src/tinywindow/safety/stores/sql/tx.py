"""A transaction: all the parts together, how a book catches up, and how a draft is committed."""

from __future__ import annotations

from typing import Final, TypeVar

from tinywindow.safety.domain.book import Book, Changes, DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.windows import ExecutionKind, Outcome
from tinywindow.safety.stores.sql.audit import AuditPart
from tinywindow.safety.stores.sql.closing import ClosingPart, read_documents
from tinywindow.safety.stores.sql.engine import Engine
from tinywindow.safety.stores.sql.ledger import (
    LedgerPart,
    decision_spent,
    read_hold,
    read_holds,
    read_positions,
    read_prices,
)
from tinywindow.safety.stores.sql.metrics import MetricsPart, newest_execution_ms, read_executions
from tinywindow.safety.stores.sql.part import read_head
from tinywindow.safety.stores.sql.stops import StopsPart, read_latches, read_trip

__all__ = ["SqlTx", "commit_draft", "refreshed", "view_of"]

T = TypeVar("T")

EXECUTIONS_SPAN_MS: Final = 25 * 3_600_000
"""How far back attempts are loaded: the longest memory is the failure streak's day."""


class SqlTx(StopsPart, LedgerPart, MetricsPart, AuditPart, ClosingPart):
    """One transaction over an SQL engine; implements `ports.Tx`."""


def refreshed(db: Engine, cached: Book | None) -> Book:
    """Bring the cached book up to the head row, or load one where there is none.

    Must run inside a transaction, so that head and rows are of one moment.
    """
    head = read_head(db)
    if cached is not None and cached.head == head:
        return cached
    since = None if cached is None else cached.head.version
    book = Book(head) if cached is None else cached
    moved = since is None or head.version != since or head.stop_epoch != book.head.stop_epoch
    if not moved:
        book.apply(Changes(head=head))
        return book
    trip = read_trip(db)
    documents = read_documents(db, since=since)
    book.apply(
        Changes(
            head=head,
            latches=read_latches(db),
            trip=() if trip is None else (trip,),
            holds=read_holds(db, since=since),
            positions=read_positions(db, since=since),
            prices=read_prices(db, since=since),
            executions=read_executions(db, since=since, from_ms=_executions_from(db)),
            documents=documents,
        )
    )
    return book


def _executions_from(db: Engine) -> int:
    newest = newest_execution_ms(db)
    return 0 if newest is None else newest - EXECUTIONS_SPAN_MS


def view_of(tx: SqlTx, db: Engine, ids: DecisionIds) -> DecisionView:
    """What a decision sees: the book, and what its ids stand for."""
    spent = False
    if ids.decision_id is not None:
        spent = decision_spent(db, ids.decision_id, ids.client_order_id)
    return DecisionView(tx.book(), read_hold(db, ids.client_order_id), spent)


def commit_draft(tx: SqlTx, draft: Draft[T]) -> T:
    """Write a decision's draft: trip, hold, guarded sums, velocity slot, audit rows."""
    if draft.trip is not None:
        tx.add_trip(draft.trip)
    if draft.hold is not None:
        tx.put_hold(draft.hold)
        if draft.entry:
            tx.guard_entry(
                symbol=draft.hold.key.symbol,
                symbol_micros=draft.symbol_micros,
                symbol_cap=draft.symbol_cap_micros,
                total=draft.exposure_micros,
                total_cap=draft.exposure_cap_micros,
            )
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
