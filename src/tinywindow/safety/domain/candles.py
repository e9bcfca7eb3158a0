"""Candles: one bar of trading, read strictly from a line of text.

A line is `timestamp_ms,open,high,low,close,volume`: the bar's open time in Unix milliseconds,
four prices in quote units, and the volume as the source counts it. Numbers are plain ASCII
decimals without signs, blanks or separators.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Final, NamedTuple

__all__ = ["HEADER", "BadCandle", "Candle", "interval_of", "parse_candle"]

HEADER: Final = "timestamp_ms,open,high,low,close,volume"

_LINE: Final = re.compile(
    r"([0-9]{1,15}),([0-9]{1,18}(?:\.[0-9]{1,18})?),([0-9]{1,18}(?:\.[0-9]{1,18})?)"
    r",([0-9]{1,18}(?:\.[0-9]{1,18})?),([0-9]{1,18}(?:\.[0-9]{1,18})?)"
    r",([0-9]{1,18}(?:\.[0-9]{1,18})?)"
)


class BadCandle(ValueError):
    """A line is not a candle; the message says why."""


class Candle(NamedTuple):
    """One bar. `timestamp_ms` is when it opened; prices are quote units for one base unit."""

    timestamp_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


def parse_candle(line: str) -> Candle:
    """Read one line, without its line end.

    Raises:
        BadCandle: it has other fields than six plain numbers, or prices that cannot be: zero,
            or outside the bar's own low and high.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadCandle(f"is not {HEADER} in plain numbers")
    timestamp_ms, *numbers = match.groups()
    candle = Candle(int(timestamp_ms), *map(Decimal, numbers))
    if not candle.low:
        raise BadCandle("has a price of zero")
    if candle.low > min(candle.open, candle.close) or candle.high < max(candle.open, candle.close):
        raise BadCandle("has a price outside its low and high")
    return candle


def interval_of(times_ms: Sequence[int]) -> int:
    """The most frequent step between bars, in milliseconds; the shortest of equals.

    Raises:
        BadCandle: there are fewer than two bars, so that nothing tells it.
    """
    steps = Counter(later - earlier for earlier, later in pairwise(times_ms))
    if not steps:
        raise BadCandle("has fewer than two bars, so that the interval is unknown")
    return min(steps, key=lambda step: (-steps[step], step))
