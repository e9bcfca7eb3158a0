"""Records: the durable nouns, one dataclass each, as every store keeps them.

Times are integer milliseconds of Unix time in UTC; a field's name ends in its unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from tinywindow.safety.domain.money import EXACT, ZERO
from tinywindow.safety.domain.order import OrderType, PositionKey, Side

__all__ = [
    "CloseRecord",
    "Head",
    "Hold",
    "HoldState",
    "Lease",
    "MarkRecord",
    "Position",
    "ReferencePrice",
    "TradingState",
    "Trip",
]


class TradingState(StrEnum):
    """Whether an operator wants trading. A fresh store is RUNNING; every stop makes it STOPPED."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class HoldState(StrEnum):
    """Where a reserved order stands.

    HELD: reserved, no recorded intent to send. INTENDED: an intent is recorded and the send may
    be under way. WORKING: the venue has it. UNKNOWN: nobody can say. The other three are ends.
    """

    HELD = "HELD"
    INTENDED = "INTENDED"
    WORKING = "WORKING"
    UNKNOWN = "UNKNOWN"
    FILLED = "FILLED"
    RELEASED = "RELEASED"
    LAPSED = "LAPSED"

    @property
    def open(self) -> bool:
        """Whether the order still holds exposure."""
        return self in _OPEN


_OPEN = frozenset({HoldState.HELD, HoldState.INTENDED, HoldState.WORKING, HoldState.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Hold:
    """A reservation and, once `intent_ms` is set, the intent to send it; one per client order id.

    `amount` and `filled` are base units, `filled` cumulative; `price` is the limit price;
    `average_price` of the fills and `fee` are in quote units.
    """

    client_order_id: str
    key: PositionKey
    side: Side
    type: OrderType
    amount: Decimal
    price: Decimal | None
    state: HoldState
    created_ms: int
    filled: Decimal = ZERO
    average_price: Decimal | None = None
    fee: Decimal = ZERO
    intent_ms: int | None = None
    reduces: bool = False
    reduce_only: bool = False
    decision_id: str | None = None
    agent_id: str | None = None
    flatten: bool = False

    @property
    def remaining(self) -> Decimal:
        """What may still fill, in base units; zero once the hold has ended."""
        if not self.state.open or self.filled >= self.amount:
            return ZERO
        return EXACT.subtract(self.amount, self.filled)


@dataclass(frozen=True, slots=True)
class Position:
    """A position that our ledger manages: signed base units at an average entry price.

    `read_ms` is when a venue last confirmed it, None when only our own fills made it.
    """

    key: PositionKey
    amount: Decimal
    price: Decimal
    updated_ms: int
    read_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ReferencePrice:
    """The last reference price of a symbol, in quote units, and when it was seen."""

    symbol: str
    price: Decimal
    at_ms: int


@dataclass(frozen=True, slots=True)
class MarkRecord:
    """One equity mark as it came in. `id` is given by the store."""

    id: int
    account: str
    equity: Decimal
    cash_flow: Decimal
    at_ms: int
    received_ms: int
    trusted: bool
    nav: Decimal | None


@dataclass(frozen=True, slots=True)
class Trip:
    """A breaker trip: latched until a person confirms a reset. `value` and `limit` as text."""

    id: str
    metric: str
    value: str
    limit: str
    sentence: str
    tripped_ms: int
    cleared_ms: int | None = None
    cleared_by: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may flatten: a fenced lease. `fence` grows by one with every new owner."""

    name: str
    owner: str
    fence: int
    heartbeat_ms: int


@dataclass(frozen=True, slots=True)
class CloseRecord:
    """How far the closing is on one venue, as JSON-ready data in `report`."""

    venue: str
    state: str
    report: str
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Head:
    """The one row every order transaction locks: version, stop epoch, and the chain's head.

    `version` grows with every transaction that changes the book; `stop_epoch` with every stop.
    `exposure_micros` is the worst-case total at the last approval, in millionths of a USD.
    """

    version: int
    stop_epoch: int
    trading: TradingState
    audit_seq: int
    audit_hash: str
    exposure_micros: int
