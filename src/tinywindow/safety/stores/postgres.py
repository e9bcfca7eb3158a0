"""The store on PostgreSQL: the same transactions, many hosts, and one round trip a decision.

Every writer takes a turn, which the server hands out in order, and then locks the head row; a
stop takes the same lock, and goes first among its own process's jobs. An order is decided from
the cached book and committed by compare-and-set: where the book moved on meanwhile, it is
decided again under the lock, so that nobody starves. Orders that wait together share a commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, LiteralString, TypeVar

import psycopg

from tinywindow.safety.domain.book import Book, DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.records import Head
from tinywindow.safety.errors import (
    ConfigurationError,
    LedgerBusy,
    SafetyError,
    StoreUnavailable,
)
from tinywindow.safety.ports import Tx
from tinywindow.safety.stores.jobs import waiter_and_notify
from tinywindow.safety.stores.pg.books import Begun, Books, begin
from tinywindow.safety.stores.pg.commits import FORGET_OLD_MARKS
from tinywindow.safety.stores.pg.decision import Written
from tinywindow.safety.stores.pg.engine import PostgresEngine
from tinywindow.safety.stores.pg.link import Link, fault_of, minding
from tinywindow.safety.stores.pg.orders import AskedOrder, Orders
from tinywindow.safety.stores.pg.sessions import (
    HEAD,
    READER,
    READING,
    SCRIPT,
    STOP,
    WRITER,
)
from tinywindow.safety.stores.pg.watch import HeadWatch
from tinywindow.safety.stores.pg.writing import Writing, nothing, roll_back
from tinywindow.safety.stores.schema import SCHEMA_REVISION
from tinywindow.safety.stores.sql.part import head_of
from tinywindow.safety.stores.sql.tx import SqlTx
from tinywindow.safety.stores.ticket import NoTurn
from tinywindow.safety.stores.worker import Worker

__all__ = ["DECISION_TIMEOUT_S", "PostgresStore"]

T = TypeVar("T")

DECISION_TIMEOUT_S: Final = 0.45
"""How long an order waits behind others of its process before it is answered `LEDGER_BUSY`; at
the database it then waits for at most 0.24 s."""
FILL_WAIT_S: Final = 0.2
"""How long an order, or a stop, waits where a whole book has to be read first."""
SCRIPT_FILL_WAIT_S: Final = 1.0
SCRIPT_TIMEOUT_S: Final = 5.0
"""How long what is no order waits for its turn."""
CLOSE_TIMEOUT_S: Final = 5.0
"""How long closing waits for the job that runs; its thread ends by itself afterwards."""
SCRIPT_ANSWER_TIMEOUT_S: Final = 3.0
"""How long a transaction waits for an answer before its connection counts as lost."""
STOP_ANSWER_TIMEOUT_S: Final = 7.0
READ_ANSWER_TIMEOUT_S: Final = 10.0

_REVISION: Final = "SELECT version_num FROM alembic_version"


class PostgresStore:
    """Implements `ports.Store` on one PostgreSQL database."""

    def __init__(self, url: str, *, require_durable: bool = True, attempts: bool = True) -> None:
        """Connect to a database whose schema is up to date; see `open`."""
        self._attempts = attempts

        def link(purpose: str, settings: LiteralString) -> Link:
            return Link(url, purpose, settings=settings, require_durable=require_durable)

        writer = link("writer", WRITER)
        self._reading = link("reader", READER)
        self._reading.answer_timeout_s = READ_ANSWER_TIMEOUT_S
        try:
            head = _checked(writer)
        except BaseException:  # no connection is left behind, whatever broke
            writer.drop()
            raise
        self._books = Books()
        self._watch = HeadWatch(link("watch", READER), head)
        self._writing = Writing(writer, self._books, self._watch, attempts=attempts)
        self._orders = Orders(self._writing)
        self._filling: asyncio.Task[None] | None = None
        self._closed = False
        self._writes = Worker("tinywindow-writer", turn=NoTurn(), on_stop=self._writing.close)
        self._reads = Worker("tinywindow-reader", turn=NoTurn(), on_stop=self._reading.drop)

    @classmethod
    async def open(
        cls, url: str, *, require_durable: bool = True, attempts: bool = True
    ) -> PostgresStore:
        """Connect, and make sure that the schema is the newest and commits are durable.

        `require_durable=False` is for tests on servers that do not sync. Without `attempts` the
        book has none: for whoever neither decides nor measures.

        Raises:
            StoreUnavailable: it cannot be reached, or `tinywindow db upgrade` has yet to run.
            ConfigurationError: the server may lose what it says it committed.
        """
        return await asyncio.to_thread(cls, url, require_durable=require_durable, attempts=attempts)

    async def decide(self, ids: DecisionIds, propose: Callable[[DecisionView], Draft[T]]) -> T:
        """Take the order's way: one thread hop, and one round trip where nobody else writes.

        Raises:
            LedgerBusy: no turn came in time, or the book is still being read; nothing was decided.
        """
        await self._filled(FILL_WAIT_S)
        return await self._writes.share(
            AskedOrder(ids, propose), self._orders.decide, timeout_s=DECISION_TIMEOUT_S
        )

    async def transact(self, script: Callable[[Tx], T], *, stop: bool = False) -> T:
        """Run a script in one write transaction; a stop goes before waiting orders."""
        with contextlib.suppress(SafetyError):  # then the transaction reads the book by itself
            await self._filled(FILL_WAIT_S if stop else SCRIPT_FILL_WAIT_S)
        return await self._writes.run(
            lambda: self._transact(script, stop=stop), timeout_s=SCRIPT_TIMEOUT_S, first=stop
        )

    async def read(self, script: Callable[[Tx], T]) -> T:
        """Run a script that only reads, on a snapshot, without waiting for writers."""
        return await self._reads.run(lambda: self._read(script), timeout_s=SCRIPT_TIMEOUT_S)

    async def _filled(self, timeout_s: float) -> None:
        """Have a whole book read where there is none: on the reader, which keeps nobody waiting.

        Under the lock everybody would wait for it, and a stop in line behind an order's. What is
        committed meanwhile is newer than the book, and is caught up with under the lock. A book
        that takes longer than `timeout_s` seconds is read to its end for whoever comes next.
        """
        if self._books.writers is not None or self._closed:
            return
        if self._filling is None or self._filling.done():
            reading = self._reads.run(self._fill, timeout_s=SCRIPT_TIMEOUT_S)
            self._filling = asyncio.get_running_loop().create_task(reading)
            self._filling.add_done_callback(_heard)
        filling = self._filling
        await asyncio.wait({filling}, timeout=timeout_s)
        if not filling.done():
            raise LedgerBusy("the book is still being read")
        filling.result()

    def _fill(self) -> None:
        if self._books.writers is None:
            self._books.fill(self._on_snapshot(lambda begun: begun.book, whole=True))

    def peek(self, look: Callable[[Book | None], T]) -> T:
        """Look at the newest cached book without I/O; None before the first transaction."""
        return self._books.peek(look)

    def change_token(self) -> int:
        """A number that changes within 50 ms of any process's commit; without I/O."""
        return self._watch.token()

    async def changed(self, since: int) -> int:
        """Wait until the change token differs from `since`, and give the new one."""
        while (now := self._watch.token()) == since:
            waiter, notify = waiter_and_notify()
            if self._watch.tell(since, notify):
                try:
                    await waiter
                finally:
                    self._watch.untell(notify)
        return now

    def stop_token(self) -> int:
        """A number that changes with every stop, trip and start, together with `change_token`."""
        return self._watch.stops()

    async def close(self) -> None:
        """Let go of connections and threads; the job that runs ends first, others are refused."""
        if self._closed:
            return
        self._closed = True
        self._writes.stop()
        self._reads.stop()
        self._watch.stop()
        await self._writes.ended(timeout_s=CLOSE_TIMEOUT_S)
        await self._reads.ended(timeout_s=CLOSE_TIMEOUT_S)
        if self._filling is not None:
            await asyncio.wait({self._filling}, timeout=CLOSE_TIMEOUT_S)

    def _transact(self, script: Callable[[Tx], T], *, stop: bool) -> T:
        def run(tx: SqlTx, _: None) -> tuple[T, Written]:
            result = script(tx)
            return result, tx.finish()

        beginning, answer_timeout_s = (
            (STOP, STOP_ANSWER_TIMEOUT_S) if stop else (SCRIPT, SCRIPT_ANSWER_TIMEOUT_S)
        )
        return self._writing.job(
            lambda: self._writing.transaction(beginning, nothing, run), answer_timeout_s
        )

    def _read(self, script: Callable[[Tx], T]) -> T:
        def run(begun: Begun[None]) -> T:
            self._books.read(begun.book, begun.changes)
            db = PostgresEngine(self._reading.get())
            result = script(SqlTx(db, begun.book))
            # A script that would write is told so.
            db.flush()
            return result

        return self._on_snapshot(run)

    def _on_snapshot(self, work: Callable[[Begun[None]], T], *, whole: bool = False) -> T:
        """Read on the reader's connection; `whole` with a book of its own, made anew."""
        try:
            with minding(self._reading, self._books.forget_readers):
                connection = self._reading.get()
                try:
                    cached = None if whole else self._books.readers
                    begun = begin(connection, READING, cached, nothing, attempts=self._attempts)
                    result = work(begun)
                    connection.execute("COMMIT")
                except BaseException:  # all or nothing, whatever broke
                    roll_back(connection, self._reading)
                    raise
        except ConfigurationError as error:
            # It was a fit place when this process started: no reason to end it now.
            raise StoreUnavailable(str(error)) from error
        return result


def _checked(writer: Link) -> Head:
    """Make sure that the database is at our revision, and read its head."""
    connection = writer.get()
    try:
        row = connection.execute(_REVISION).fetchone()
        found = None if row is None else row[0]
    except psycopg.errors.UndefinedTable:
        found = None
    except psycopg.Error as error:
        raise fault_of(error) from error
    if found != SCHEMA_REVISION:
        has = "no schema" if found is None else f"schema revision {found}"
        raise StoreUnavailable(
            f"the database has {has}, and revision {SCHEMA_REVISION} is needed: run "
            "`tinywindow db upgrade` as the owner of its tables, or a newer TinyWindow where "
            "the revision is newer"
        )
    try:
        connection.execute(FORGET_OLD_MARKS)
        # One statement, since a process that starts on a busy machine may be silent for longer
        # than a writer's transaction may.
        row = connection.execute(HEAD).fetchone()
    except psycopg.Error as error:
        raise fault_of(error) from error
    if row is None:
        raise StoreUnavailable("the database has no head row")
    return head_of(row)


def _heard(filling: asyncio.Task[None]) -> None:
    """Take note of how it ended, for whoever waits no longer; the next one asks anew."""
    if not filling.cancelled():
        filling.exception()
