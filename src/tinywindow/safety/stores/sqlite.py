"""The store on one SQLite file: one writer thread, a fair turn, and one transaction a decision.

Every writer, in every process, first takes a ticket: a lock on a file beside the database that
the kernel hands out in order. With SQLite's own waiting, eight processes starve each other; with
the ticket each waits for at most one transaction of every other. Readers take no ticket.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from tinywindow.safety.domain.book import Book, DecisionIds, DecisionView, Draft
from tinywindow.safety.errors import LedgerBusy, SafetyError, StoreUnavailable
from tinywindow.safety.ports import Tx
from tinywindow.safety.stores.migrate import upgrade_sqlite
from tinywindow.safety.stores.sql.engine import SqliteEngine
from tinywindow.safety.stores.sql.tx import SqlTx, commit_draft, refreshed, view_of
from tinywindow.safety.stores.worker import InlineWorker, Job, Runner, Worker

__all__ = ["DECISION_TIMEOUT_S", "SqliteStore", "connect", "ticket_path"]

T = TypeVar("T")

DECISION_TIMEOUT_S: Final = 0.45
"""How long an order waits for its turn before it is answered `LEDGER_BUSY`."""
SCRIPT_TIMEOUT_S: Final = 5.0
"""How long what is no order waits for its turn."""
BUSY_TIMEOUT_MS: Final = 250
"""How long SQLite itself waits for a lock held by a program that takes no ticket."""


def ticket_path(database: Path) -> Path:
    """The file whose lock hands out turns at `database`."""
    return database.with_name(database.name + ".ticket")


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
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the SQLite file cannot be opened: {error}") from error
    if mode != "wal" or synchronous < 2:
        connection.close()
        raise StoreUnavailable(
            f"the SQLite file is in mode {mode!r} with synchronous={synchronous}; "
            "WAL and FULL are needed for a stop to survive a power cut"
        )
    return connection


class SqliteStore:
    """Implements `ports.Store` on one SQLite file."""

    def __init__(self, database: Path, *, inline: bool = False) -> None:
        self._database = database
        self._writer = connect(database)
        self._reader = connect(database, read_only=True)
        self._probe = connect(database, read_only=True)
        self._ticket = os.open(ticket_path(database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._book: Book | None = None
        self._book_lock = threading.Lock()
        self._reader_book: Book | None = None
        self._closed = False
        self._writes: Runner
        self._reads: Runner
        if inline:
            self._writes = self._reads = InlineWorker()
        else:
            self._writes = Worker("tinywindow-writer", on_stop=self._close_writer)
            self._reads = Worker("tinywindow-reader", on_stop=self._reader.close)
        self._inline = inline

    @classmethod
    async def open(
        cls, database: Path, *, data_dir: Path | None = None, inline: bool = False
    ) -> SqliteStore:
        """Open the file, making or upgrading its schema first.

        Raises:
            StoreUnavailable: it cannot be opened, is damaged, or was made by a newer version.
        """
        del data_dir
        database.parent.mkdir(parents=True, exist_ok=True)
        upgrade_sqlite(database)
        return cls(database, inline=inline)

    async def decide(self, ids: DecisionIds, propose: Callable[[DecisionView], Draft[T]]) -> T:
        """Take the order's way in one transaction and one thread hop."""

        def work(job: Job[T]) -> T:
            def script(tx: SqlTx, db: SqliteEngine) -> T:
                return commit_draft(tx, propose(view_of(tx, db, ids)))

            return self._write(job, script)

        return await self._writes.run(work, timeout_s=DECISION_TIMEOUT_S)

    async def transact(self, script: Callable[[Tx], T], *, stop: bool = False) -> T:
        """Run a script in one write transaction; a stop goes before waiting orders."""

        def work(job: Job[T]) -> T:
            return self._write(job, lambda tx, _: script(tx))

        return await self._writes.run(work, timeout_s=SCRIPT_TIMEOUT_S, first=stop)

    async def read(self, script: Callable[[Tx], T]) -> T:
        """Run a script that only reads, on a snapshot, without waiting for writers."""

        def work(job: Job[T]) -> T:
            if not job.begin():
                raise LedgerBusy("the read was given up")
            return self._read(script)

        return await self._reads.run(work, timeout_s=SCRIPT_TIMEOUT_S)

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

    async def close(self) -> None:
        """Let go of connections and threads."""
        if self._closed:
            return
        self._closed = True
        self._writes.stop()
        self._reads.stop()
        self._probe.close()
        if self._inline:
            self._close_writer()
            self._reader.close()

    def _close_writer(self) -> None:
        self._writer.close()
        os.close(self._ticket)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        fcntl.flock(self._ticket, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._ticket, fcntl.LOCK_UN)

    def _write(self, job: Job[T], script: Callable[[SqlTx, SqliteEngine], T]) -> T:
        try:
            with self._turn():
                # A job that waited past its bound for the turn is given up, not begun.
                if not job.begin():
                    raise LedgerBusy("the request was given up")
                return self._transaction(script)
        except sqlite3.Error as error:
            self._forget()
            raise _unavailable(error) from error
        except OSError as error:
            self._forget()
            raise StoreUnavailable(f"the database cannot be written: {error}") from error
        except BaseException:
            self._forget()
            raise

    def _transaction(self, script: Callable[[SqlTx, SqliteEngine], T]) -> T:
        connection = self._writer
        connection.execute("BEGIN IMMEDIATE")
        try:
            db = SqliteEngine(connection)
            with self._book_lock:
                book = refreshed(db, self._book)
                self._book = book
            tx = SqlTx(db, book)
            result = script(tx, db)
            changes = tx.finish()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        with self._book_lock:
            book.apply(changes)
        return result

    def _forget(self) -> None:
        """Drop the cached book: after an error nothing remembered is trusted."""
        with self._book_lock:
            self._book = None

    def _read(self, script: Callable[[Tx], T]) -> T:
        connection = self._reader
        try:
            connection.execute("BEGIN")
            try:
                db = SqliteEngine(connection)
                with self._book_lock:
                    book = refreshed(db, self._reader_book)
                    self._reader_book = book
                return script(SqlTx(db, book))
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._reader_book = None
            raise _unavailable(error) from error
        except SafetyError:
            self._reader_book = None
            raise


def _newer(first: Book | None, second: Book | None) -> Book | None:
    """The book that has seen more: what a read brought in counts as much as a transaction's."""
    if first is None or second is None:
        return first or second
    ahead = (second.head.version, second.head.audit_seq) > (
        first.head.version,
        first.head.audit_seq,
    )
    return second if ahead else first


def _unavailable(error: sqlite3.Error) -> StoreUnavailable:
    text = str(error)
    if "locked" in text or "busy" in text:
        return LedgerBusy(f"the database is locked by another program: {text}")
    return StoreUnavailable(f"the database failed: {text}")
