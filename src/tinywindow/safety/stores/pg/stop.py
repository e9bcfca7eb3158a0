"""A stop on PostgreSQL in one short transaction: what `kill` does without the rest of a store.

The statements are those of `stores.sql` in raw SQL; a test compares what both leave behind.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.stores.fast_files import LatchFields
from tinywindow.safety.stores.fast_latch import activation_body
from tinywindow.safety.stores.pg.address import postgres_url
from tinywindow.safety.stores.pg.link import Link, fault_of, lost
from tinywindow.safety.stores.pg.sessions import STOP, WRITER

__all__ = ["PostgresStop"]

ANSWER_TIMEOUT_S: Final = 7.0
"""As long as a store waits for a stop's answer: longer than the server lets it wait for locks."""
TRIES: Final = 2
"""A connection that is lost in the middle is made once more: by its id, a latch counts once."""
_FIELDS: Final = ("id", "mode", "reason", "actor", "source", "activated_ms")
_LATCH: Final = """
INSERT INTO latches (id, mode, reason, actor, source, activated_ms)
VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_EPOCH: Final = """
UPDATE head SET version = version + 1, stop_epoch = stop_epoch + 1, trading = 'STOPPED'
WHERE id = 1
"""
_OUTBOX: Final = "INSERT INTO outbox (id, draft) VALUES (%s, %s) ON CONFLICT DO NOTHING"


class PostgresStop:
    """One connection for one stop; belongs to one thread at a time."""

    def __init__(self, url: str) -> None:
        """Take the address; nothing is opened yet.

        Raises:
            ConfigurationError: it is none, or the driver is missing.
        """
        # A server that may lose what it commits takes a stop, too: more is better than less.
        self._link = Link(postgres_url(url), "stop", settings=WRITER, require_durable=False)
        self._link.answer_timeout_s = ANSWER_TIMEOUT_S

    def latch(self, latch: LatchFields, time_text: str) -> None:
        """Commit a latch: new epoch, trading stopped, audit row in the outbox.

        A bot that saw the file `KILL` meanwhile may have committed it before: then it stands, too.

        Raises:
            StoreUnavailable: it was not committed, or nobody can say whether it was.
        """
        for last in range(TRIES):
            connection = self._link.get()
            try:
                self._commit(connection, latch, time_text)
            except psycopg.Error as error:
                gone = lost(error, connection)
                self._link.drop()
                if not gone or last == TRIES - 1:
                    raise fault_of(error) from error
            else:
                return

    def _commit(
        self, connection: psycopg.Connection[Any], latch: LatchFields, time_text: str
    ) -> None:
        connection.execute(STOP)
        values = [latch[name] for name in _FIELDS]
        if connection.execute(_LATCH, values).rowcount == 1:
            if connection.execute(_EPOCH).rowcount != 1:
                raise StoreUnavailable("the database has no head row")
            body = activation_body(latch, time_text)
            connection.execute(_OUTBOX, (f"activate-{latch['id']}", body))
        connection.execute("COMMIT")

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """The rows of a statement that only reads.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        try:
            return self._link.get().execute(statement.encode()).fetchall()
        except psycopg.Error as error:
            raise fault_of(error) from error

    def close(self) -> None:
        """Let go of the connection."""
        self._link.drop()
