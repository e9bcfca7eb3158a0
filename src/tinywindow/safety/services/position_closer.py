"""Closing a venue's positions: read, plan, and send slice after slice, each an intent first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from traceback import format_exc
from typing import Final

from tinywindow.safety.domain.approval import APPROVAL_TTL_MS, ApprovalVoid, expired, mint
from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.decision import Refusal
from tinywindow.safety.domain.flatten import ClosePlan, closing_order, is_spot, plan_close
from tinywindow.safety.domain.money import EXACT, ZERO, plain
from tinywindow.safety.domain.order import OrderType, Side
from tinywindow.safety.domain.records import Hold, HoldState
from tinywindow.safety.domain.symbols import BadSymbol, parse_symbol
from tinywindow.safety.domain.venue import Accepted, Placed, Rejected, ReportStatus, VenuePosition
from tinywindow.safety.errors import VenueUnavailable
from tinywindow.safety.ports import Clock
from tinywindow.safety.services.close_tally import CloseTally
from tinywindow.safety.services.flatten_ledger import FlattenLedger
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.order_sweep import OrderSweep
from tinywindow.safety.services.round_errors import RoundErrors
from tinywindow.safety.services.venue_calls import VenueCalls

__all__ = ["PositionCloser"]

POSITION_AGE_MAX_S: Final = 5.0
"""How old a read may be from which an order without a reduce-only flag is sized."""

_log = get_logger(__name__)


@dataclass(slots=True)
class PositionCloser:
    """The flattener's own door to a venue: only orders that shrink a position it just read."""

    sweep: OrderSweep
    new_order_id: Callable[[], str]

    @property
    def calls(self) -> VenueCalls:
        """The venue."""
        return self.sweep.calls

    @property
    def ledger(self) -> FlattenLedger:
        """The ledger."""
        return self.sweep.ledger

    @property
    def clock(self) -> Clock:
        """The clock."""
        return self.sweep.clock

    @property
    def errors(self) -> RoundErrors:
        """The errors of the round."""
        return self.sweep.errors

    @property
    def tally(self) -> CloseTally:
        """The books of the close."""
        return self.sweep.tally

    async def plans(self, positions: tuple[VenuePosition, ...]) -> list[ClosePlan]:
        """How to close what was just read, the largest first."""
        for position in positions:
            if position.mark_price is not None:
                self.ledger.marks[position.symbol] = position.mark_price
        # Side by side: rules that do not come are waited for once, and not once a position.
        plans = await asyncio.gather(*map(self._plan, sorted(positions, key=_by_size)))
        self.tally.seen(plans)
        for plan in plans:
            if plan.blocked is not None:
                self.errors.add(f"{plan.symbol}: {plan.blocked}")
        return list(plans)

    async def _plan(self, position: VenuePosition) -> ClosePlan:
        side = Side.SELL if position.amount > 0 else Side.BUY
        try:
            parse_symbol(position.symbol)
        except BadSymbol as fault:
            size = abs(position.amount)
            return ClosePlan(position.symbol, position.leg, side, size, blocked=str(fault))
        rules = await self.calls.rules(position.symbol)
        managed = self.ledger.managed()
        return plan_close(
            position,
            rules,
            managed=None if managed is None else managed.get(position.symbol, ZERO),
            in_flight=self.ledger.in_flight(position.symbol, side),
        )

    async def close(self) -> None:
        """Send what closes the venue's positions as they are now."""
        read_s = self.clock.monotonic()
        try:
            positions = await self.calls.positions()
        except VenueUnavailable as fault:
            self.errors.add(str(fault))
            return
        for plan in await self.plans(positions):
            if not plan.done:
                self.sweep.disturbed()
            try:
                await self._close_one(plan, read_s)
            except Exception as fault:  # noqa: BLE001 - one position's trouble holds up no other
                _log.error("flatten_position_failed", symbol=plan.symbol, trace=format_exc())
                self.tally.failed(plan, f"{type(fault).__name__}: {fault}")
                self.errors.add(f"{plan.symbol}: {type(fault).__name__}: {fault}")

    async def _close_one(self, plan: ClosePlan, read_s: float) -> None:
        guarded = plan.reduce_only or is_spot(plan.symbol)
        # Nothing at the venue keeps the others from flipping: one slice a fresh read.
        for amount in plan.slices if guarded else plan.slices[:1]:
            stale = self.clock.monotonic() - read_s > POSITION_AGE_MAX_S
            if (stale and not guarded) or not await self._send(plan, amount):
                return

    async def _send(self, plan: ClosePlan, amount: Decimal) -> bool:
        """Send one slice; True when the next may follow."""
        hold = self._hold(plan, amount)
        order_id = hold.client_order_id
        data = {
            "step": "CLOSE",
            "symbol": plan.symbol,
            "leg": plan.leg,
            "side": plan.side.value,
            "amount": plain(amount),
            "reduce_only": plan.reduce_only,
        }
        row = self.ledger.row(f"step-{order_id}", data, order_id=order_id)
        self.tally.sent(plan, order_id, amount)
        intent = await self.ledger.intend(hold, row)
        if not intent.allowed:
            self.tally.unsent(order_id, amount)
            self.errors.add(intent.reason)
            return False
        order = closing_order(
            parse_symbol(plan.symbol),
            plan,
            amount,
            client_order_id=order_id,
            venue=hold.key.venue,
            account=hold.key.account,
        )
        approved = mint(
            order, reduce_only=plan.reduce_only, epoch=intent.epoch, last_look=self._last_look()
        )
        self.sweep.disturbed()
        try:
            placed = await self.calls.place(approved)
        except ApprovalVoid as void:
            self.tally.unsent(order_id, amount)
            await self._ended(order_id, str(void))
            return False
        return await self._placed(plan, placed, order_id)

    def _hold(self, plan: ClosePlan, amount: Decimal) -> Hold:
        now_ms = self.ledger.now_ms()
        return Hold(
            client_order_id=self.new_order_id(),
            key=self.ledger.key_of(plan.symbol, plan.leg),
            side=plan.side,
            type=OrderType.MARKET,
            amount=amount,
            price=None,
            state=HoldState.INTENDED,
            created_ms=now_ms,
            intent_ms=now_ms,
            reduces=True,
            reduce_only=plan.reduce_only,
            flatten=True,
        )

    async def _placed(self, plan: ClosePlan, placed: Placed, order_id: str) -> bool:
        if isinstance(placed, Accepted):
            await self.sweep.book(placed.report)
            return placed.report.status in {ReportStatus.FILLED, ReportStatus.OPEN}
        self.tally.failed(plan, placed.message)
        self.errors.add(f"{plan.symbol}: {placed.message}")
        if isinstance(placed, Rejected):
            await self._ended(order_id, placed.message)
            return False
        row = self.ledger.row(
            self.sweep.new_id(),
            {"reason": placed.message},
            order_id=order_id,
            event=EventType.ORDER_OUTCOME,
        )
        await self.ledger.doubt(order_id, row)
        return False

    async def _ended(self, order_id: str, reason: str) -> None:
        row = self.ledger.row(
            self.sweep.new_id(),
            {"reason": reason},
            order_id=order_id,
            event=EventType.ORDER_OUTCOME,
        )
        await self.ledger.end(order_id, row)

    def _last_look(self) -> Callable[[], Refusal | None]:
        until_s = self.clock.monotonic() + APPROVAL_TTL_MS / 1000

        def look() -> Refusal | None:
            return expired() if self.clock.monotonic() > until_s else None

        return look


def _by_size(position: VenuePosition) -> tuple[Decimal, str]:
    price = position.mark_price or position.entry_price or ZERO
    return -abs(EXACT.multiply(position.amount, price)), position.symbol
