"""The stores under contract, one world each, and the records that the tests put into them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from tinywindow.safety.domain.audit import AuditDraft, AuditRow, EventType
from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.domain.order import OrderType, PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState, MarkRecord, Trip
from tinywindow.safety.ports import Store, Tx
from tinywindow.safety.stores.memory import MemoryDatabase, MemoryStore
from tinywindow.safety.stores.postgres import PostgresStore
from tinywindow.safety.stores.sqlite import SqliteStore

START = datetime(2026, 1, 1, tzinfo=UTC)
BTC = PositionKey("paper", "default", "BTC/USDT")
ETH = PositionKey("paper", "default", "ETH/USDT")
Opener = Callable[[], "Store"]


class World:
    """One database, and every store that a test opened on it."""

    def __init__(self, kind: str, folder: Path, url: str = "") -> None:
        self.kind = kind
        self.url = url
        self.path = folder / "world.db"
        self._memory = MemoryDatabase()
        self._opened: list[Store] = []

    async def open(self, *, attempts: bool = True) -> Store:
        store: Store
        if self.kind == "memory":
            store = MemoryStore(self._memory)
        elif self.kind == "postgres":
            store = await PostgresStore.open(self.url, require_durable=False, attempts=attempts)
        else:
            store = await SqliteStore.open(
                self.path, inline=self.kind == "sqlite-inline", attempts=attempts
            )
        self._opened.append(store)
        return store

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


class Failing(Exception):
    """What a script raises on purpose."""


def at(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def latch(name: str, *, ms: int = 1_000, mode: KillSwitchMode = KillSwitchMode.HALT_ONLY) -> Latch:
    return Latch(name, mode, "a reason", "alice", LatchSource.PYTHON, at(ms))


def trip(name: str, *, ms: int = 1_000) -> Trip:
    return Trip(name, "drawdown", "-16", "-15", "DRAWDOWN: -16 % is beyond -15 %", ms)


def hold(name: str, amount: str = "1", **changes: object) -> Hold:
    made = Hold(
        client_order_id=name,
        key=BTC,
        side=Side.BUY,
        type=OrderType.MARKET,
        amount=Decimal(amount),
        price=None,
        state=HoldState.HELD,
        created_ms=5,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def mark(received_ms: int, **changes: object) -> MarkRecord:
    made = MarkRecord(
        id=0,
        account="default",
        equity=Decimal("1000.5"),
        cash_flow=Decimal(0),
        at_ms=received_ms,
        received_ms=received_ms,
        trusted=True,
        nav=Decimal("1.25"),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def row(name: str, event: EventType = EventType.KILL_STEP, **changes: object) -> AuditDraft:
    made = AuditDraft(name, START, event, "alice", {"name": name, "n": Decimal("1.50")})
    return replace(made, **changes)  # type: ignore[arg-type]


async def all_rows(store: Store) -> tuple[AuditRow, ...]:
    return await store.read(lambda tx: tx.audit_rows(limit=1_000_000))


def summary(book: Book, *, now_ms: int = 0) -> dict[str, object]:
    """Everything that a book knows, in a form in which two books can be compared."""
    return {
        "head": book.head,
        "latches": book.latches,
        "trip": book.trip,
        "holds": dict(book.holds),
        "by_key": {key: dict(holds) for key, holds in book.by_key.items()},
        "sums": dict(book.sums),
        "positions": dict(book.positions),
        "prices": dict(book.prices),
        "documents": dict(book.documents),
        "velocity": book.executions.velocity(now_ms),
        "errors": book.executions.errors(now_ms),
        "streak": book.executions.streak(now_ms),
        "last_id": book.executions.last_id,
    }


async def everything(store: Store) -> tuple[object, ...]:
    """All that a reader can see of a store but its book."""

    def look(tx: Tx) -> tuple[object, ...]:
        return (
            tx.head(),
            tx.standing_latches(),
            tx.last_trip(),
            tx.marks(since_ms=0, limit=10_000),
            tx.audit_rows(limit=100_000),
            tx.close_records(),
            tx.lease("flattener"),
            tx.document("limits"),
            tx.hold("a"),
            tx.execution("a"),
        )

    return await store.read(look)


def raw(path: Path) -> sqlite3.Connection:
    """A connection as any other program would open it."""
    return sqlite3.connect(path, isolation_level=None)
