"""The nouns of the paper venue's book: an order, a fill, a holding."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Final

from tinywindow.safety.domain.money import ZERO
from tinywindow.safety.domain.order import OrderType, Side
from tinywindow.safety.domain.symbols import Symbol, parse_symbol
from tinywindow.safety.domain.venue import OrderReport, ReportStatus

__all__ = ["Fill", "Holding", "PaperOrder"]

_AVERAGE: Final = Context(prec=28)


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution: base units at a price in quote units, and the fee in quote units."""

    amount: Decimal
    price: Decimal
    fee: Decimal
    maker: bool


@dataclass(frozen=True, slots=True)
class Holding:
    """A position, or the balance of a spot base asset.

    `amount` is signed, in base units; `cost` is what its open part was bought for, signed
    alike, in quote units and without fees.
    """

    symbol: Symbol
    amount: Decimal = ZERO
    cost: Decimal = ZERO

    @property
    def entry_price(self) -> Decimal | None:
        """The average price of the open part in quote units; None when flat."""
        return None if self.amount == ZERO else _AVERAGE.divide(self.cost, self.amount)


@dataclass(frozen=True, slots=True)
class PaperOrder:
    """One order of the book. Amounts in base units, money in quote units.

    `amount` may have been clipped from the `requested` one, where the order is reduce-only;
    `traded` is the sum of amount x price over its fills.
    """

    number: int
    client_order_id: str
    symbol: str
    side: Side
    type: OrderType
    requested: Decimal
    amount: Decimal
    price: Decimal | None
    reduce_only: bool
    status: ReportStatus
    filled: Decimal = ZERO
    traded: Decimal = ZERO
    fee: Decimal = ZERO
    message: str = ""

    @property
    def market(self) -> Symbol:
        """The symbol, parsed."""
        return parse_symbol(self.symbol)

    @property
    def remaining(self) -> Decimal:
        """What may still fill, in base units."""
        return ZERO if self.status.terminal else self.amount - self.filled

    def report(self) -> OrderReport:
        """The order as the venue tells it."""
        average = _AVERAGE.divide(self.traded, self.filled) if self.filled else None
        return OrderReport(
            client_order_id=self.client_order_id,
            venue_order_id=f"paper-{self.number}",
            symbol=self.symbol,
            side=self.side,
            type=self.type,
            amount=self.amount,
            filled=self.filled,
            status=self.status,
            price=self.price,
            average_price=average,
            fee=self.fee,
            reduce_only=self.reduce_only,
        )
