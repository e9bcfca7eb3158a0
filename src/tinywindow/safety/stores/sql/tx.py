"""A transaction: all the parts together, how a book catches up, and how a draft is committed."""

from __future__ import annotations

from typing import TypeVar

from tinywindow.safety.domain.book import Book, Changes, DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.records import Head
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
from tinywindow.safety.stores.sql.metrics import MetricsPart, read_executions
from tinywindow.safety.stores.sql.part import read_head
from tinywindow.safety.stores.sql.stops import StopsPart, read_latches, read_trip

__all__ = [
    "SqlTx",
    "catch_up",
    "commit_draft",
    "read_changes",
    "view_of",
    "went_back",
    "whole_book",
]

T = TypeVar("T")


class SqlTx(StopsPart, LedgerPart, MetricsPart, AuditPart, ClosingPart):
    """One transaction over an SQL engine; implements `ports.Tx`."""


def catch_up(
    db: Engine, cached: Book | None, *, attempts: bool = True
) -> tuple[Book, Changes | None]:
    """Read what a cached book must take on, or a whole new one where there is none to trust.

    The caller applies the changes, so that reading needs no lock on the book. Must run inside a
    transaction, so that head and rows are of one moment.
    """
    head = read_head(db)
    if cached is None or went_back(cached.head, head):
        changes = read_changes(db, head, since=None, attempts=attempts)
        return whole_book(changes, attempts=attempts), None
    if cached.head == head:
        return cached, None
    if cached.head.version == head.version:
        return cached, Changes(head=head)
    return cached, read_changes(db, head, since=cached.head.version, attempts=attempts)


def whole_book(changes: Changes, *, attempts: bool) -> Book:
    """A book from everything that counts; without `attempts` it says that nobody can count."""
    book = Book(changes.head)
    book.executions.unread = not attempts
    book.apply(changes)
    return book


def went_back(known: Head, found: Head) -> bool:
    """Whether the database is an older one, restored from a backup, or another one altogether."""
    return (
        found.version < known.version
        or found.stop_epoch < known.stop_epoch
        or found.audit_seq < known.audit_seq
        or (found.audit_seq == known.audit_seq and found.audit_hash != known.audit_hash)
    )


def read_changes(db: Engine, head: Head, *, since: int | None, attempts: bool = True) -> Changes:
    """What changed after version `since`, and the stops; everything when it is None.

    Without `attempts` these are left out: they are by far the most, and only the breaker counts
    them.
    """
    trip = read_trip(db)
    return Changes(
        head=head,
        latches=read_latches(db),
        trip=() if trip is None else (trip,),
        holds=read_holds(db, since=since),
        positions=read_positions(db, since=since),
        prices=read_prices(db, since=since),
        executions=read_executions(db, since=since) if attempts else (),
        documents=read_documents(db, since=since),
    )


def view_of(tx: SqlTx, db: Engine, ids: DecisionIds) -> DecisionView:
    """What a decision sees: the book, and what its ids stand for."""
    spent = False
    if ids.decision_id is not None:
        spent = decision_spent(db, ids.decision_id, ids.client_order_id)
    return DecisionView(tx.book(), read_hold(db, ids.client_order_id), spent)


def commit_draft(tx: SqlTx, draft: Draft[T], *, known: bool) -> T:
    """Write a decision's draft: trip, hold, guarded sums, velocity slot, audit rows.

    `known` says that the order's id stands for a reservation already.
    """
    if draft.trip is not None:
        tx.add_trip(draft.trip)
    if draft.hold is not None:
        if known:
            tx.put_hold(draft.hold)
        else:
            tx.add_hold(draft.hold)
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
