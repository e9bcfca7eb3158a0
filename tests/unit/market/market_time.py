"""Helpers for the tests of feeds: bars, candle files, and a sleep that takes no time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from tinywindow.market.feed import Feed, Moment

START = datetime(2024, 1, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
MINUTE_MS = 60_000


@dataclass(frozen=True)
class OneBar:
    timestamp_ms: int
    close: Decimal
    open: Decimal = Decimal(1)
    high: Decimal = Decimal(1)
    low: Decimal = Decimal(1)
    volume: Decimal = Decimal(1)


@dataclass(frozen=True)
class OneFile:
    symbol: str
    interval_ms: int
    bars: tuple[OneBar, ...]


def candles(symbol: str, closes: dict[int, int], interval_ms: int = MINUTE_MS) -> OneFile:
    """A candle file: number of the bar -> its close."""
    bars = (OneBar(START_MS + n * interval_ms, Decimal(price)) for n, price in closes.items())
    return OneFile(symbol, interval_ms, tuple(bars))


class Sleeps:
    """Notes how long was slept, and wakes at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def all_of(feed: Feed, at_most: int = 10_000) -> list[Moment]:
    """Every moment of a feed, up to a bound."""

    async def collect() -> list[Moment]:
        moments: list[Moment] = []
        while len(moments) < at_most and (moment := await feed.next()) is not None:
            moments.append(moment)
        return moments

    return asyncio.run(collect())
