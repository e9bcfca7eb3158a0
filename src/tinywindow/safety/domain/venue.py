"""What a venue says: orders, positions, market rules, and the answer to a send.

A venue's words are reports, never truth by themselves: only two read-backs prove anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from tinywindow.safety.domain.money import ZERO
from tinywindow.safety.domain.order import OrderType, Side

__all__ = [
    "Accepted",
    "MarketRules",
    "OrderReport",
    "Placed",
    "Rejected",
    "ReportStatus",
    "Unknown",
    "VenueAccount",
    "VenuePosition",
]


class ReportStatus(StrEnum):
    """Where an order stands at the venue."""

    OPEN = "OPEN"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"

    @property
    def terminal(self) -> bool:
        """Whether nothing more can happen to the order."""
        return self is not ReportStatus.OPEN


@dataclass(frozen=True, slots=True)
class OrderReport:
    """One order as the venue tells it.

    `filled` is cumulative, in base units; `average_price` in quote units for one base unit;
    `fee` cumulative, in quote units. `ours` says whether the client order id is one that
    TinyWindow made or was given; `trigger` whether the order waits for a price first.
    """

    client_order_id: str
    venue_order_id: str
    symbol: str
    side: Side
    type: OrderType
    amount: Decimal
    filled: Decimal
    status: ReportStatus
    price: Decimal | None = None
    average_price: Decimal | None = None
    fee: Decimal = ZERO
    reduce_only: bool = False
    trigger: bool = False
    ours: bool = True

    @property
    def remaining(self) -> Decimal:
        """What may still fill, in base units."""
        return ZERO if self.status.terminal else self.amount - self.filled


@dataclass(frozen=True, slots=True)
class Accepted:
    """The venue took the order; `report` says how far it is."""

    report: OrderReport


@dataclass(frozen=True, slots=True)
class Rejected:
    """The venue definitely did not take the order: nothing of it can fill."""

    client_order_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can say whether the venue took the order; it is held and reconciled."""

    client_order_id: str
    message: str


Placed = Accepted | Rejected | Unknown


@dataclass(frozen=True, slots=True)
class VenuePosition:
    """A position or a managed spot balance at a venue.

    `amount` is signed, in base units (negative is short); `available` is what an order may
    close now (spot: the free balance), signed alike.
    """

    symbol: str
    amount: Decimal
    available: Decimal
    entry_price: Decimal | None = None
    mark_price: Decimal | None = None
    leg: str = "net"


@dataclass(frozen=True, slots=True)
class VenueAccount:
    """Cash and equity of an account at a venue, in USD; `estimated` when a price was missing."""

    cash: Decimal
    equity: Decimal
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class MarketRules:
    """What a venue demands of an order on one market; None is unknown, never "no limit".

    Amounts are in base units, `notional_min` in quote units. `reduce_only` says whether the
    venue has such a flag on this market; spot has none.
    """

    symbol: str
    amount_min: Decimal | None = None
    amount_max: Decimal | None = None
    amount_step: Decimal | None = None
    price_step: Decimal | None = None
    notional_min: Decimal | None = None
    reduce_only: bool = False
    spot: bool = True
