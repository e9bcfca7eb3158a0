"""Replay of candle files: several symbols in step, each bar told when it closes.

A bar's close is known at its last millisecond, and that is the moment's time. A symbol whose
bar is missing has no new price at that moment; nothing is filled in or carried forward.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from heapq import merge
from typing import Protocol

from tinywindow.market.clock import MarketClock
from tinywindow.market.feed import Bar, Moment
from tinywindow.market.pace import Pace, Sleep
from tinywindow.safety.errors import ConfigurationError

__all__ = ["Candles", "ReplayFeed"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Close = tuple[int, str, Bar]


class Candles(Protocol):
    """A candle file that was read: one symbol, bars in order of time."""

    @property
    def symbol(self) -> str:
        """The unified symbol."""
        ...

    @property
    def interval_ms(self) -> int:
        """Milliseconds from one bar's open to the next one's."""
        ...

    @property
    def bars(self) -> Sequence[Bar]:
        """The bars."""
        ...


class ReplayFeed:
    """Implements `Feed` over candle files, and moves a market clock along."""

    def __init__(
        self,
        files: Sequence[Candles],
        *,
        clock: MarketClock | None = None,
        speed: float | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Take files with bars; a symbol may have several files that do not overlap.

        `speed` is market seconds for one real second; None is as fast as it goes. Without a
        clock it makes its own, which starts at the first close.

        Raises:
            ConfigurationError: there is no bar, or a symbol has two bars that close at once.
        """
        _refuse_overlaps(files)
        self._moments = _moments(files)
        self._coming = next(self._moments, None)
        if self._coming is None:
            raise ConfigurationError("the replay has no bar")
        self._symbols = tuple(dict.fromkeys(file.symbol for file in files))
        self._bars_total = sum(len(file.bars) for file in files)
        self._bars_told = 0
        self.clock = clock or MarketClock(self._coming.at)
        self._pace = Pace(speed, sleep)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol of the files, in their order."""
        return self._symbols

    @property
    def progress(self) -> float:
        """The share of all bars that has been told, 0 to 1."""
        return self._bars_told / self._bars_total

    def skip_to(self, at: datetime) -> Iterator[Moment]:
        """Pass over what happened up to `at`, telling it at once, and move the clock there."""
        while self._coming is not None and self._coming.at <= at:
            moment = self._coming
            self._bars_told += len(moment.bars)
            self._coming = next(self._moments, None)
            yield moment
        self.clock.move_to(max(at, self.clock.now()))

    async def next(self) -> Moment | None:
        """Wait for the next closes at the replay's pace and move the clock to them."""
        moment = self._coming
        if moment is None:
            return None
        if self._bars_told:
            await self._pace.wait((moment.at - self.clock.now()).total_seconds())
        self.clock.move_to(moment.at)
        self._bars_told += len(moment.bars)
        self._coming = next(self._moments, None)
        return moment


def _moments(files: Sequence[Candles]) -> Iterator[Moment]:
    closes = merge(*(_closes(file) for file in files), key=lambda close: close[:2])
    for close_ms, group in itertools.groupby(closes, key=lambda close: close[0]):
        bars = {symbol: bar for _, symbol, bar in group}
        prices = {symbol: bar.close for symbol, bar in bars.items()}
        yield Moment(_EPOCH + timedelta(milliseconds=close_ms), prices, bars)


def _closes(file: Candles) -> Iterator[_Close]:
    for bar in file.bars:
        yield bar.timestamp_ms + file.interval_ms - 1, file.symbol, bar


def _refuse_overlaps(files: Sequence[Candles]) -> None:
    spans: dict[str, list[tuple[int, int]]] = {}
    for file in files:
        if file.bars:
            span = (file.bars[0].timestamp_ms, file.bars[-1].timestamp_ms + file.interval_ms)
            spans.setdefault(file.symbol, []).append(span)
    violations = [
        f"two files of {symbol} overlap in time"
        for symbol, taken in spans.items()
        if any(one[1] > two[0] for one, two in itertools.pairwise(sorted(taken)))
    ]
    if violations:
        raise ConfigurationError(violations)
