"""Helpers for the tests of strategies: views of a small market."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tinywindow.strategies.base import MarketView, Proposal, Strategy

START = datetime(2024, 1, 1, tzinfo=UTC)
BTC, ETH = "BTC/USDT", "ETH/USDT"


@dataclass(frozen=True)
class Room:
    buy: Decimal
    sell: Decimal = Decimal(0)


def view(**terms: Any) -> MarketView:
    """BTC at 50,000 and ETH at 2,500 USD, nothing held, 10,000 USD of equity."""
    given: dict[str, Any] = {
        "at": START,
        "prices": {BTC: Decimal(50_000), ETH: Decimal(2_500)},
        "closes": {},
        "positions": {},
        "equity": Decimal(10_000),
    }
    return MarketView(**{**given, **terms})


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def decide(strategy: Strategy, seen: MarketView) -> tuple[Proposal, ...]:
    return asyncio.run(strategy.decide(seen))
