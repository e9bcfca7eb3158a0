"""Commits on PostgreSQL, and what became of one whose answer was lost on the way."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import psycopg

from tinywindow.safety.domain.book import Changes
from tinywindow.safety.domain.records import Head
from tinywindow.safety.errors import InvariantBroken, StoreUnavailable
from tinywindow.safety.stores.pg import decision
from tinywindow.safety.stores.pg.books import Books
from tinywindow.safety.stores.pg.decision import Call, Calls, Written
from tinywindow.safety.stores.pg.link import BoundedConnection, Link, undecided

__all__ = ["FORGET_OLD_MARKS", "Commits"]

T = TypeVar("T")

FORGET_OLD_MARKS: Final = "DELETE FROM writer_marks WHERE at < now() - interval '7 days'"

_ROWS_THAT_STAND: Final = "SELECT id FROM audit_log WHERE id = ANY(%s)"
_MARK_STANDS: Final = "SELECT 1 FROM writer_marks WHERE writer = %s AND mark = %s"
_MARK: Final = "INSERT INTO writer_marks (writer, mark) VALUES"
_MARK_MOVES: Final = "ON CONFLICT (writer) DO UPDATE SET mark = EXCLUDED.mark, at = now()"
_FORGET_MARK: Final = "DELETE FROM writer_marks WHERE writer = %s"


class Commits:
    """The commits of one writer, which has a name that no other ever had."""

    def __init__(self, link: Link, books: Books) -> None:
        self._link = link
        self._books = books
        self._name = secrets.token_hex(16)
        self._mark = 0

    def commit(
        self, connection: BoundedConnection, before: Head, written: Written
    ) -> Changes | None:
        """Commit with something by which it can be told later whether it stands.

        That is the audit row of a decision, and for anything else this writer's mark. `before` is
        the head that the transaction found. Gives what the book takes on; None where it is not
        in step with the database any more, and is forgotten.

        Raises:
            StoreUnavailable: the answer was lost, and it does not stand, or nobody can say.
        """
        if isinstance(written, Calls):
            return self._commit_calls(connection, before, written)
        self._mark += 1
        mine = (self._name, self._mark)
        try:
            # In one message; the mark is our own name and number.
            connection.execute(f"{_MARK} ('{self._name}', {self._mark}) {_MARK_MOVES}; COMMIT")
        except psycopg.Error as error:
            if not undecided(error, connection):
                raise
            self._after_loss(
                error, lambda at: at.execute(_MARK_STANDS, mine).fetchone() is not None
            )
            return None
        return written

    def _commit_calls(
        self, connection: BoundedConnection, before: Head, written: Calls
    ) -> Changes | None:
        try:
            answers = decision.call_all(connection, written.calls)
        except psycopg.Error as error:
            if error.sqlstate == decision.ATTEMPTED_STATE:
                raise InvariantBroken("an order has an attempt already") from error
            if not undecided(error, connection):
                raise
            written.done = self.told_after_loss(error, written.calls)
            return None
        written.done = [answer[0] == "DONE" for answer in answers]
        return decision.all_taken_on(before, written, answers)

    def told_after_loss(self, error: psycopg.Error, calls: Sequence[Call]) -> list[bool]:
        """Find out which calls stand whose answer was lost, by their rows.

        Raises:
            StoreUnavailable: none stands, or nobody can say whether one does.
        """
        ids = [one.row_id for one in calls if one.row_id is not None]
        found = self._after_loss(
            error, lambda at: {row[0] for row in at.execute(_ROWS_THAT_STAND, (ids,)).fetchall()}
        )
        return [one.row_id in found for one in calls]

    def _after_loss(self, error: psycopg.Error, ask: Callable[[BoundedConnection], T]) -> T:
        self._books.forget_writers()
        told = self._link.after_loss(ask)
        if told is None:
            raise StoreUnavailable(
                "the connection was lost at the commit, and nobody can say yet whether it stands"
            ) from error
        if not told:
            raise StoreUnavailable(
                "the connection was lost before the commit; nothing was written"
            ) from error
        return told

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
