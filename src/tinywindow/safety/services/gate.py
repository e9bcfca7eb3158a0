"""The gate: the only door to an exchange.

An order is decided and reserved in one transaction, approved for a quarter of a second, looked
at once more in the loop turn in which it is sent, and settled. Nothing leaves `submit` but a
value: an outcome, or a refusal.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

import structlog

from tinywindow.safety.domain.admission import Admitted, admit
from tinywindow.safety.domain.approval import APPROVAL_TTL_S, ApprovalVoid, Approved, expired, mint
from tinywindow.safety.domain.book import Book, DecisionView
from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.domain.records import Trip
from tinywindow.safety.domain.validation import ValidationResult
from tinywindow.safety.domain.venue import Placed, Rejected, Unknown
from tinywindow.safety.errors import (
    LedgerBusy,
    LimitsDiffer,
    SafetyError,
    StoreUnavailable,
    VenueUnavailable,
)
from tinywindow.safety.ports import Exchange
from tinywindow.safety.services.adapters import adapt
from tinywindow.safety.services.admitter import DEFAULT_VENUE, Asking
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.order_validator import OrderValidator
from tinywindow.safety.services.outcome import ApprovedInPrinciple, Outcome, Refused, invalid
from tinywindow.safety.services.position_limits import PositionLimitEnforcer
from tinywindow.safety.services.sending import Settler
from tinywindow.safety.services.times import to_ms

__all__ = ["OrderGate"]

ACTOR: Final = "order-gate"

log = structlog.get_logger(__name__)


class OrderGate:
    """Sends orders to one exchange, through every safety check, and through nothing else."""

    def __init__(
        self,
        breaker: CircuitBreaker,
        kill_switch: KillSwitch,
        limits: PositionLimitEnforcer,
        validator: OrderValidator,
        exchange: object,
    ) -> None:
        """Join the parts; they must stand on one database.

        Args:
            breaker: the circuit breaker that measures this trading.
            kill_switch: the kill switch that stops it.
            limits: the enforcer; it takes on the exchange's name as its venue.
            validator: the order validator.
            exchange: one of TinyWindow's exchanges, or a `ccxt.async_support` instance.

        Raises:
            ConfigurationError: the exchange is of no kind that any adapter takes.
        """
        self._breaker = breaker
        self._kill_switch = kill_switch
        self._limits = limits
        self._validator = validator
        self._exchange: Exchange = adapt(exchange)
        self._admitter = limits.admitter
        self._clock = limits.admitter.clock
        if self._admitter.venue == DEFAULT_VENUE:
            self._admitter.venue = self._exchange.name
        self._settler = Settler(self._admitter, breaker)

    @property
    def exchange(self) -> Exchange:
        """The exchange that this gate sends to."""
        return self._exchange

    @property
    def settler(self) -> Settler:
        """What books outcomes; reconciliation uses it too."""
        return self._settler

    async def __aenter__(self) -> Self:
        """Open the store."""
        await self._admitter.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the parts to whoever made them."""

    def evaluate(self, order: object) -> ApprovedInPrinciple | Refused:
        """Say what `submit` would decide from the state in memory; hold and record nothing."""
        validated = self._validator.validate_order(order)
        checked = validated.checked
        if checked is None:
            return Refused(None, invalid(validated.errors))
        context = self._limits.opened
        if context is None:
            return _refused(checked, Reason.STATE_UNKNOWN, "the store was not read yet")
        placed = self._admitter.placed_here(checked)
        found = self._breaker.faults()
        asking = Asking(ACTOR, self._breaker.limits, with_intent=True, found=found)
        request = self._admitter.request(context, placed, asking)

        def look(book: Book | None) -> ApprovedInPrinciple | Refused:
            if book is None:
                return _refused(placed, Reason.STATE_UNKNOWN, "the store was not read yet")
            existing = book.holds.get(placed.client_order_id)
            verdict = admit(request, DecisionView(book, existing, decision_spent=False)).result
            if isinstance(verdict, Refusal):
                return Refused.of(verdict, placed.client_order_id)
            return ApprovedInPrinciple(placed.client_order_id, verdict.reduces)

        return context.store.peek(look)

    async def submit(self, order: object) -> Outcome | Refused:
        """Decide about an order and, if it is approved, send it.

        Never raises for an order, a venue or a store: what cannot be decided is refused, and a
        fault in TinyWindow itself is refused and trips the breaker.
        """
        try:
            return await self._submit(order)
        except Exception as error:  # the last resort: a bug refuses, and trips the breaker
            log.exception("gate_failed")
            await self._trip_for(error)
            breach = Breach(Reason.INTERNAL_ERROR, f"{type(error).__name__} inside the gate")
            return Refused(None, (breach,))

    async def _submit(self, order: object) -> Outcome | Refused:
        validated = self._validator.validate_order(order)
        checked = validated.checked
        order_id = None if checked is None else checked.client_order_id
        try:
            context = await self._admitter.open()
            if checked is None:
                return await self._refuse_invalid(context, validated)
            placed = self._admitter.placed_here(checked)
            if placed.venue != self._exchange.name:
                return _refused(
                    placed, Reason.VALIDATION_FAILED, f"this gate sends to {self._exchange.name}"
                )
            verdict = await self._admitter.admit(context, placed, await self._asking(placed))
        except LimitsDiffer as error:
            return Refused(order_id, (Breach(Reason.LIMITS_DIFFER, str(error)),))
        except LedgerBusy as error:
            return Refused(order_id, (Breach(Reason.LEDGER_BUSY, str(error)),))
        except StoreUnavailable as error:
            breaches = (Breach(Reason.STATE_UNKNOWN, str(error)), *invalid(validated.errors))
            return Refused(order_id, breaches)
        if isinstance(verdict, Refusal):
            return Refused.of(verdict, order_id)
        # A cancelled caller must not leave a send without its settlement.
        return await asyncio.shield(self._send(context, placed, verdict))

    async def _asking(self, order: CheckedOrder) -> Asking:
        """Find what stops entries beside the database: doorbell, breaker's state, clock, venue."""
        await self._breaker.ready()
        found = [*await self._kill_switch.found(), *self._breaker.faults()]
        reduces_only = False
        try:
            rules = await self._exchange.market(order.symbol.text)
            reduces_only = rules.reduce_only
        except VenueUnavailable as error:
            message = f"the venue does not tell its rules for {order.symbol.text}: {error}"
            found.append(Breach(Reason.STATE_UNKNOWN, message))
        return Asking(
            ACTOR,
            self._breaker.limits,
            with_intent=True,
            found=tuple(found),
            venue_reduces_only=reduces_only,
        )

    async def _refuse_invalid(
        self, context: SafetyContext, validated: ValidationResult
    ) -> Refused:
        await self._admitter.record_invalid(context, validated, ACTOR)
        stops: tuple[Breach, ...] = ()
        probed = context.stop_probe()
        if probed is not None:
            stops = probed.breaches
        return Refused(None, (*stops, *invalid(validated.errors)))

    def _approve(self, context: SafetyContext, order: CheckedOrder, verdict: Admitted) -> Approved:
        approved_at = self._clock.monotonic()

        def last_look() -> Refusal | None:
            if self._clock.monotonic() - approved_at > APPROVAL_TTL_S:
                return expired()
            if verdict.reduces:
                return None
            epoch = context.store.peek(lambda book: None if book is None else book.head.stop_epoch)
            if epoch is not None and epoch != verdict.epoch:
                message = "a stop came between the approval and the send"
                return Refusal((Breach(Reason.KILL_SWITCH_ACTIVE, message),))
            return context.stop_probe()

        return mint(order, reduce_only=verdict.reduces, epoch=verdict.epoch, last_look=last_look)

    async def _send(
        self, context: SafetyContext, order: CheckedOrder, verdict: Admitted
    ) -> Outcome | Refused:
        approved = self._approve(context, order, verdict)
        try:
            placed: Placed = await self._exchange.place(approved)
        except ApprovalVoid as void:
            await self._settler.unsent(context, order.client_order_id, void.refusal.reason)
            return Refused.of(void.refusal, order.client_order_id)
        except Exception as error:  # an adapter's fault: held as unknown once it was redeemed
            log.exception("exchange_failed", order_id=order.client_order_id)
            message = f"{type(error).__name__} in the exchange adapter"
            if approved.redeemed:
                placed = Unknown(order.client_order_id, message)
            else:
                placed = Rejected(order.client_order_id, message)
        return await self._settler.settle(context, order, placed)

    async def _trip_for(self, error: Exception) -> None:
        """Latch the breaker for a fault of our own, as far as the store lets us."""
        trip_id = self._admitter.new_id()
        now = self._clock.now()
        sentence = f"INTERNAL_ERROR: {type(error).__name__} inside the order gate"
        trip = Trip(trip_id, "internal_error", "1", "0", sentence, to_ms(now))
        try:
            context = await self._admitter.open()
            await self._breaker.latch_trip(context, trip)
        except SafetyError as unable:
            log.error("trip_not_latched", error=str(unable))


def _refused(order: CheckedOrder, code: Reason, message: str) -> Refused:
    return Refused(order.client_order_id, (Breach(code, message),))
