"""An exchange in memory that does what a test says, faults included.

Forks share one venue, and every change is made under one lock, so that a flattener in another
thread trades on the same account.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final

from tinywindow.safety.domain.approval import Approved
from tinywindow.safety.domain.money import ZERO
from tinywindow.safety.domain.order import CheckedOrder, OrderType, Side
from tinywindow.safety.domain.venue import (
    Accepted,
    MarketRules,
    OrderReport,
    Placed,
    Rejected,
    ReportStatus,
    Unknown,
    VenueAccount,
    VenuePosition,
)
from tinywindow.safety.errors import VenueUnavailable

__all__ = ["Fault", "ScriptedExchange"]

PRICE: Final = Decimal(100)


class Fault(StrEnum):
    """What a call does instead of its work."""

    FAIL = "FAIL"
    """It answers with an error; a send did not reach the venue."""
    HANG = "HANG"
    """It never answers, and does nothing."""
    LOST = "LOST"
    """A send is done, but its answer is lost."""
    REJECT = "REJECT"
    """A send is rejected by the venue."""
    CRASH = "CRASH"
    """The adapter itself breaks."""


@dataclass(slots=True)
class _Venue:
    """The state that all forks share."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    positions: dict[str, Decimal] = field(default_factory=dict)
    locked: dict[str, Decimal] = field(default_factory=dict)
    orders: dict[str, OrderReport] = field(default_factory=dict)
    rules: dict[str, MarketRules] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, Fault] = field(default_factory=dict)
    sent: list[tuple[CheckedOrder, bool]] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    account_id: str | None = None


