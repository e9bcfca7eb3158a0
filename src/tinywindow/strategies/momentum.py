"""Momentum: the crossing of a fast and a slow moving average, with a small stake.

The rule, for each symbol by itself:

* enter (buy) when the average of the last `FAST` closes is above that of the last `SLOW`, the
  symbol is flat, and the hourly budget of orders has room for the entry and for every exit;
* leave (sell all) when the fast average is below the slow one;
* each entry takes `STAKE_SHARE` of equity, less where the limits leave less.

It is a plain textbook rule and no promise of profit: its purpose is to trade often enough to
be worth guarding. It goes long only. The budget keeps it below the breaker's fifty orders an
hour; an exit is never held back by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from tinywindow.safety.domain.money import ONE, ZERO
from tinywindow.safety.domain.order import Side
from tinywindow.strategies.base import MarketView, Proposal, sized

__all__ = ["FAST", "ORDERS_PER_HOUR_MAX", "SLOW", "STAKE_SHARE", "Momentum"]

FAST: Final = 5
SLOW: Final = 20
STAKE_SHARE: Final = Decimal("0.2")
ORDERS_PER_HOUR_MAX: Final = 40
ROOM_SHARE: Final = Decimal("0.02")
"""Share of the capacity left alone, since prices move between decision and fill."""
RETRY_AFTER: Final = timedelta(seconds=5)
_HOUR: Final = timedelta(hours=1)


class Momentum:
    """Follows short trends in each symbol, and gets out by itself."""

    def __init__(self, symbols: Sequence[str]) -> None:
        """Take the symbols to be traded."""
        self._symbols = tuple(dict.fromkeys(symbols))
        self._sent: deque[datetime] = deque()
        self._last: dict[str, datetime] = {}

    @property
    def name(self) -> str:
        """The name under which it is chosen."""
        return "momentum"

    async def decide(self, view: MarketView) -> tuple[Proposal, ...]:
        """Propose exits first, then what may be entered."""
        while self._sent and view.at - self._sent[0] >= _HOUR:
            self._sent.popleft()
        trends = {symbol: _trend(view.closes.get(symbol, ())) for symbol in self._symbols}
        proposals = [
            proposal
            for symbol in self._symbols
            if trends[symbol] < 0 and (proposal := self._exit(view, symbol)) is not None
        ]
        held = sum(1 for symbol in self._symbols if not _flat(view, symbol))
        for symbol in self._symbols:
            # An entry also takes the place of the exit that is to follow it.
            if trends[symbol] > 0 and len(self._sent) + held + 2 <= ORDERS_PER_HOUR_MAX:
                proposal = self._entry(view, symbol)
                if proposal is not None:
                    proposals.append(proposal)
                    held += 1
        return tuple(proposals)

    def _exit(self, view: MarketView, symbol: str) -> Proposal | None:
        amount = sized(view, symbol, view.position(symbol))
        if amount == ZERO or not self._rested(symbol, view.at):
            return None
        self._note(symbol, view.at)
        return Proposal(symbol, Side.SELL, amount, note="the fast average fell below the slow")

    def _entry(self, view: MarketView, symbol: str) -> Proposal | None:
        price, equity = view.prices.get(symbol), view.equity
        if price is None or price <= ZERO or equity is None or equity <= ZERO:
            return None
        if not _flat(view, symbol) or not self._rested(symbol, view.at):
            return None
        amount = equity * STAKE_SHARE / price
        capacity = view.capacity.get(symbol)
        if capacity is not None:
            amount = min(amount, capacity.buy * (ONE - ROOM_SHARE))
        amount = sized(view, symbol, amount)
        if amount == ZERO:
            return None
        self._note(symbol, view.at)
        return Proposal(symbol, Side.BUY, amount, note="the fast average rose above the slow")

    def _rested(self, symbol: str, at: datetime) -> bool:
        last = self._last.get(symbol)
        return last is None or at - last >= RETRY_AFTER

    def _note(self, symbol: str, at: datetime) -> None:
        self._last[symbol] = at
        self._sent.append(at)


def _flat(view: MarketView, symbol: str) -> bool:
    """Whether nothing is held that could be sold; what is too small to sell is left alone."""
    position = view.position(symbol)
    return position == ZERO or (position > ZERO and sized(view, symbol, position) == ZERO)


def _trend(closes: Sequence[Decimal]) -> int:
    """+1 while the fast average is above the slow one, -1 below, 0 when neither is known."""
    if len(closes) < SLOW:
        return 0
    # Compared without dividing, so that equal averages are equal.
    fast = sum(closes[-FAST:], ZERO) * SLOW
    slow = sum(closes[-SLOW:], ZERO) * FAST
    return (fast > slow) - (fast < slow)
