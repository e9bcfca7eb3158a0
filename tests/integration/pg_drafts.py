"""Orders as the store sees them, and what became of them in the database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
from pg_writers import query

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.book import DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.domain.order import OrderType, PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState, Trip
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.stores.postgres import PostgresStore

START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = PositionKey("paper", "default", "BTC/USDT")
REFUSED = "refused"


def row(name: str, event: EventType = EventType.ORDER_APPROVED) -> AuditDraft:
    return AuditDraft(f"row-{name}", START, event, "test", {"name": name}, order_id=name)


def hold(name: str) -> Hold:
    return Hold(name, KEY, Side.BUY, OrderType.MARKET, Decimal(1), None, HoldState.HELD, 5)


def latch(name: str) -> Latch:
    return Latch(name, KillSwitchMode.HALT_ONLY, "why", "alice", LatchSource.PYTHON, START)


def draft(name: str) -> Draft[str]:
    """An entry of one unit, with its slot and its row."""
    return Draft(
        result=name,
        hold=hold(name),
        entry=True,
        exposure_micros=100,
        exposure_cap_micros=10**12,
        symbol_micros=100,
        symbol_cap_micros=10**12,
        take_slot=True,
        audit=(row(name),),
        at_ms=7,
    )


def tripping(name: str) -> Draft[str]:
    """A refusal that trips the breaker: more than one call can commit."""
    trip = Trip(f"trip-{name}", "drawdown", "-16", "-15", "DRAWDOWN", 1_000)
    rows = (row(f"t-{name}", EventType.CIRCUIT_BREAKER_TRIP), row(name, EventType.ORDER_APPROVED))
    return replace(Draft(name), trip=trip, audit=rows)


async def decide(store: PostgresStore, name: str) -> str:
    """Ask for an order as a gate would: refused while a stop stands."""

    def propose(view: DecisionView) -> Draft[str]:
        if view.existing is not None:
            return Draft("known")
        if view.book.latches:
            return Draft(REFUSED, audit=(row(name, EventType.ORDER_REJECTED_HALTED),))
        return draft(name)

    return await store.decide(DecisionIds(name), propose)


def stands(url: str, name: str) -> bool:
    """Whether an approval stands, whole or not at all, and once."""
    rows = query(url, "SELECT count(*) FROM audit_log WHERE id = %s", f"row-{name}")[0][0]
    holds = query(url, "SELECT count(*) FROM orders WHERE client_order_id = %s", name)[0][0]
    slots = query(url, "SELECT count(*) FROM executions WHERE client_order_id = %s", name)[0][0]
    assert (rows, holds, slots) in {(0, 0, 0), (1, 1, 1)}
    return bool(rows)


async def told(store: PostgresStore, name: str) -> bool | None:
    """What the asker was told: yes, no, or that nobody can say."""
    try:
        return await decide(store, name) == name
    except StoreUnavailable as error:
        return None if "nobody can say" in str(error) else False


class Cut:
    """Loses the writer's connection at its n-th wait for an answer: before it, or after."""

    def __init__(self, store: PostgresStore, at: int, *, after: bool) -> None:
        self.waits = 0
        self.happened = False
        connection = store._writing.link.get()
        whole = connection.wait

        def wait(gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            self.waits += 1
            if self.waits != at:
                return whole(gen, interval, timeout)
            self.happened = True
            if after:
                whole(gen, interval, timeout)
            connection.pgconn.finish()
            raise psycopg.OperationalError("the connection is lost")

        self.connection = connection
        connection.wait = wait  # type: ignore[method-assign]

    def mend(self) -> None:
        self.connection.__dict__.pop("wait")
