"""Orders: what a caller asks for, and what validation makes of it.

`Order` takes anything, so that a malformed one is a refusal and never an exception at the
caller's. `CheckedOrder` is what everything behind validation works with; only
`domain.validation` builds one.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from tinywindow.safety.domain.symbols import Symbol

__all__ = ["CheckedOrder", "Order", "OrderType", "PositionKey", "Side"]

DEFAULT_ACCOUNT = "default"


class Side(StrEnum):
    """The side of an order."""

    BUY = "BUY"
    SELL = "SELL"

    @property
    def sign(self) -> int:
        """+1 for BUY, -1 for SELL: the direction in which a fill moves a position."""
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> Side:
        """The side that undoes this one."""
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(StrEnum):
    """How an order is to be executed."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP = "STOP"
    STOP_LIMIT = "STOP_LIMIT"


@dataclass(frozen=True, slots=True)
class Order:
    """An order as a caller proposes it, not yet validated.

    Attributes:
        symbol: unified symbol, such as ``BTC/USDT``.
        side: ``BUY`` or ``SELL``.
        amount: quantity in base units, > 0.
        type: ``MARKET`` or ``LIMIT``.
        price: limit price in quote units for one base unit; absent for a market order.
        client_order_id: the caller's own id; one is made when it is absent.
        reduce_only: refuse unless the order strictly reduces a position.
        decision_id: the decision that led here; each is spent once.
        agent_id: who decided, for the audit log.
        venue: the exchange's name; the gate's own when absent.
        account: the account at that venue.
    """

    symbol: object
    side: object
    amount: object
    type: object = "MARKET"
    price: object = None
    client_order_id: object = None
    reduce_only: object = False
    decision_id: object = None
    agent_id: object = None
    venue: object = None
    account: object = DEFAULT_ACCOUNT


@dataclass(frozen=True, slots=True, order=True)
class PositionKey:
    """What makes two positions the same one: venue, account, market and leg."""

    venue: str
    account: str
    symbol: str
    leg: str = "net"


@dataclass(frozen=True, slots=True)
class CheckedOrder:
    """A validated order; every field has its type and its bounds.

    `amount` is in base units and > 0; `price` is set exactly where `type` needs one.
    """

    symbol: Symbol
    side: Side
    amount: Decimal
    type: OrderType
    price: Decimal | None
    client_order_id: str
    reduce_only: bool
    decision_id: str | None
    agent_id: str | None
    venue: str
    account: str

    @property
    def key(self) -> PositionKey:
        """The position that a fill of this order would move."""
        return PositionKey(self.venue, self.account, self.symbol.text)

    @property
    def signed_amount(self) -> Decimal:
        """The amount with the sign of its side."""
        return self.amount if self.side is Side.BUY else self.amount.copy_negate()

    def same_terms(self, other: CheckedOrder) -> bool:
        """Say whether `other` asks for the same trade, whatever the decision that led to it."""
        return (
            self.key == other.key
            and self.side is other.side
            and self.amount == other.amount
            and self.type is other.type
            and self.price == other.price
            and self.reduce_only == other.reduce_only
        )
