"""Sweeping a venue's orders: cancel what a stop wants gone, look up what is in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from traceback import format_exc
from typing import Final

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
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.round_errors import RoundErrors
from tinywindow.safety.services.venue_calls import VenueCalls

__all__ = ["OrderSweep"]

_CLOSE = KillSwitchMode.CLOSE_POSITIONS

CALLS_AT_ONCE: Final = 8
CANCEL_BUDGET_S: Final = 10.0
LOOK_UP_BUDGET_S: Final = 5.0
"""How long one round may go on beginning calls of a kind: what is left waits for the next round,
so that a venue whose cancels hang still has its positions closed."""

_log = get_logger(__name__)


@dataclass(slots=True)
class OrderSweep:
    """The orders of one venue under a stop.

    `resting` is how many orders that the stop wants gone were not seen to go; `unresolved` how
    many sends have no known outcome; `moved` whether this round found anything to do.
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
    moved: bool = False
    _ended_ms: int | None = None
    _seen_s: dict[str, float] = field(default_factory=dict)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CALLS_AT_ONCE))

    def ended_ms(self) -> int | None:
        """When, on the monotonic clock, every order of ours was known to have ended.

        None while one has not, or while the database cannot say which orders there are.
        """
        if self.ledger.open_intents() or not self.ledger.fresh:
            self._ended_ms = None
        elif self._ended_ms is None:
            self._ended_ms = int(self.clock.monotonic() * 1000)
        return self._ended_ms

    def disturbed(self) -> None:
        """Take note that something was found or sent: what was read before proves nothing."""
        self._ended_ms = None
        self.moved = True

    async def _all(
        self, works: Iterable[Callable[[], Awaitable[bool]]], budget_s: float
    ) -> list[bool]:
        """Do many things, a few at once, in order; what fails or is put off is False."""
        until_s = self.clock.monotonic() + budget_s
        return list(await asyncio.gather(*(self._one(work, until_s) for work in works)))

    async def _one(self, work: Callable[[], Awaitable[bool]], until_s: float) -> bool:
        async with self._turns:
            if self.clock.monotonic() >= until_s:
                return False
            try:
                return await work()
            except VenueUnavailable as fault:
                self.errors.add(str(fault))
            except Exception as fault:  # noqa: BLE001 - one order's trouble holds up no other
                _log.error("flatten_order_failed", venue=self.calls.name, trace=format_exc())
                self.errors.add(f"{type(fault).__name__}: {fault}")
            return False

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
        if targets:
            self.disturbed()
        works = [partial(self._cancel, *target) for target in targets]
        gone = await self._all(works, CANCEL_BUDGET_S)
        self.resting = len(targets) - sum(gone)
        if any(gone):
            ids = [target[1] for target, done in zip(targets, gone, strict=True) if done]
            self.cancelled = [*self.cancelled, *ids][-LIST_MAX:]
            data = {"step": "CANCELLED", "orders": ids[:LIST_MAX], "count": len(ids)}
            await self.ledger.note(self.ledger.row(self.new_id(), data))

    async def _cancel(self, symbol: str, client_order_id: str) -> bool:
        """Cancel one order; True when it is known to be gone."""
        report = await self.calls.cancel(symbol, client_order_id)
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

    async def look_up(self, *, closing: bool, only_own: bool = False) -> None:
        """Ask the venue for every order of ours that has not ended, whichever process sent it.

        A halt leaves what rests and protects; a close wants everything ended. The closes come
        first: while one is unknown, its position waits. `only_own` asks for nothing else.
        """
        holds = [
            hold
            for hold in self.ledger.open_intents()
            if (closing or hold.state is not HoldState.WORKING) and (hold.flatten or not only_own)
        ]
        holds.sort(key=lambda hold: not hold.flatten)
        if holds:
            self.disturbed()
        works = [partial(self._resolved, hold, closing=closing) for hold in holds]
        resolved = await self._all(works, LOOK_UP_BUDGET_S)
        self.unresolved = len(holds) - sum(resolved)

    async def _resolved(self, hold: Hold, *, closing: bool) -> bool:
        if hold.flatten:
            self.tally.adopt(hold)
        report = await self.calls.find(hold.key.symbol, hold.client_order_id)
        if report is not None:
            await self.book(report)
            return self.ledger.ended(hold.client_order_id) or not closing
        # By the monotonic clock since it was first looked for here: the wall clock may jump, and
        # an order that is taken for lost too early is sent twice.
        now_s = self.clock.monotonic()
        since_s = self._seen_s.setdefault(hold.client_order_id, now_s)
        if now_s - since_s < self.config.in_flight_grace:
            return False
        data = {"reason": "the venue never knew it, and its approval has expired"}
        row = self.ledger.row(
            self.new_id(), data, order_id=hold.client_order_id, event=EventType.ORDER_RELEASED
        )
        await self.ledger.end(hold.client_order_id, row)
        return True
