"""How a cached book catches up on PostgreSQL: one statement brings all that is newer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, LiteralString, TypeVar

import psycopg
from sqlalchemy import bindparam, select

from tinywindow.safety.domain.book import Book, Changes, DecisionIds
from tinywindow.safety.domain.records import Head, Hold, TradingState
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.stores import schema
from tinywindow.safety.stores.pg.engine import Asked
from tinywindow.safety.stores.pg.link import BoundedConnection
from tinywindow.safety.stores.sql.engine import Engine
from tinywindow.safety.stores.sql.ledger import decision_spent, read_hold
from tinywindow.safety.stores.sql.part import head_of
from tinywindow.safety.stores.sql.tx import read_changes, went_back, whole_book

__all__ = ["Begun", "Books", "Known", "begin", "ids_of"]

T = TypeVar("T")

_NO_HEAD: Final = Head(0, 0, TradingState.RUNNING, 0, "", 0)


_ATTEMPT: Final = select(schema.executions.c.id).where(
    schema.executions.c.client_order_id == bindparam("p_id")
)


@dataclass(frozen=True, slots=True)
class Known:
    """What a decision's ids stand for: a hold, a spent decision, an attempt."""

    hold: Hold | None
    spent: bool
    attempted: bool


@dataclass(frozen=True, slots=True)
class Begun(Generic[T]):
    """A transaction at its beginning: the book, what it must take on, and what was looked for.

    The caller applies the changes; `moved` says that somebody else wrote since the last time.
    """

    book: Book
    changes: Changes | None
    found: T
    moved: bool


def begin(
    connection: BoundedConnection,
    beginning: LiteralString,
    cached: Book | None,
    look: Callable[[Engine], T],
    *,
    attempts: bool = True,
) -> Begun[T]:
    """Begin a transaction and catch up with the database, in one round trip.

    `beginning` gives the head. What is newer than the cached book, and what else is looked for,
    is asked by a statement of its own after it. All of them go in one message: a process that is
    frozen between two messages is one that the server sees idle, and ends; between two parts of
    a pipeline it would keep its locks. Without `attempts` these are not read.
    """
    since = None if cached is None else cached.head.version

    def all_of(db: Engine, head: Head, since: int | None) -> tuple[Changes, T]:
        return read_changes(db, head, since=since, attempts=attempts), look(db)

    asked = Asked(lambda db: all_of(db, _NO_HEAD, since))
    asked.prepare(connection)
    cursor = psycopg.ClientCursor(connection)
    cursor.execute(f"{beginning}; {asked.joined.execute}", asked.params)
    cursor.set_result(-2)
    row = cursor.fetchone()
    if row is None:
        raise StoreUnavailable("the database has no head row")
    head = head_of(row)
    cursor.set_result(-1)
    changes, found = asked.answered(cursor.fetchone(), lambda db: all_of(db, head, since))
    if cached is not None and not went_back(cached.head, head):
        moved = cached.head.version != head.version
        return Begun(cached, None if cached.head == head else changes, found, moved)
    if cached is not None:

        def whole(db: Engine, head: Head) -> Changes:
            return read_changes(db, head, since=None, attempts=attempts)

        asked = Asked(lambda db: whole(db, _NO_HEAD))
        asked.prepare(connection)
        cursor.execute(asked.joined.execute, asked.params)
        changes = asked.answered(cursor.fetchone(), lambda db: whole(db, head))
    book = whole_book(changes, attempts=attempts)
    return Begun(book, None, found, moved=cached is not None)


def ids_of(ids: DecisionIds) -> Callable[[Engine], Known]:
    """The look for what a decision's ids stand for."""

    def look(db: Engine) -> Known:
        spent = False
        if ids.decision_id is not None:
            spent = decision_spent(db, ids.decision_id, ids.client_order_id)
        attempted = db.rows(_ATTEMPT, {"p_id": ids.client_order_id})
        return Known(read_hold(db, ids.client_order_id), spent, bool(attempted))

    return look


class Books:
    """The writer's and the reader's cached book, and the newer of them for whoever peeks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.writers: Book | None = None
        self.readers: Book | None = None

    def written(self, book: Book, changes: Changes | None) -> None:
        """The writer's thread caught up with `changes`, or made a new book."""
        with self._lock:
            if changes is not None:
                book.apply(changes)
            if self.writers is not None and book is not self.writers:
                # The database went back in time: what readers remember is of another one.
                self.readers = None
            self.writers = book

    def read(self, book: Book, changes: Changes | None) -> None:
        """The reader's thread caught up with `changes`, or made a new book."""
        with self._lock:
            if changes is not None:
                book.apply(changes)
            self.readers = book

    def fill(self, book: Book) -> None:
        """The reader's thread made a book for the writer, which has none."""
        with self._lock:
            if self.writers is None:
                self.writers = book

    def forget_writers(self) -> None:
        """After an error nothing remembered is trusted."""
        with self._lock:
            self.writers = None

    def forget_readers(self) -> None:
        """The same for the reader's."""
        with self._lock:
            self.readers = None

    def peek(self, look: Callable[[Book | None], T]) -> T:
        """Show the book that has seen more."""
        with self._lock:
            first, second = self.writers, self.readers
            if first is None or second is None:
                return look(first or second)
            ahead = (second.head.version, second.head.audit_seq) > (
                first.head.version,
                first.head.audit_seq,
            )
            return look(second if ahead else first)
