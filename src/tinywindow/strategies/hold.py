"""Hold: buy equal shares of everything once, then do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from tinywindow.safety.domain.money import ONE, ZERO
from tinywindow.safety.domain.order import Side
from tinywindow.strategies.base import MarketView, Proposal, sized

__all__ = ["Hold"]

ROOM_SHARE: Final = Decimal("0.02")
"""Share of equity, and of each capacity, left alone for fees and slippage."""
TRIES_MAX: Final = 3
RETRY_AFTER: Final = timedelta(seconds=30)


class Hold:
    """Buys the same value of every symbol, as far as the limits allow, and never trades again.

    A symbol is done once a position in it was seen. A purchase that was refused or failed is
    proposed again after 30 s, three times in all.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        """Take the symbols to be held."""
        self._symbols = tuple(dict.fromkeys(symbols))
        self._done: set[str] = set()
        self._tries: dict[str, list[datetime]] = {}

    @property
    def name(self) -> str:
        """The name under which it is chosen."""
        return "hold"

    async def decide(self, view: MarketView) -> tuple[Proposal, ...]:
        """Propose what is still to be bought."""
        self._done.update(symbol for symbol in self._symbols if view.position(symbol) != ZERO)
        if view.equity is None or view.equity <= ZERO:
            return ()
        share = view.equity * (ONE - ROOM_SHARE) / len(self._symbols)
        proposals = []
        for symbol in self._symbols:
            amount = self._wanted(view, symbol, share)
            if amount > ZERO and self._may_try(symbol, view.at):
                self._tries.setdefault(symbol, []).append(view.at)
                proposals.append(Proposal(symbol, Side.BUY, amount, note="an equal share"))
        return tuple(proposals)

    def _wanted(self, view: MarketView, symbol: str, share: Decimal) -> Decimal:
        price = view.prices.get(symbol)
        if symbol in self._done or price is None or price <= ZERO:
            return ZERO
        amount = share / price
        capacity = view.capacity.get(symbol)
        if capacity is not None:
            amount = min(amount, capacity.buy * (ONE - ROOM_SHARE))
        return sized(view, symbol, amount)

    def _may_try(self, symbol: str, at: datetime) -> bool:
        tries = self._tries.get(symbol, [])
        return not tries or (len(tries) < TRIES_MAX and at - tries[-1] >= RETRY_AFTER)
