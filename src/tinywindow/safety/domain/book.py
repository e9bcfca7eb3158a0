"""The book: everything a decision is made from, cached in memory and moved on by version.

A store keeps one book for each process. It is refreshed from what changed since its version,
and it is only ever changed by `apply`, so that a refresh and one's own commit take one path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Generic, TypeVar

from tinywindow.safety.domain.audit import AuditDraft
from tinywindow.safety.domain.breaker_documents import reset_mark
from tinywindow.safety.domain.kill import Latch
from tinywindow.safety.domain.money import EXACT, ZERO
from tinywindow.safety.domain.order import PositionKey, Side
from tinywindow.safety.domain.records import Head, Hold, Position, ReferencePrice, Trip
from tinywindow.safety.domain.windows import Execution, ExecutionBook

__all__ = ["Book", "Changes", "DecisionIds", "DecisionView", "Draft", "OpenSums"]

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a refresh or a commit brings; absent parts are unchanged."""

    head: Head
    latches: tuple[Latch, ...] | None = None
    trip: tuple[Trip, ...] | None = None
    holds: tuple[Hold, ...] = ()
    positions: tuple[Position, ...] = ()
    prices: tuple[ReferencePrice, ...] = ()
    executions: tuple[Execution, ...] = ()
    documents: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class OpenSums:
    """What still may fill on one position, in base units, and the dearest resting limit."""

    buys: Decimal = ZERO
    sells: Decimal = ZERO
    price_max: Decimal | None = None


@dataclass(slots=True)
class Book:
    """The cached state of one store at `head.version`.

    `holds` are the open ones only. `documents` are small JSON texts by key: the limits in force,
    the NAV state, the breaker's reset mark.
    """

    head: Head
    latches: tuple[Latch, ...] = ()
    trip: Trip | None = None
    holds: dict[str, Hold] = field(default_factory=dict)
    by_key: dict[PositionKey, dict[str, Hold]] = field(default_factory=dict)
    sums: dict[PositionKey, OpenSums] = field(default_factory=dict)
    positions: dict[PositionKey, Position] = field(default_factory=dict)
    prices: dict[str, ReferencePrice] = field(default_factory=dict)
    executions: ExecutionBook = field(default_factory=ExecutionBook)
    documents: dict[str, str] = field(default_factory=dict)

    def apply(self, changes: Changes) -> None:
        """Move the book on to `changes.head.version`."""
        self.head = changes.head
        if changes.latches is not None:
            self.latches = changes.latches
        if changes.trip is not None:
            self.trip = changes.trip[0] if changes.trip else None
        for hold in changes.holds:
            self._apply_hold(hold)
        for position in changes.positions:
            if position.amount.is_zero():
                self.positions.pop(position.key, None)
            else:
                self.positions[position.key] = position
        for price in changes.prices:
            self.prices[price.symbol] = price
        for execution in changes.executions:
            self.executions.upsert(execution)
        self.documents.update(changes.documents)
        if changes.documents:
            self.executions.clear_through(reset_mark(self.documents).cleared_id)

    def copied(self) -> Book:
        """A book that goes its own way from here: what is drafted on it shows nowhere else."""
        return replace(
            self,
            holds=self.holds.copy(),
            by_key={key: holds.copy() for key, holds in self.by_key.items()},
            sums=self.sums.copy(),
            positions=self.positions.copy(),
            prices=self.prices.copy(),
            executions=self.executions.copied(),
            documents=self.documents.copy(),
        )

    def _apply_hold(self, hold: Hold) -> None:
        holds = self.by_key.setdefault(hold.key, {})
        if hold.state.open:
            self.holds[hold.client_order_id] = hold
            before = holds.get(hold.client_order_id)
            holds[hold.client_order_id] = hold
            self.sums[hold.key] = self._grown(hold, before)
        else:
            self.holds.pop(hold.client_order_id, None)
            if holds.pop(hold.client_order_id, None) is not None:
                self.sums[hold.key] = _summed(holds.values())
        if not holds:
            del self.by_key[hold.key]
            self.sums.pop(hold.key, None)

    def _grown(self, hold: Hold, before: Hold | None) -> OpenSums:
        """The sums with one new hold, without walking the others."""
        if before is not None:
            return _summed(self.by_key[hold.key].values())
        sums = self.sums.get(hold.key, OpenSums())
        buys, sells, price_max = sums.buys, sums.sells, sums.price_max
        if hold.side is Side.BUY:
            buys = EXACT.add(buys, hold.remaining)
        else:
            sells = EXACT.add(sells, hold.remaining)
        if hold.price is not None and (price_max is None or hold.price > price_max):
            price_max = hold.price
        return OpenSums(buys, sells, price_max)

    def position_amount(self, key: PositionKey) -> Decimal:
        """The managed position at `key`, signed, in base units; zero when there is none."""
        position = self.positions.get(key)
        return ZERO if position is None else position.amount

    def keys(self) -> set[PositionKey]:
        """Every position that is held or that an open order could make."""
        return set(self.positions) | set(self.by_key)


def _summed(holds: Iterable[Hold]) -> OpenSums:
    buys = sells = ZERO
    price_max: Decimal | None = None
    for hold in holds:
        if hold.side is Side.BUY:
            buys = EXACT.add(buys, hold.remaining)
        else:
            sells = EXACT.add(sells, hold.remaining)
        if hold.price is not None and (price_max is None or hold.price > price_max):
            price_max = hold.price
    return OpenSums(buys, sells, price_max)


@dataclass(frozen=True, slots=True)
class DecisionIds:
    """The identities that a decision must look up beside the book."""

    client_order_id: str
    decision_id: str | None = None


@dataclass(frozen=True, slots=True)
class DecisionView:
    """What a decision sees inside its transaction: the book, and what its ids stand for."""

    book: Book
    existing: Hold | None
    decision_spent: bool


@dataclass(frozen=True, slots=True)
class Draft(Generic[T_co]):
    """A decision as data, for the store to commit whole or not at all.

    `entry` says that the hold can grow risk: then the guarded sums must stay within the caps.
    `exposure_micros` is the worst-case total after it, `symbol_micros` that of its symbol, and
    the two caps are the bounds that the database checks a second time.
    """

    result: T_co
    hold: Hold | None = None
    entry: bool = False
    exposure_micros: int = 0
    exposure_cap_micros: int = 0
    symbol_micros: int = 0
    symbol_cap_micros: int = 0
    take_slot: bool = False
    trip: Trip | None = None
    audit: tuple[AuditDraft, ...] = ()
    at_ms: int = 0
    documents: Mapping[str, str] = field(default_factory=dict)
