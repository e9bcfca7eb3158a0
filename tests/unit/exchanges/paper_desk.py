"""Helpers for the tests of the paper venue: a clock that is set, orders, and approvals."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from tinywindow.exchanges.paper import PaperConfig, PaperExchange, PriceBoard
from tinywindow.safety.domain.approval import Approved, mint
from tinywindow.safety.domain.order import CheckedOrder, OrderType, Side
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.domain.venue import OrderReport

T = TypeVar("T")

START = datetime(2024, 1, 1, tzinfo=UTC)
SPOT = "BTC/USDT"
PERP = "BTC/USDT:USDT"
FREE = PaperConfig(
    taker_bps=Decimal(0),
    maker_bps=Decimal(0),
    perp_taker_bps=Decimal(0),
    perp_maker_bps=Decimal(0),
    half_spread_bps=Decimal(0),
    impact_coefficient=Decimal(0),
)
"""A venue without costs, so that figures can be read off."""


_opened: list[PaperExchange] = []


class SetClock:
    """A clock that stands where a test puts it."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - START).total_seconds()

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Sleeps:
    """Notes how long was slept, and wakes at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run one call of the port to its end."""
    return asyncio.run(coroutine)


def venue(directory: Path, **settings: Any) -> PaperExchange:
    """A paper venue with BTC at 50,000 USD on both markets."""
    board = settings.pop("board", None)
    if board is None:
        board = PriceBoard()
        board.set(SPOT, Decimal(50_000), START)
        board.set(PERP, Decimal(50_000), START)
    settings.setdefault("clock", SetClock())
    settings.setdefault("config", FREE)
    exchange = PaperExchange(directory / "paper.db", board, **settings)
    _opened.append(exchange)
    return exchange


def forked(exchange: PaperExchange) -> PaperExchange:
    """A fork, closed with the rest when the test ends."""
    other = exchange.fork()
    _opened.append(other)
    return other


def close_all() -> None:
    """Let go of every book that `venue` and `forked` opened, without writing to it."""
    while _opened:
        _opened.pop()._book.close()


def order(
    order_id: str,
    side: str,
    amount: str,
    *,
    symbol: str = SPOT,
    price: str | None = None,
    reduce_only: bool = False,
    kind: str | None = None,
) -> CheckedOrder:
    """A validated order; a limit order when it has a price."""
    default = OrderType.MARKET if price is None else OrderType.LIMIT
    return CheckedOrder(
        symbol=parse_symbol(symbol),
        side=Side(side),
        amount=Decimal(amount),
        type=default if kind is None else OrderType(kind),
        price=None if price is None else Decimal(price),
        client_order_id=order_id,
        reduce_only=reduce_only,
        decision_id=None,
        agent_id=None,
        venue="paper",
        account="default",
    )


def approved(wanted: CheckedOrder) -> Approved:
    """An approval that nobody revokes."""
    return mint(wanted, reduce_only=wanted.reduce_only, epoch=0, last_look=lambda: None)


def place(exchange: PaperExchange, order_id: str, side: str, amount: str, **terms: Any) -> Any:
    """Place an approved order and give the venue's answer."""
    return run(exchange.place(approved(order(order_id, side, amount, **terms))))


def match(exchange: PaperExchange) -> tuple[OrderReport, ...]:
    """Let the venue fill what the price has crossed."""
    return run(exchange.match())


def held(exchange: PaperExchange) -> dict[str, Decimal]:
    """The positions that the venue reports."""
    return {position.symbol: position.amount for position in run(exchange.positions())}
