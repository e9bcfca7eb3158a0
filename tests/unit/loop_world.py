"""A market, a venue and a strategy that do what a test says, for the loop that joins them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tinywindow.market.clock import MarketClock
from tinywindow.market.feed import Moment
from tinywindow.orchestrator import CycleReport, Orchestrator
from tinywindow.safety.domain.audit import AuditRow
from tinywindow.safety.domain.order import OrderType, Side
from tinywindow.safety.domain.venue import VenueAccount
from tinywindow.safety.stores.sqlite import SqliteStore
from tinywindow.strategies.base import MarketView, Proposal
from tinywindow.testing import ScriptedExchange

BTC, ETH = "BTC/USDT", "ETH/USDT"
START = datetime(2026, 3, 4, 12, tzinfo=UTC)
PRICE = Decimal(100)


class Market:
    """A feed of one moment a second, each with the prices that the test gave, or none."""

    symbols = (BTC, ETH)

    def __init__(self, clock: MarketClock, moments: Sequence[dict[str, Decimal] | None]) -> None:
        self.clock = clock
        self.told = 0
        self._moments = list(moments)

    async def next(self) -> Moment | None:
        await asyncio.sleep(0)
        if self.told >= len(self._moments):
            return None
        prices = self._moments[self.told]
        self.told += 1
        self.clock.move_to(START + timedelta(seconds=self.told))
        given = dict.fromkeys(self.symbols, PRICE) if prices is None else prices
        return Moment(self.clock.now(), given)


class Account(ScriptedExchange):
    """A scripted venue whose equity the test sets."""

    equity: Decimal = Decimal(10_000)
    closed: bool = False

    async def account(self) -> VenueAccount:
        await super().account()
        return VenueAccount(self.equity, self.equity)

    async def close(self) -> None:
        self.closed = True


class Scripted:
    """A strategy: a function of the cycle's number and the view."""

    name = "scripted"

    def __init__(self, decide: Callable[[int, MarketView], Sequence[Proposal]]) -> None:
        self._decide = decide
        self.views: list[MarketView] = []

    async def decide(self, view: MarketView) -> tuple[Proposal, ...]:
        self.views.append(view)
        return tuple(self._decide(len(self.views), view))


def buy(amount: object = 1, symbol: str = BTC, price: object = None) -> Proposal:
    return _proposal(Side.BUY, amount, symbol, price)


def sell(amount: object = 1, symbol: str = BTC, price: object = None) -> Proposal:
    return _proposal(Side.SELL, amount, symbol, price)


def _proposal(side: Side, amount: object, symbol: str, price: object) -> Proposal:
    limit = None if price is None else Decimal(str(price))
    kind = OrderType.MARKET if limit is None else OrderType.LIMIT
    return Proposal(symbol, side, Decimal(str(amount)), kind, limit)


def always(*proposals: Proposal) -> Callable[[int, MarketView], Sequence[Proposal]]:
    return lambda _number, _view: proposals


def hold(_number: int, _view: MarketView) -> Sequence[Proposal]:
    return ()


class Loop:
    """One orchestrator on one database, and what it reported."""

    def __init__(
        self,
        folder: Path,
        *,
        decide: Callable[[int, MarketView], Sequence[Proposal]] = hold,
        moments: Sequence[dict[str, Decimal] | None] = (None,) * 5,
        exchange: Account | None = None,
        **given: Any,
    ) -> None:
        self.database = folder / "tinywindow.db"
        self.clock = MarketClock(START)
        self.market = Market(self.clock, moments)
        self.exchange = exchange or Account()
        self.strategy = Scripted(decide)
        self.reports: list[CycleReport] = []
        self.orchestrator = Orchestrator(
            None,
            {self.exchange.name: self.exchange},
            self.database,
            strategy=self.strategy,
            feed=self.market,
            clock=self.clock,
            pause_s=0,
            **given,
        )
        self.orchestrator.on_cycle = self.reports.append

    @property
    def answers(self) -> list[str]:
        found = []
        for report in self.reports:
            for _, answer in report.answers:
                code = getattr(answer, "reason_code", None)
                found.append(answer.status if code is None else code.value)  # type: ignore[union-attr]
        return found

    async def rows(self, event: str | None = None) -> tuple[AuditRow, ...]:
        store = await SqliteStore.open(self.database)
        try:
            return await store.read(lambda tx: tx.audit_rows(limit=100_000, event_type=event))
        finally:
            await store.close()


@contextlib.asynccontextmanager
async def running(folder: Path, **given: Any) -> AsyncIterator[Loop]:
    loop = Loop(folder, **given)
    try:
        await loop.orchestrator.start()
        yield loop
    finally:
        await loop.orchestrator.close()
