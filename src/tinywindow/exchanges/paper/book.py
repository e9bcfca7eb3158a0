"""The paper venue's durable book: one SQLite file, one transaction for each change.

WAL with full syncing: what was answered survives `kill -9` and a power cut. A write takes the
file's write lock before it reads (`BEGIN IMMEDIATE`), so that two instances on one file, in two
threads or two processes, act one after the other on the same truth.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from tinywindow.exchanges.paper.page import Page
from tinywindow.exchanges.paper.schema import IDENTITY, SCHEMA, SCHEMA_VERSION
from tinywindow.safety.domain.money import plain
from tinywindow.safety.errors import VenueUnavailable

__all__ = ["Book"]


class Book:
    """Opens the file at its first use. Every trouble with it is `VenueUnavailable`."""

    def __init__(self, path: Path, *, opening_cash: Decimal, busy_timeout_s: float) -> None:
        self._path = path
        self._opening_cash = opening_cash
        self._busy_timeout_s = busy_timeout_s
        self._connection: sqlite3.Connection | None = None
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def write(self) -> Iterator[Page]:
        """One write transaction, committed at the end and undone when anything is raised.

        Raises:
            VenueUnavailable: the book cannot be read or written.
        """
        with self._transaction("BEGIN IMMEDIATE") as page:
            yield page

    @contextlib.contextmanager
    def read(self) -> Iterator[Page]:
        """One consistent snapshot that waits for no writer.

        Raises:
            VenueUnavailable: the book cannot be read.
        """
        with self._transaction("BEGIN") as page:
            yield page

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Page]:
        with self._turn:
            try:
                connection = self._connection or self._opened()
                self._connection = connection
                connection.execute(begin)
                try:
                    yield Page(connection)
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise VenueUnavailable(f"the paper book cannot be used: {error}") from error

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except OSError as error:
            raise VenueUnavailable(f"the paper book cannot be opened: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._only_opener():
            connection = sqlite3.connect(
                self._path,
                timeout=self._busy_timeout_s,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("PRAGMA foreign_keys=ON")
                self._make_tables(connection)
            except BaseException:  # closed, whatever broke; the caller hears of it
                connection.close()
                raise
            return connection

    @contextlib.contextmanager
    def _only_opener(self) -> Iterator[None]:
        # SQLite does not wait, but fails, where two connections turn a new file to WAL at once.
        lock = self._path.with_name(self._path.name + ".open")
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == SCHEMA_VERSION:
            return
        if version not in {0, 1}:
            raise sqlite3.DatabaseError(f"it has version {version}; wanted {SCHEMA_VERSION}")
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA if version == 0 else (IDENTITY,):
            connection.execute(statement)
        if version == 0:
            cash = plain(self._opening_cash)
            connection.execute("INSERT INTO account VALUES (1, ?, ?)", (cash, cash))
        connection.execute("INSERT INTO identity VALUES (1, ?)", (secrets.token_hex(16),))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