class ScriptedExchange:
    """Implements `ports.Exchange`; market orders fill at once, at 100.

    Args:
        name: the venue's name.
        positions: signed base units by unified symbol; spot balances are managed ones.
        account_id: what tells the account from others; None where the venue cannot say.
    """

    def __init__(
        self,
        name: str = "scripted",
        positions: Mapping[str, object] | None = None,
        *,
        account_id: str | None = "scripted",
    ) -> None:
        self._name = name
        self._venue = _Venue(account_id=account_id)
        for symbol, amount in (positions or {}).items():
            self.set_position(symbol, amount)

    @property
    def name(self) -> str:
        """The venue's name."""
        return self._name

    @property
    def sent(self) -> tuple[tuple[CheckedOrder, bool], ...]:
        """Every order that was sent, and whether it was sent reduce-only."""
        with self._venue.lock:
            return tuple(self._venue.sent)

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each method was called."""
        with self._venue.lock:
            return dict(self._venue.calls)

    def set_position(self, symbol: str, amount: object, *, locked: object = 0) -> None:
        """Set a position; `locked` is what of a spot balance is not free."""
        with self._venue.lock:
            self._venue.positions[symbol] = Decimal(str(amount))
            self._venue.locked[symbol] = Decimal(str(locked))

    def position(self, symbol: str) -> Decimal:
        """The position as the venue has it."""
        with self._venue.lock:
            return self._venue.positions.get(symbol, ZERO)

    def set_rules(self, rules: MarketRules) -> None:
        """Set what the venue demands on one market."""
        with self._venue.lock:
            self._venue.rules[rules.symbol] = rules

    def rest(
        self,
        client_order_id: str,
        symbol: str,
        side: str,
        amount: object,
        price: object = 90,
        *,
        reduce_only: bool = False,
        trigger: bool = False,
        ours: bool = True,
    ) -> None:
        """Put a resting order on the book."""
        report = OrderReport(
            client_order_id=client_order_id,
            venue_order_id=f"v-{client_order_id}",
            symbol=symbol,
            side=Side(side),
            type=OrderType.LIMIT,
            amount=Decimal(str(amount)),
            filled=ZERO,
            status=ReportStatus.OPEN,
            price=Decimal(str(price)),
            reduce_only=reduce_only,
            trigger=trigger,
            ours=ours,
        )
        with self._venue.lock:
            self._venue.orders[client_order_id] = report

    def fill(self, client_order_id: str, symbol: str, side: str, amount: object) -> None:
        """Put a market order there that was filled whole, by whoever sent it."""
        size = Decimal(str(amount))
        report = OrderReport(
            client_order_id=client_order_id,
            venue_order_id=f"v-{client_order_id}",
            symbol=symbol,
            side=Side(side),
            type=OrderType.MARKET,
            amount=size,
            filled=size,
            status=ReportStatus.FILLED,
            average_price=PRICE,
        )
        with self._venue.lock:
            before = self._venue.positions.get(symbol, ZERO)
            self._venue.positions[symbol] = before + size * report.side.sign
            self._venue.orders[client_order_id] = report

    def resting(self) -> frozenset[str]:
        """The ids of the orders that rest."""
        with self._venue.lock:
            orders = self._venue.orders.values()
            return frozenset(o.client_order_id for o in orders if not o.status.terminal)

    def fault(self, method: str, *faults: Fault) -> None:
        """Have the next calls of a method go wrong, one after another."""
        with self._venue.lock:
            self._venue.faults[method].extend(faults)

    def break_down(self, method: str, fault: Fault | None) -> None:
        """Have every call of a method go wrong, until it is mended with None."""
        with self._venue.lock:
            self._venue.always.pop(method, None)
            if fault is not None:
                self._venue.always[method] = fault

    async def _meet(self, method: str) -> Fault | None:
        with self._venue.lock:
            self._venue.calls[method] += 1
            waiting = self._venue.faults[method]
            fault = waiting.pop(0) if waiting else self._venue.always.get(method)
        await asyncio.sleep(0)
        if fault is Fault.HANG:
            await asyncio.get_running_loop().create_future()
        if fault is Fault.CRASH:
            raise RuntimeError("the adapter broke")
        if fault is Fault.FAIL and method != "place":
            raise VenueUnavailable(f"{method} failed")
        return fault

    async def place(self, approved: Approved) -> Placed:
        """Send one order."""
        fault = await self._meet("place")
        order = approved.redeem()
        order_id = order.client_order_id
        if fault is Fault.FAIL:
            return Unknown(order_id, "the connection was refused")
        if fault is Fault.REJECT:
            return Rejected(order_id, "the venue rejected it")
        with self._venue.lock:
            self._venue.sent.append((order, approved.reduce_only))
            report = self._execute(order, reduce_only=approved.reduce_only)
        if fault is Fault.LOST:
            return Unknown(order_id, "the answer was lost")
        return Accepted(report)

    def _execute(self, order: CheckedOrder, *, reduce_only: bool) -> OrderReport:
        report = OrderReport(
            client_order_id=order.client_order_id,
            venue_order_id=f"v-{order.client_order_id}",
            symbol=order.symbol.text,
            side=order.side,
            type=order.type,
            amount=order.amount,
            filled=ZERO,
            status=ReportStatus.OPEN,
            price=order.price,
            reduce_only=reduce_only,
        )
        if order.type is OrderType.MARKET:
            before = self._venue.positions.get(order.symbol.text, ZERO)
            amount = min(order.amount, abs(before)) if reduce_only else order.amount
            self._venue.positions[order.symbol.text] = before + amount * order.side.sign
            whole = amount == order.amount
            report = replace(
                report,
                filled=amount,
                average_price=PRICE,
                status=ReportStatus.FILLED if whole else ReportStatus.EXPIRED,
            )
        self._venue.orders[order.client_order_id] = report
        return report

    async def cancel(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """Cancel an order."""
        await self._meet("cancel")
        with self._venue.lock:
            report = self._venue.orders.get(client_order_id)
            if report is not None and not report.status.terminal:
                report = replace(report, status=ReportStatus.CANCELLED)
                self._venue.orders[client_order_id] = report
            return report

    async def find(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """Look an order up."""
        await self._meet("find")
        with self._venue.lock:
            return self._venue.orders.get(client_order_id)

    async def open_orders(self) -> tuple[OrderReport, ...]:
        """Every resting order."""
        await self._meet("open_orders")
        with self._venue.lock:
            return tuple(o for o in self._venue.orders.values() if not o.status.terminal)

    async def positions(self) -> tuple[VenuePosition, ...]:
        """Every position that is not zero."""
        await self._meet("positions")
        with self._venue.lock:
            return tuple(
                VenuePosition(
                    symbol,
                    amount,
                    amount - self._venue.locked.get(symbol, ZERO),
                    entry_price=PRICE,
                    mark_price=PRICE,
                )
                for symbol, amount in self._venue.positions.items()
                if not amount.is_zero()
            )

    async def account(self) -> VenueAccount:
        """Cash and equity: ten thousand, always."""
        await self._meet("account")
        return VenueAccount(Decimal(10_000), Decimal(10_000))

    async def account_id(self) -> str | None:
        """The account, as it was given."""
        await self._meet("account_id")
        return self._venue.account_id

    async def market(self, symbol: str) -> MarketRules:
        """The rules as set, or none but what the kind of market brings."""
        await self._meet("market")
        spot = ":" not in symbol
        with self._venue.lock:
            known = self._venue.rules.get(symbol)
        return MarketRules(symbol, reduce_only=not spot, spot=spot) if known is None else known

    def fork(self) -> ScriptedExchange:
        """Another instance on the same venue."""
        twin = ScriptedExchange(self._name)
        twin._venue = self._venue
        return twin

    async def close(self) -> None:
        """Nothing to let go of."""
