"""The crash on the paper venue: what a newcomer sees must trip the default daily loss limit."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tinywindow.exchanges.paper import PaperExchange, PriceBoard, discrepancies
from tinywindow.market.clock import MarketClock
from tinywindow.market.simulated import DEFAULT_SYMBOLS, SimulatedFeed
from tinywindow.safety.domain.approval import mint
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.domain.venue import Accepted
from tinywindow.strategies.base import CLOSES_MAX, MarketView, Proposal
from tinywindow.strategies.registry import make_strategy

START = datetime(2024, 1, 1, 12, tzinfo=UTC)


async def at_once(seconds: float) -> None:
    del seconds


def checked(proposal: Proposal, number: int) -> CheckedOrder:
    return CheckedOrder(
        symbol=parse_symbol(proposal.symbol),
        side=proposal.side,
        amount=proposal.amount,
        type=proposal.type,
        price=proposal.price,
        client_order_id=f"N{number}",
        reduce_only=False,
        decision_id=None,
        agent_id=None,
        venue="paper",
        account="default",
    )


async def equity_path(directory: Path, name: str, scenario: str, seed: int) -> list[Decimal]:
    """Trade a strategy through a scenario, without any guard, and note equity."""
    clock, board = MarketClock(START), PriceBoard()
    feed = SimulatedFeed(scenario, seed=seed, clock=clock, steps=300, speed=None, sleep=at_once)
    strategy, numbers = make_strategy(name, feed.symbols), iter(range(10_000))
    closes: dict[str, deque[Decimal]] = {s: deque(maxlen=CLOSES_MAX) for s in feed.symbols}
    equities = []
    async with PaperExchange(directory / "paper.db", board, clock=clock) as exchange:
        rules = {symbol: await exchange.market(symbol) for symbol in feed.symbols}
        while (moment := await feed.next()) is not None:
            for symbol, price in moment.prices.items():
                board.set(symbol, price, moment.at)
                closes[symbol].append(price)
            await exchange.on_prices(moment.at)
            account = await exchange.account()
            equities.append(account.equity)
            view = MarketView(
                at=moment.at,
                prices=moment.prices,
                closes={symbol: tuple(seen) for symbol, seen in closes.items()},
                positions={p.symbol: p.amount for p in await exchange.positions()},
                equity=account.equity,
                rules=rules,
            )
            for proposal in await strategy.decide(view):
                order = checked(proposal, next(numbers))
                sent = mint(order, reduce_only=False, epoch=0, last_look=lambda: None)
                assert isinstance(await exchange.place(sent), Accepted)
    return equities


@pytest.mark.parametrize("name", ["momentum", "hold"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_crash_costs_more_than_a_tenth_of_equity(tmp_path: Path, name: str, seed: int) -> None:
    equities = asyncio.run(equity_path(tmp_path, name, "crash", seed))
    assert min(equities) / equities[0] < Decimal("0.9")
    assert discrepancies(tmp_path / "paper.db") == ()


@pytest.mark.parametrize("name", ["momentum", "hold"])
def test_a_calm_market_costs_little(tmp_path: Path, name: str) -> None:
    equities = asyncio.run(equity_path(tmp_path, name, "calm", 1))
    assert min(equities) / equities[0] > Decimal("0.97")


def test_the_default_symbols_are_those_of_the_whitelist() -> None:
    assert DEFAULT_SYMBOLS == ("BTC/USDT", "ETH/USDT", "SOL/USDT")
