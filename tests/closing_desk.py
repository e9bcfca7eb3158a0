"""A paper venue with positions to close, and a strict look at what its book says of the close."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from decimal import Decimal as D
from pathlib import Path
from typing import Any

from tinywindow.exchanges.paper import PaperConfig, PaperExchange, PriceBoard, discrepancies
from tinywindow.safety.config import KillSwitchConfig
from tinywindow.safety.domain.approval import mint
from tinywindow.safety.domain.order import CheckedOrder, OrderType, PositionKey, Side
from tinywindow.safety.domain.records import Position
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.domain.venue import Accepted, Placed, ReportStatus
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.stores.sqlite import SqliteStore

BTC, ETH, SOL = "BTC/USDT", "ETH/USDT", "SOL/USDT"
PERP, OTHER = "BTC/USDT:USDT", "ETH/USDT:USDT"
PRICES = {BTC: 50_000, ETH: 2_000, SOL: 100, PERP: 50_000, OTHER: 2_000}
SETUP, CLOSE_ID = "SETUP-", "CLOSE-"

QUICK = KillSwitchConfig(
    watch_interval=0.02,
    idle_interval=0.3,
    slow_interval=0.2,
    venue_timeout=0.5,
    in_flight_grace=0.3,
    report_wait=0.05,
)


def quick(**changes: object) -> KillSwitchConfig:
    fields = {name: getattr(QUICK, name) for name in type(QUICK).model_fields}
    return KillSwitchConfig(**{**fields, **changes})


async def eventually(check: Callable[[], Any], timeout_s: float = 15.0) -> None:
    """Wait until a check, plain or awaitable, says yes."""
    async with asyncio.timeout(timeout_s):
        while True:
            answer = check()
            if isinstance(answer, Awaitable):
                answer = await answer
            if answer:
                return
            await asyncio.sleep(0.01)


@dataclass
class Desk:
    """One paper account in a folder, and the ledger beside it."""

    folder: Path
    config: PaperConfig = field(default_factory=PaperConfig)
    faults: Any = None
    name: str = "paper"
    kind: type[PaperExchange] = PaperExchange
    prices: Mapping[str, object] = field(default_factory=lambda: PRICES)
    exchange: PaperExchange = field(init=False)
    managed: dict[str, Decimal] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        board = PriceBoard()
        for symbol, price in self.prices.items():
            board.set(symbol, D(str(price)), datetime.now(UTC))
        self.exchange = self.kind(
            self.folder / f"{self.name}.db",
            board,
            clock=SystemClock(),
            name=self.name,
            opening_cash=D(10_000_000),
            config=self.config,
            faults=self.faults,
        )

    @property
    def book(self) -> Path:
        return self.folder / f"{self.name}.db"

    @property
    def database(self) -> Path:
        return self.folder / "tinywindow.db"

    async def send(
        self,
        side: str,
        symbol: str,
        amount: object,
        *,
        price: object = None,
        reduce_only: bool = False,
        order_id: str | None = None,
    ) -> Placed:
        """An order that somebody sent before the stop."""
        order = CheckedOrder(
            symbol=parse_symbol(symbol),
            side=Side(side),
            amount=D(str(amount)),
            type=OrderType.MARKET if price is None else OrderType.LIMIT,
            price=None if price is None else D(str(price)),
            client_order_id=order_id or f"{SETUP}{next(self._numbers)}",
            reduce_only=reduce_only,
            decision_id=None,
            agent_id=None,
            venue=self.name,
            account="default",
        )
        approved = mint(order, reduce_only=reduce_only, epoch=0, last_look=lambda: None)
        return await self.exchange.place(approved)

    async def open(self, symbol: str, amount: object, *, managed: object = None) -> None:
        """Have a position at the venue; of a spot balance, `managed` is ours, all by default."""
        number = D(str(amount))
        placed = await self.send("BUY" if number > 0 else "SELL", symbol, abs(number))
        assert isinstance(placed, Accepted)
        assert placed.report.status is ReportStatus.FILLED, placed
        self.managed[symbol] = number if managed is None else D(str(managed))

    async def rest(self, order_id: str, side: str, symbol: str, amount: object, price: int) -> None:
        """Have an order rest; one that sells a perpetual is reduce-only."""
        placed = await self.send(
            side,
            symbol,
            amount,
            price=price,
            reduce_only=side == "SELL" and ":" in symbol,
            order_id=order_id,
        )
        assert isinstance(placed, Accepted), placed

    async def keep_ledger(self) -> None:
        """Write into the database what is managed."""
        store = await SqliteStore.open(self.database)
        positions = [
            Position(PositionKey(self.name, "default", symbol), amount, D(100), 1)
            for symbol, amount in self.managed.items()
            if amount
        ]
        try:
            await store.transact(lambda tx: [tx.put_position(one) for one in positions])
        finally:
            await store.close()

    def switch(self, config: KillSwitchConfig = QUICK, **settings: Any) -> KillSwitch:
        numbers = itertools.count()
        tag = f"{id(numbers):x}"
        return KillSwitch(
            None,
            [self.exchange],
            self.database,
            config=config,
            order_id=lambda: f"{CLOSE_ID}{tag}-{next(numbers)}",
            **settings,
        )

    async def held(self) -> dict[str, Decimal]:
        return {one.symbol: one.amount for one in await self.exchange.positions()}

    async def resting(self) -> set[str]:
        return {one.client_order_id for one in await self.exchange.open_orders()}

    def misdeeds(self) -> list[str]:
        """What the venue's own book says against the close; empty when all is well."""
        return misdeeds_of(self.book, self.managed)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def misdeeds_of(book: Path, managed: Mapping[str, Decimal]) -> list[str]:
    """Walk through every fill in order: a close only ever reduces, and sells only what is ours."""
    found = list(discrepancies(book))
    requested = dict(rows(book, "SELECT client_order_id, requested FROM paper_order"))
    standing: dict[str, Decimal] = {}
    sold: dict[str, Decimal] = {}
    seen: set[str] = set()
    fills = rows(book, "SELECT client_order_id, symbol, side, amount FROM fill ORDER BY rowid")
    for order_id, symbol, side, text in fills:
        before, amount = standing.get(symbol, D(0)), D(text)
        signed = amount if side == "BUY" else -amount
        standing[symbol] = before + signed
        if order_id.startswith(("SETUP-", "LIQUIDATION")):
            continue
        if order_id not in seen and D(requested[order_id]) > abs(before):
            found.append(f"{order_id} asked for {requested[order_id]} of {before} {symbol}")
        seen.add(order_id)
        if before * signed >= 0 or amount > abs(before):
            found.append(f"{order_id} moved {symbol} from {before} to {standing[symbol]}")
        sold[symbol] = sold.get(symbol, D(0)) + amount
    for symbol, amount in sold.items():
        if ":" not in symbol and amount > managed.get(symbol, D(0)):
            found.append(f"{amount} {symbol} were sold, {managed.get(symbol, D(0))} were ours")
    return found


def placed_twice(book: Path) -> list[tuple[Any, ...]]:
    """The ids that were sent more than once."""
    return rows(book, "SELECT client_order_id, count FROM placement WHERE count > 1")


def steps(audit: Iterable[Any], step: str) -> list[Any]:
    """The KILL_STEP rows of one kind."""
    return [row for row in audit if f'"step":"{step}"' in row.data]
