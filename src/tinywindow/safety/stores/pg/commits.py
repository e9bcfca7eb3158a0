"""Commits on PostgreSQL, and what became of one whose answer was lost on the way."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, LiteralString

import psycopg

from tinywindow.safety.domain.book import Changes
from tinywindow.safety.domain.records import Head
from tinywindow.safety.errors import InvariantBroken, StoreUnavailable
from tinywindow.safety.stores.pg import decision
from tinywindow.safety.stores.pg.books import Books
from tinywindow.safety.stores.pg.decision import OneCall, Written
from tinywindow.safety.stores.pg.link import BoundedConnection, Link, lost, undecided

__all__ = ["FORGET_OLD_MARKS", "Commits", "Stands", "by_row"]

Stands = Callable[[BoundedConnection], bool]
"""Asks whether a commit stands, on a connection that was made after it."""

FORGET_OLD_MARKS: Final = "DELETE FROM writer_marks WHERE at < now() - interval '7 days'"

_ROW_STANDS: Final = "SELECT 1 FROM audit_log WHERE id = %s"
_MARK_STANDS: Final = "SELECT 1 FROM writer_marks WHERE writer = %s AND mark = %s"
_MARK: Final = "INSERT INTO writer_marks (writer, mark) VALUES"
_MARK_MOVES: Final = "ON CONFLICT (writer) DO UPDATE SET mark = EXCLUDED.mark, at = now()"
_FORGET_MARK: Final = "DELETE FROM writer_marks WHERE writer = %s"


def by_row(row_id: str) -> Stands:
    """By the audit row that was to be committed with everything else."""
    return lambda connection: connection.execute(_ROW_STANDS, (row_id,)).fetchone() is not None


class Commits:
    """The commits of one writer, which has a name that no other ever had."""

    def __init__(self, link: Link, books: Books) -> None:
        self._link = link
        self._books = books
        self._name = secrets.token_hex(16)
        self._mark = 0

    def commit(self, connection: BoundedConnection, head: Head, written: Written) -> Changes | None:
        """Commit with something by which it can be told later whether it stands.

        That is the audit row of a decision, and for anything else this writer's mark. None when
        it stands, but its answer was lost; then the book is forgotten. None, too, where nothing
        was written.

        Raises:
            StoreUnavailable: the answer was lost, and it does not stand, or nobody can say.
        """
        if written is None:
            connection.execute("COMMIT")
            return None
        one = written if isinstance(written, OneCall) else None
        text: LiteralString = "COMMIT"
        if one is not None and one.draft.audit:
            stands = by_row(one.draft.audit[0].id)
        else:
            stands = self._by_mark()
            # The mark is our own name and number.
            text = f"{_MARK} ('{self._name}', {self._mark}) {_MARK_MOVES}; {text}"
        cursor = psycopg.ClientCursor(connection)
        try:
            # In one message.
            if one is None:
                cursor.execute(text)
            else:
                cursor.execute(f"{decision.DECIDE}; {text}", one.parameters)
                cursor.set_result(0)
        except psycopg.Error as error:
            if not lost(error, connection) or not undecided(error):
                raise
            self.told_after_loss(error, stands)
            return None
        if not isinstance(written, OneCall):
            return written
        row = cursor.fetchone()
        if row is None or row[0] != "DONE":
            raise InvariantBroken("the database moved under its lock")
        return decision.taken_on(head, written.draft, row)

    def _by_mark(self) -> Stands:
        self._mark += 1
        mine = (self._name, self._mark)
        return lambda connection: connection.execute(_MARK_STANDS, mine).fetchone() is not None

    def told_after_loss(self, error: psycopg.Error, stands: Stands) -> None:
        """Find out whether a commit stands whose answer was lost; returns when it does.

        Raises:
            StoreUnavailable: it does not stand, or nobody can say whether it does.
        """
        self._books.forget_writers()
        told = self._link.after_loss(stands)
        if told is None:
            raise StoreUnavailable(
                "the connection was lost at the commit, and nobody can say yet whether it stands"
            ) from error
        if not told:
            raise StoreUnavailable(
                "the connection was lost before the commit; nothing was written"
            ) from error

    def forget(self) -> None:
        """Take this writer's mark out of the database, as far as that goes, when it ends."""
        connection = self._link.current
        if connection is None or connection.closed or not self._mark:
            return
        try:
            connection.execute(_FORGET_MARK, (self._name,))
        except psycopg.Error:
            # It is forgotten with the old ones.
            self._mark = 0
