"""Sweeping a venue's orders: cancel what a stop wants gone, look up what is in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tinywindow.safety.config import KillSwitchConfig
from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.flatten import orders_to_cancel
from tinywindow.safety.domain.kill import KillSwitchMode
from tinywindow.safety.domain.records import Hold, HoldState
from tinywindow.safety.domain.venue import OrderReport
from tinywindow.safety.errors import VenueUnavailable
from tinywindow.safety.ports import Clock
from tinywindow.safety.services.close_tally import CloseTally
from tinywindow.safety.services.flatten_ledger import FlattenLedger
from tinywindow.safety.services.kill_report import LIST_MAX
from tinywindow.safety.services.round_errors import RoundErrors
from tinywindow.safety.services.venue_calls import VenueCalls

__all__ = ["OrderSweep"]

_CLOSE = KillSwitchMode.CLOSE_POSITIONS


@dataclass(slots=True)
class OrderSweep:
    """The orders of one venue under a stop.

    `resting` is how many orders that the stop wants gone were not seen to go; `unresolved` how
    many sends have no known outcome; `terminal_ms` when, on the monotonic clock, every order of
    ours was known to have ended, None while one has not.
    """

    calls: VenueCalls
    ledger: FlattenLedger
    clock: Clock
    config: KillSwitchConfig
    new_id: Callable[[], str]
    errors: RoundErrors
    tally: CloseTally = field(default_factory=CloseTally)
    cancelled: list[str] = field(default_factory=list)
    resting: int = 0
    unresolved: int = 0
    terminal_ms: int | None = None

    async def cancel(self, mode: KillSwitchMode) -> None:
        """Cancel what the mode wants gone; whatever fails is told, and tried in the next round."""
        known = {hold.client_order_id: hold for hold in self.ledger.open_intents()}
        try:
            orders = await self.calls.open_orders()
        except VenueUnavailable as fault:
            self.errors.add(str(fault))
            # Without a list, what our own ledger knows is cancelled one by one.
            targets = [
                (hold.key.symbol, order_id)
                for order_id, hold in known.items()
                if not hold.flatten and (mode is _CLOSE or not (hold.reduces or hold.reduce_only))
            ]
        else:
            chosen = orders_to_cancel(
                orders, mode, known_ids=frozenset(known), managed=self.ledger.managed()
            )
            targets = [(order.symbol, order.client_order_id) for order in chosen]
        gone = await asyncio.gather(*(self._cancel(*target) for target in targets))
        self.resting = len(targets) - sum(gone)
        if any(gone):
            ids = [target[1] for target, done in zip(targets, gone, strict=True) if done]
            self.cancelled = [*self.cancelled, *ids][-LIST_MAX:]
            data = {"step": "CANCELLED", "orders": ids[:LIST_MAX], "count": len(ids)}
            await self.ledger.note(self.ledger.row(self.new_id(), data))

    async def _cancel(self, symbol: str, client_order_id: str) -> bool:
        """Cancel one order; True when it is known to be gone."""
        try:
            report = await self.calls.cancel(symbol, client_order_id)
        except VenueUnavailable as fault:
            self.errors.add(str(fault))
            return False
        if report is None:
            return True
        await self.book(report)
        return report.status.terminal

    async def book(self, report: OrderReport) -> None:
        """Book what the venue says of an order, in the report and in our ledger."""
        self.tally.booked(report)
        row = self.ledger.row(
            self.new_id(),
            {"status": report.status.value},
            order_id=report.client_order_id,
            event=EventType.ORDER_OUTCOME,
        )
        await self.ledger.book(report, row)

    async def look_up(self, *, closing: bool) -> None:
        """Ask the venue for every order of ours that has not ended, whichever process sent it.

        A halt leaves what rests and protects; a close wants everything ended.
        """
        unresolved = 0
        for hold in self.ledger.open_intents():
            if hold.state is HoldState.WORKING and not closing:
                continue
            unresolved += not await self._resolved(hold, closing=closing)
        self.unresolved = unresolved
        if unresolved:
            self.terminal_ms = None
        elif self.terminal_ms is None:
            self.terminal_ms = int(self.clock.monotonic() * 1000)

    async def _resolved(self, hold: Hold, *, closing: bool) -> bool:
        try:
            report = await self.calls.find(hold.key.symbol, hold.client_order_id)
        except VenueUnavailable as fault:
            self.errors.add(str(fault))
            return False
        if report is not None:
            await self.book(report)
            return report.status.terminal or not closing
        sent_ms = hold.created_ms if hold.intent_ms is None else hold.intent_ms
        age_ms = abs(self.ledger.now_ms() - sent_ms)
        if age_ms < self.config.in_flight_grace * 1000:
            return False
        data = {"reason": "the venue never knew it, and its approval has expired"}
        row = self.ledger.row(
            self.new_id(), data, order_id=hold.client_order_id, event=EventType.ORDER_RELEASED
        )
        await self.ledger.end(hold.client_order_id, row)
        return True
