"""The writer's side of the store: its connection, its book, and its transactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from tinywindow.safety.domain.book import Book, Changes
from tinywindow.safety.stores.pg.books import Books, begin
from tinywindow.safety.stores.pg.commits import Commits
from tinywindow.safety.stores.pg.decision import Written
from tinywindow.safety.stores.pg.engine import PostgresEngine
from tinywindow.safety.stores.pg.link import BoundedConnection, Link, minding
from tinywindow.safety.stores.pg.watch import HeadWatch
from tinywindow.safety.stores.sql.engine import Engine
from tinywindow.safety.stores.sql.tx import SqlTx

__all__ = ["Writing", "nothing", "roll_back"]

T = TypeVar("T")
E = TypeVar("E")


class Writing:
    """What every write takes its way through; only the writer's thread calls it."""

    def __init__(self, link: Link, books: Books, watch: HeadWatch, *, attempts: bool) -> None:
        self.link = link
        self._attempts = attempts
        self.books = books
        self.commits = Commits(link, books)
        self._watch = watch
        self.alone = True
        """Whether nobody else seems to write: then a decision goes straight to its commit."""

    def job(self, work: Callable[[], T], answer_timeout_s: float) -> T:
        """Run a job on the writer's connection, and turn the driver's faults into ours."""
        self.link.answer_timeout_s = answer_timeout_s
        connection = self.link.current
        if connection is not None:
            connection.answer_timeout_s = answer_timeout_s
        with minding(self.link, self.books.forget_writers):
            return work()

    def transaction(
        self,
        beginning: LiteralString,
        look: Callable[[Engine], E],
        script: Callable[[SqlTx, E], tuple[T, Written]],
    ) -> T:
        """Run a script under the head's lock and commit it."""
        connection = self.link.get()
        try:
            begun = begin(connection, beginning, self.books.writers, look, attempts=self._attempts)
            # Whoever finds the book as it was has nobody beside it, and may go straight again.
            self.alone = not begun.moved
            self.books.written(begun.book, begun.changes)
            before = begun.book.head
            self._watch.saw(begun.book.head)
            result, written = script(SqlTx(PostgresEngine(connection), begun.book), begun.found)
            changes = self.commits.commit(connection, before, written)
        except BaseException:  # all or nothing, whatever broke
            roll_back(connection, self.link)
            raise
        if changes is not None:
            self.committed(begun.book, changes)
        return result

    def committed(self, book: Book, changes: Changes) -> None:
        """Take on what was committed."""
        # After a lost answer the books were forgotten, and this one is let go.
        if self.books.writers is book:
            self.books.written(book, changes)
        self._watch.saw(changes.head)

    def close(self) -> None:
        """Leave nothing of this writer behind."""
        self.commits.forget()
        self.link.drop()


def nothing(_: Engine) -> None:
    """The look of whoever looks for nothing."""


def roll_back(connection: BoundedConnection, link: Link) -> None:
    """End the transaction at hand; a connection on which that fails is given up."""
    try:
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            connection.execute("ROLLBACK")
    except psycopg.Error:
        link.drop()
