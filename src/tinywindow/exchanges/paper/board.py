"""The price board: the last price of every symbol in this process, for any of its threads."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

__all__ = ["PriceBoard", "Quote"]

Quote = tuple[Decimal, datetime]
"""A price in quote units for one base unit, and the aware moment at which it was seen."""


class PriceBoard:
    """Last prices, set by a feed and read by venues; it is a `ports.PriceSource` as well."""

    def __init__(self) -> None:
        self._quotes: dict[str, Quote] = {}
        self._lock = threading.Lock()

    def set(self, symbol: str, price: Decimal, at: datetime) -> None:
        """Note a price in quote units; one that is older than what stands is ignored.

        Raises:
            ValueError: the price is not finite and above zero, or `at` has no time zone.
        """
        if not price.is_finite() or price <= 0:
            raise ValueError(f"the price of {symbol} is {price}; wanted a finite number above 0")
        if at.utcoffset() is None:
            raise ValueError(f"the price of {symbol} comes with a time that has no time zone")
        with self._lock:
            standing = self._quotes.get(symbol)
            if standing is None or standing[1] <= at:
                self._quotes[symbol] = (price, at)

    def get(self, symbol: str) -> Quote | None:
        """The last price in quote units and when it was seen, or None."""
        with self._lock:
            return self._quotes.get(symbol)

    def reference_price(self, symbol: str) -> Quote | None:
        """The same as `get`, under the name that `ports.PriceSource` gives it."""
        return self.get(symbol)

    def all(self) -> Mapping[str, Quote]:
        """A copy of the whole board, taken at one moment."""
        with self._lock:
            return dict(self._quotes)
