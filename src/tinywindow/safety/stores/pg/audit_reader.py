"""The audit log on PostgreSQL, for reading alone: on a standby, too, and by an auditor's role.

It needs `SELECT` on `audit_log` and `head`, and on `outbox` to say what waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors

from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.stores.audit_reader import AuditDamaged, AuditView

__all__ = ["PostgresAuditReader"]

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 5
_SESSION: Final = "SET statement_timeout = 60000; SET idle_in_transaction_session_timeout = 60000"
_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_DAMAGE: Final = (errors.DataCorrupted, errors.IndexCorrupted)


class PostgresAuditReader:
    """Implements `AuditReader`; of the database it asks for no revision and no durability."""

    def __init__(self, url: str) -> None:
        """Connect.

        Raises:
            StoreUnavailable: it cannot be reached.
        """
        try:
            self._connection = psycopg.connect(
                url,
                autocommit=True,
                application_name="tinywindow-audit",
                connect_timeout=CONNECT_TIMEOUT_S,
                keepalives_idle=5,
                tcp_user_timeout=30_000,
            )
            self._connection.execute(_SESSION)
        except psycopg.Error as error:
            raise StoreUnavailable(f"the database cannot be reached: {_words(error)}") from error

    async def read(self, script: Callable[[AuditView], T]) -> T:
        """Run a script on one snapshot; see `AuditReader`."""
        return await asyncio.to_thread(self._read, script)

    def _read(self, script: Callable[[AuditView], T]) -> T:
        connection = self._connection

        def query(statement: str, parameters: Sequence[object] = (), /) -> list[Any]:
            # No statement of ours holds a question mark or a percent sign of its own.
            text = statement.replace("?", "%s").encode()
            return connection.execute(text, parameters).fetchall()

        try:
            connection.execute(_BEGIN)
            try:
                return script(AuditView(query))
            finally:
                if not connection.closed:
                    connection.execute("ROLLBACK")
        except _DAMAGE as error:
            raise AuditDamaged(f"the database is damaged: {_words(error)}") from error
        except psycopg.Error as error:
            raise StoreUnavailable(f"the database cannot be read: {_words(error)}") from error

    async def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def _words(error: Exception) -> str:
    return " ".join(str(error).split())
