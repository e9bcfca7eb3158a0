"""The store on one SQLite file: one writer thread, a fair turn, and one transaction a decision.

Every writer, in every process, first takes a ticket: a lock on a file beside the database that
the kernel hands out in order. With SQLite's own waiting, eight processes starve each other; with
the ticket each waits for at most one transaction of every other. Readers take no ticket.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from tinywindow.safety.domain.book import Book, DecisionIds, DecisionView, Draft
from tinywindow.safety.errors import InvariantBroken, LedgerBusy, SafetyError, StoreUnavailable
from tinywindow.safety.ports import Clock, Tx
from tinywindow.safety.stores.migrate import upgrade_sqlite
from tinywindow.safety.stores.polling import polled
from tinywindow.safety.stores.sql.engine import SqliteEngine
from tinywindow.safety.stores.sql.tx import SqlTx, catch_up, commit_draft, view_of
from tinywindow.safety.stores.ticket import NoTurn, Ticket, ticket_path
from tinywindow.safety.stores.worker import InlineWorker, Runner, Worker

__all__ = ["DECISION_TIMEOUT_S", "SqliteStore", "connect", "ticket_path"]

T = TypeVar("T")

DECISION_TIMEOUT_S: Final = 0.45
"""How long an order waits for its turn before it is answered `LEDGER_BUSY`."""
SCRIPT_TIMEOUT_S: Final = 5.0
"""How long what is no order waits for its turn."""
CLOSE_TIMEOUT_S: Final = 5.0
"""How long closing waits for the job that runs; its thread ends by itself afterwards."""
BUSY_TIMEOUT_MS: Final = 250
"""How long SQLite itself waits for a lock held by a program that takes no ticket."""


def connect(database: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a connection of our own, and make sure that it is as durable as promised.

    Raises:
        StoreUnavailable: the file cannot be opened, or is not in WAL mode with full syncing.
    """
    try:
        connection = sqlite3.connect(
            database,
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the SQLite file cannot be opened: {error}") from error
    try:
        _make_durable(connection, read_only=read_only)
    except sqlite3.Error as error:
        connection.close()
        raise StoreUnavailable(f"the SQLite file cannot be opened: {error}") from error
    except StoreUnavailable:
        connection.close()
        raise
    return connection


def _make_durable(connection: sqlite3.Connection, *, read_only: bool) -> None:
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    if read_only:
        connection.execute("PRAGMA query_only=ON")
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    if mode != "wal" or synchronous < 2:  # noqa: PLR2004 - FULL, by SQLite's numbering
        raise StoreUnavailable(
            f"the SQLite file is in mode {mode!r} with synchronous={synchronous}; "
            "WAL and FULL are needed for a stop to survive a power cut"
        )


class SqliteStore:
    """Implements `ports.Store` on one SQLite file."""

    def __init__(
        self,
        database: Path,
        *,
        inline: bool = False,
        wall: Clock | None = None,
        attempts: bool = True,
    ) -> None:
        """Open connections to a file whose schema is up to date; see `open`."""
        self._attempts = attempts
        self._database = database
        self._wall = wall
        self._connections: list[sqlite3.Connection] = []
        try:
            self._writer = self._connected(read_only=False)
            self._reader = self._connected(read_only=True)
            self._probe = self._connected(read_only=True)
            self._ticket = Ticket(database)
            self._file = _file_id(database)
        except (StoreUnavailable, OSError) as error:
            for connection in self._connections:
                connection.close()
            if isinstance(error, StoreUnavailable):
                raise
            raise StoreUnavailable(f"the database cannot be opened: {error}") from error
        self._book: Book | None = None
        self._reader_book: Book | None = None
        self._book_lock = threading.Lock()
        self._closed = False
        self._reader_closed = threading.Event()
        self._inline = inline
        self._writes: Runner
        self._reads: Runner
        if inline:
            self._writes, self._reads = InlineWorker(self._ticket), InlineWorker(NoTurn())
        else:
            self._writes = Worker(
                "tinywindow-writer", turn=self._ticket, on_stop=self._close_writer
            )
            self._reads = Worker("tinywindow-reader", turn=NoTurn(), on_stop=self._close_reader)

    def _connected(self, *, read_only: bool) -> sqlite3.Connection:
        connection = connect(self._database, read_only=read_only)
        self._connections.append(connection)
        return connection

    @classmethod
    async def open(
        cls,
        database: Path,
        *,
        data_dir: Path | None = None,
        inline: bool = False,
        wall: Clock | None = None,
        attempts: bool = True,
    ) -> SqliteStore:
        """Open the file, making or upgrading its schema first.

        With a `wall` clock every audit row tells its time beside the row's own. Without `attempts`
        the book has none: for whoever neither decides nor measures.

        Raises:
            StoreUnavailable: it cannot be opened, is damaged, or was made by a newer version.
        """
        del data_dir

        def opened() -> SqliteStore:
            try:
                database.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreUnavailable(f"the database cannot be made: {error}") from error
            upgrade_sqlite(database)
            return cls(database, inline=inline, wall=wall, attempts=attempts)

        # Another process may be upgrading the file, which must not hold up this loop.
        return opened() if inline else await asyncio.to_thread(opened)

    async def decide(self, ids: DecisionIds, propose: Callable[[DecisionView], Draft[T]]) -> T:
        """Take the order's way in one transaction and one thread hop."""

        def script(tx: SqlTx, db: SqliteEngine) -> T:
            view = view_of(tx, db, ids)
            return commit_draft(tx, propose(view), known=view.existing is not None)

        return await self._writes.run(lambda: self._write(script), timeout_s=DECISION_TIMEOUT_S)

    async def transact(self, script: Callable[[Tx], T], *, stop: bool = False) -> T:
        """Run a script in one write transaction; a stop goes before waiting orders."""
        return await self._writes.run(
            lambda: self._write(lambda tx, _: script(tx)), timeout_s=SCRIPT_TIMEOUT_S, first=stop
        )

    async def read(self, script: Callable[[Tx], T]) -> T:
        """Run a script that only reads, on a snapshot, without waiting for writers."""
        return await self._reads.run(lambda: self._read(script), timeout_s=SCRIPT_TIMEOUT_S)

    def peek(self, look: Callable[[Book | None], T]) -> T:
        """Look at the newest cached book without I/O; None before the first transaction."""
        with self._book_lock:
            return look(_newer(self._book, self._reader_book))

    def change_token(self) -> int:
        """A number that changes when any process committed; asks shared memory only."""
        if self._closed:
            return -1
        try:
            token = self._probe.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            return -1
        return int(token)

    async def changed(self, since: int) -> int:
        """Wait until the change token differs from `since`, and give the new one."""
        return await polled(self.change_token, since)

    def stop_token(self) -> int:
        """The same as `change_token`: any commit may have been a stop."""
        return self.change_token()

    async def close(self) -> None:
        """Let go of connections and threads; the job that runs ends first, others are refused.

        The writer's connection goes last. Only the last one of all takes the `-wal` file back
        into the database, and two that close at the same moment each take the other for it.
        """
        if self._closed:
            return
        self._closed = True
        self._probe.close()
        self._writes.stop()
        self._reads.stop()
        if self._inline:
            self._close_reader()
            self._close_writer()
        await self._reads.ended(timeout_s=CLOSE_TIMEOUT_S)
        await self._writes.ended(timeout_s=CLOSE_TIMEOUT_S)

    def _close_reader(self) -> None:
        try:
            self._reader.close()
        finally:
            self._reader_closed.set()

    def _close_writer(self) -> None:
        self._reader_closed.wait(CLOSE_TIMEOUT_S)
        self._writer.close()
        self._ticket.close()

    def _write(self, script: Callable[[SqlTx, SqliteEngine], T]) -> T:
        try:
            return self._transaction(script)
        except sqlite3.Error as error:
            self._forget()
            raise _fault_of(error) from error
        except BaseException:  # what is known of the book is doubtful, whatever broke
            self._forget()
            raise

    def _transaction(self, script: Callable[[SqlTx, SqliteEngine], T]) -> T:
        self._check_file()
        connection = self._writer
        if connection.in_transaction:
            # An earlier rollback failed, on a disk that was away, say.
            connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        try:
            db = SqliteEngine(connection)
            book, changes = catch_up(db, self._book, attempts=self._attempts)
            with self._book_lock:
                if changes is not None:
                    book.apply(changes)
                if self._book is not None and book is not self._book:
                    # The database went back in time: what readers remember is of another one.
                    self._reader_book = None
                self._book = book
            tx = SqlTx(db, book)
            tx.wall = self._wall
            result = script(tx, db)
            changes = tx.finish()
            connection.execute("COMMIT")
        except BaseException:  # all or nothing, whatever broke
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        with self._book_lock:
            book.apply(changes)
        return result

    def _forget(self) -> None:
        """Drop the writer's book: after an error nothing remembered is trusted.

        A reader's book that is behind it goes too: what was once seen, such as a trip, must
        not vanish from a peek because an older book stands in.
        """
        with self._book_lock:
            if _newer(self._reader_book, self._book) is not self._reader_book:
                self._reader_book = None
            self._book = None

    def _read(self, script: Callable[[Tx], T]) -> T:
        connection = self._reader
        try:
            self._check_file()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("BEGIN")
            try:
                db = SqliteEngine(connection)
                book, changes = catch_up(db, self._reader_book, attempts=self._attempts)
                with self._book_lock:
                    if changes is not None:
                        book.apply(changes)
                    self._reader_book = book
                return script(SqlTx(db, book))
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._forget_read()
            raise _fault_of(error) from error
        except BaseException:  # what is known of the book is doubtful, whatever broke
            self._forget_read()
            raise

    def _forget_read(self) -> None:
        with self._book_lock:
            if _newer(self._book, self._reader_book) is not self._book:
                self._book = None
            self._reader_book = None

    def _check_file(self) -> None:
        """Make sure that the path still names the file that is open.

        A file that was removed or replaced would take every commit of this process along, while
        others write to the new one.
        """
        try:
            same = _file_id(self._database) == self._file
        except OSError as error:
            raise StoreUnavailable(f"the database file is gone: {error}") from error
        if not same:
            raise StoreUnavailable("the database file was replaced while it was open")


def _file_id(database: Path) -> tuple[int, int]:
    status = os.stat(database)  # noqa: PTH116 - on the order's way; Path.stat costs twice as much
    return status.st_dev, status.st_ino


def _newer(first: Book | None, second: Book | None) -> Book | None:
    """The book that has seen more: what a read brought in counts as much as a transaction's."""
    if first is None or second is None:
        return first or second
    ahead = (second.head.version, second.head.audit_seq) > (
        first.head.version,
        first.head.audit_seq,
    )
    return second if ahead else first


def _fault_of(error: sqlite3.Error) -> SafetyError:
    """What a fault of the engine is to the caller: busy, unavailable, or a bug of ours."""
    if isinstance(error, sqlite3.IntegrityError):
        return InvariantBroken(f"the database refused what must not be written: {error}")
    # The primary code is the low byte of what SQLite reports.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LedgerBusy(f"the database is locked by another program: {error}")
    return StoreUnavailable(f"the database failed: {error}")
