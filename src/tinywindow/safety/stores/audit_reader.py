"""The audit log opened for reading alone: whatever else the database holds, it is not touched.

A store reads the whole book when it opens, and brings a file's schema up to date. Whoever
verifies must be able to read a log that is damaged, of another revision, or somebody else's:
nothing here is made, locked or upgraded, and only the log, its head and its outbox are read.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from tinywindow.safety.domain.audit import GENESIS_HASH, AuditRow
from tinywindow.safety.errors import StoreUnavailable

__all__ = ["AuditDamaged", "AuditReader", "AuditView", "ChainEnd", "SqliteAuditReader"]

T = TypeVar("T")

BUSY_TIMEOUT_S: Final = 5.0
"""How long a file that is not in WAL mode is waited for."""
COLUMNS: Final = (
    "seq, id, time, event_type, actor, agent_id, order_id, decision_id, data, prev_hash, hash"
)
_PLAIN: Final = frozenset({int, str, type(None)})
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT})


class AuditDamaged(StoreUnavailable):
    """The database can be read, but what it holds of the log is damaged from some row on."""


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """Where the database says that the chain ends; the names are those of `Head`."""

    audit_seq: int = 0
    audit_hash: str = GENESIS_HASH


class Query(Protocol):
    """Runs one statement; each `?` stands for a parameter."""

    def __call__(self, statement: str, parameters: Sequence[object] = (), /) -> list[Any]:
        """Give every row."""
        ...


class AuditView:
    """One snapshot of the log."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def audit_rows(
        self, *, after: int = 0, limit: int = 1000, event_type: str | None = None
    ) -> tuple[AuditRow, ...]:
        """Rows after sequence number `after`, in order."""
        where = "seq > ?"
        values: tuple[object, ...] = (after, limit)
        if event_type is not None:
            where, values = "seq > ? AND event_type = ?", (after, event_type, limit)
        statement = f"SELECT {COLUMNS} FROM audit_log WHERE {where} ORDER BY seq LIMIT ?"  # noqa: S608 - our own names
        return _rows(self._query(statement, values))

    def audit_tail(self, count: int) -> tuple[AuditRow, ...]:
        """The newest rows, in order."""
        statement = f"SELECT {COLUMNS} FROM audit_log ORDER BY seq DESC LIMIT ?"  # noqa: S608 - our own names
        return _rows(reversed(self._query(statement, (count,))))

    def head(self) -> ChainEnd:
        """Where the database says that the chain ends; the beginning where it says nothing."""
        rows = self._query("SELECT audit_seq, audit_hash FROM head")
        return ChainEnd(int(rows[0][0]), str(rows[0][1])) if rows else ChainEnd()

    def waiting(self) -> int:
        """How many rows wait in the outbox: a stop's row follows it."""
        return int(self._query("SELECT COUNT(*) FROM outbox")[0][0])


def _rows(found: Iterable[Sequence[Any]]) -> tuple[AuditRow, ...]:
    """Rows as they stand; what can be no field of a row is made a text that fits no hash."""
    rows = tuple(found)
    if not _PLAIN.issuperset(map(type, chain.from_iterable(rows))):
        rows = tuple(
            tuple(value if type(value) in _PLAIN else repr(value) for value in row) for row in rows
        )
    if not all(type(row[0]) is int for row in rows):
        raise AuditDamaged("the database is damaged: a row has no number")
    return tuple(AuditRow(*row) for row in rows)


class AuditReader(Protocol):
    """A log that was opened for reading."""

    async def read(self, script: Callable[[AuditView], T]) -> T:
        """Run a script on one snapshot, without waiting for writers.

        Raises:
            AuditDamaged: the log is damaged where the script read it.
            StoreUnavailable: it cannot be read.
        """
        ...

    async def close(self) -> None:
        """Let go of the database."""
        ...


class SqliteAuditReader:
    """Implements `AuditReader` on an SQLite file, which is neither made nor upgraded."""

    def __init__(self, database: Path) -> None:
        """Open the file.

        Raises:
            StoreUnavailable: there is no such file, or it cannot be read.
        """
        if not database.exists():
            raise StoreUnavailable(f"there is no database at {database}")
        self._connection = _opened(database)

    async def read(self, script: Callable[[AuditView], T]) -> T:
        """Run a script on one snapshot; see `AuditReader`."""
        return await asyncio.to_thread(self._read, script)

    def _read(self, script: Callable[[AuditView], T]) -> T:
        connection = self._connection
        try:
            connection.execute("BEGIN")
            try:
                return script(AuditView(self._rows))
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise _fault_of(error) from error

    def _rows(self, statement: str, parameters: Sequence[object] = (), /) -> list[Any]:
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
            # A text was damaged beyond UTF-8: from here on its bytes stand for themselves.
            self._connection.text_factory = _lenient
            return self._connection.execute(statement, parameters).fetchall()

    async def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def _lenient(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _fault_of(error: sqlite3.Error) -> StoreUnavailable:
    # The primary code is the low byte of what SQLite reports.
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
        return AuditDamaged(f"the database is damaged: {error}")
    return StoreUnavailable(f"the database cannot be read: {error}")


def _opened(database: Path) -> sqlite3.Connection:
    uri = f"{database.absolute().as_uri()}?mode=ro"
    try:
        return _probed(uri)
    except sqlite3.OperationalError as error:
        wal = database.with_name(database.name + "-wal")
        if wal.exists() or os.access(database.parent, os.W_OK):
            raise StoreUnavailable(f"the database cannot be read: {error}") from error
    except sqlite3.Error as error:
        raise _fault_of(error) from error
    try:
        # A copy in a folder that takes no `-shm` file beside it: nobody here changes it either.
        return _probed(f"{uri}&immutable=1")
    except sqlite3.Error as error:
        raise _fault_of(error) from error


def _probed(uri: str) -> sqlite3.Connection:
    """A connection that has read once: SQLite looks at the file no earlier."""
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
