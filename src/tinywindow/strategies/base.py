"""What a strategy is: it sees a view of the market and answers with proposals.

A strategy holds no exchange, no store and no service. What it proposes passes the gate like
any other order, and may be refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Protocol, runtime_checkable

from tinywindow.safety.domain.money import ZERO
from tinywindow.safety.domain.order import OrderType, Side
from tinywindow.safety.domain.venue import MarketRules

__all__ = ["CLOSES_MAX", "Capacity", "MarketView", "Proposal", "Strategy", "sized"]

CLOSES_MAX: Final = 500
"""Closes that a view carries for one symbol, at most."""

_DIGITS: Final = 5
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Capacity(Protocol):
    """What the limits would still let pass, in base units."""

    @property
    def buy(self) -> Decimal:
        """What could still be bought."""
        ...

    @property
    def sell(self) -> Decimal:
        """What could still be sold."""
        ...


@dataclass(frozen=True, slots=True)
class MarketView:
    """What a strategy may know when it decides.

    Attributes:
        at: the moment, an aware UTC datetime.
        prices: last fresh price by symbol, in quote units; a symbol without one is absent.
        closes: recent closes by symbol, oldest first, at most `CLOSES_MAX`.
        positions: signed position by symbol, in base units; absent means flat.
        equity: equity in USD; None while it is not known.
        capacity: what the limits would still let pass, by symbol.
        rules: what the venue demands, by symbol; absent means unknown.
    """

    at: datetime
    prices: Mapping[str, Decimal]
    closes: Mapping[str, tuple[Decimal, ...]]
    positions: Mapping[str, Decimal]
    equity: Decimal | None
    capacity: Mapping[str, Capacity] = field(default_factory=lambda: _NOTHING)
    rules: Mapping[str, MarketRules] = field(default_factory=lambda: _NOTHING)

    def position(self, symbol: str) -> Decimal:
        """The signed position in base units; zero when flat."""
        return self.positions.get(symbol, ZERO)


@dataclass(frozen=True, slots=True)
class Proposal:
    """An order as a strategy would like it.

    `amount` in base units, > 0; `price` in quote units for a LIMIT order only; `note` says in
    a few words why.
    """

    symbol: str
    side: Side
    amount: Decimal
    type: OrderType = OrderType.MARKET
    price: Decimal | None = None
    note: str = ""


@runtime_checkable
class Strategy(Protocol):
    """Decides. It may remember what it saw, and does nothing else."""

    @property
    def name(self) -> str:
        """The name under which it is chosen and audited."""
        ...

    async def decide(self, view: MarketView) -> tuple[Proposal, ...]:
        """Propose orders for this moment; nothing at all means hold."""
        ...


def sized(view: MarketView, symbol: str, amount: Decimal) -> Decimal:
    """Cut an amount in base units down to what the venue takes; zero when it takes none.

    Where the venue's step is not known, five significant digits are kept.
    """
    if amount <= ZERO:
        return ZERO
    rules = view.rules.get(symbol)
    step = rules.amount_step if rules is not None else None
    if step is None:
        step = Decimal(1).scaleb(amount.adjusted() - _DIGITS + 1)
    cut = amount - amount % step
    if rules is None:
        return cut
    if rules.amount_max is not None and cut > rules.amount_max:
        cut = rules.amount_max - rules.amount_max % step
    price = view.prices.get(symbol)
    too_small = (rules.amount_min is not None and cut < rules.amount_min) or (
        rules.notional_min is not None and price is not None and cut * price < rules.notional_min
    )
    return ZERO if too_small else cut
