"""What a feed gives: moments of the market, one after the other, until there are no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Protocol, runtime_checkable

__all__ = ["Bar", "Feed", "Moment"]


class Bar(Protocol):
    """One candle. Prices in quote units; `timestamp_ms` is its open time in Unix milliseconds."""

    @property
    def timestamp_ms(self) -> int:
        """When the bar opened."""
        ...

    @property
    def open(self) -> Decimal:
        """The first price."""
        ...

    @property
    def high(self) -> Decimal:
        """The highest price."""
        ...

    @property
    def low(self) -> Decimal:
        """The lowest price."""
        ...

    @property
    def close(self) -> Decimal:
        """The last price."""
        ...

    @property
    def volume(self) -> Decimal:
        """What was traded, as the source counts it."""
        ...


NO_BARS: Final[Mapping[str, Bar]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Moment:
    """The market at one instant.

    Attributes:
        at: the instant, an aware UTC datetime.
        prices: what is *new* by symbol, in quote units; empty while there are no prices.
        bars: the candles that closed at this instant, by symbol.
    """

    at: datetime
    prices: Mapping[str, Decimal]
    bars: Mapping[str, Bar] = field(default_factory=lambda: NO_BARS)


@runtime_checkable
class Feed(Protocol):
    """A source of moments; their time never goes back."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol that may get a price, in a fixed order."""
        ...

    async def next(self) -> Moment | None:
        """Wait for the next moment; None when the feed has ended, now and ever after."""
        ...
