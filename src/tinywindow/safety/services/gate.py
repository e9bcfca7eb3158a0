"""The gate: the only door to an exchange.

An order is decided and reserved in one transaction, approved for a quarter of a second, looked
at once more in the loop turn in which it is sent, and settled. Nothing leaves `submit` but a
value: an outcome, or a refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

from tinywindow.safety.domain.admission import Admitted, admit, standing_stops
from tinywindow.safety.domain.approval import APPROVAL_TTL_MS, ApprovalVoid, Approved, expired, mint
from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.book import Book, DecisionView
from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.domain.kill import closes
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.domain.records import Hold, HoldState, TradingState, Trip
from tinywindow.safety.domain.venue import Placed, Rejected, Unknown
from tinywindow.safety.errors import (
    LedgerBusy,
    LimitsDiffer,
    StoreUnavailable,
)
from tinywindow.safety.ports import Exchange
from tinywindow.safety.services.adapters import adapt
from tinywindow.safety.services.admitter import DEFAULT_VENUE, Asking, Decided
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.order_validator import OrderValidator
from tinywindow.safety.services.outcome import ApprovedInPrinciple, Outcome, Refused, invalid
from tinywindow.safety.services.position_limits import PositionLimitEnforcer
from tinywindow.safety.services.sending import Settler
from tinywindow.safety.services.times import to_ms
from tinywindow.safety.services.venue_account import VenueAccount

__all__ = ["OrderGate"]

ACTOR: Final = "order-gate"
RULES_TIMEOUT_S: Final = 1.0
"""How long a venue may take to tell its rules for a market before an entry is refused."""
SEND_TIMEOUT_S: Final = 10.0
"""How long a send may take before its outcome counts as unknown."""
SETTLE_TIMEOUT_S: Final = 2 * SEND_TIMEOUT_S
"""How long closing waits for orders that are under way."""

log = get_logger(__name__)


@dataclass(slots=True)
class _Asked:
    """One call of `submit`: the order's id once it is known, and whether its caller went away."""

    order_id: str | None = None
    withdrawn: bool = False


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
        self.account = VenueAccount(self._exchange, self._clock, self._admitter.new_id)
        self._under_way: set[asyncio.Task[Outcome | Refused]] = set()
        self._admitter.look_ups[self._exchange.name] = self._looked_up

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
        """Wait for orders that are under way; leave the parts to whoever made them."""
        await self.settled()

    async def settled(self) -> None:
        """Wait until no order is under way: what callers left behind is settled, too."""
        if self._under_way:
            await asyncio.wait(tuple(self._under_way), timeout=SETTLE_TIMEOUT_S)

    def evaluate(self, order: object) -> ApprovedInPrinciple | Refused:
        """Say what `submit` would decide from the state in memory; hold and record nothing.

        What only the venue, Redis or the order's history on disk could tell is left out.
        """
        checked, errors = self._validated(order)
        context = self._limits.opened
        if checked is None or errors:
            order_id = None if checked is None else checked.client_order_id
            return Refused(order_id, (*_stops(context), *invalid(errors)))
        if context is None or not self._admitter.agreed:
            return _refused(checked, Reason.STATE_UNKNOWN, "the store was not read yet")
        found = self._breaker.faults()
        asking = Asking(ACTOR, self._breaker.limits, with_intent=True, found=found)
        request = self._admitter.request(context, checked, asking)

        def look(book: Book | None) -> ApprovedInPrinciple | Refused:
            if book is None:
                return _refused(checked, Reason.STATE_UNKNOWN, "the store was not read yet")
            view = DecisionView(book, book.holds.get(checked.client_order_id), decision_spent=False)
            verdict = admit(self._admitter.in_force(request, book), view).result
            if isinstance(verdict, Refusal):
                return Refused.of(verdict, checked.client_order_id)
            return ApprovedInPrinciple(checked.client_order_id, verdict.reduces)

        return context.store.peek(look)

    async def submit(self, order: object) -> Outcome | Refused:
        """Decide about an order and, if it is approved, send it.

        Never raises for an order, a venue or a store: what cannot be decided is refused, and a
        fault in TinyWindow itself is refused and trips the breaker. Where the caller is cancelled
        an order that was not sent yet is not sent, and one that was is settled all the same.
        """
        asked = _Asked()
        task = asyncio.get_running_loop().create_task(
            self._answered(order, asked), name="tinywindow-order"
        )
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            asked.withdrawn = True
            raise

    async def _answered(self, order: object, asked: _Asked) -> Outcome | Refused:
        try:
            return await self._submit(order, asked)
        except Exception as error:  # the last resort: a bug refuses, and trips the breaker
            log.exception("gate_failed", order_id=asked.order_id)
            await self._trip_for(error, asked.order_id)
            breach = Breach(Reason.INTERNAL_ERROR, f"{type(error).__name__} inside the gate")
            return Refused(asked.order_id, (breach,))

    def _validated(self, order: object) -> tuple[CheckedOrder | None, tuple[str, ...]]:
        """The order at its venue, and everything that is wrong with it."""
        name = self._exchange.name
        validated = self._validator.validate_order(order, default_venue=name)
        checked = validated.checked
        if checked is None:
            return None, validated.errors
        if checked.venue == DEFAULT_VENUE:
            checked = replace(checked, venue=name)
        if checked.venue != name:
            return checked, (f"venue is {checked.venue!r}; this gate sends to {name!r}",)
        return checked, ()

    async def _submit(self, order: object, asked: _Asked) -> Outcome | Refused:
        checked, errors = self._validated(order)
        if checked is not None:
            asked.order_id = checked.client_order_id
        try:
            context = await self._admitter.open()
            if checked is None or errors:
                return await self._refuse_invalid(context, asked.order_id, errors)
            asking = await self._asking(context, checked)
            decided = await self._admitter.admit(context, checked, asking)
        except LimitsDiffer as error:
            message = str(error).removeprefix(f"{Reason.LIMITS_DIFFER.value}: ")
            breaches = (Breach(Reason.LIMITS_DIFFER, message), *invalid(errors))
            return Refused(asked.order_id, breaches)
        except LedgerBusy as error:
            breaches = (Breach(Reason.LEDGER_BUSY, str(error)), *invalid(errors))
            return Refused(asked.order_id, breaches)
        except StoreUnavailable as error:
            breaches = (Breach(Reason.STATE_UNKNOWN, str(error)), *invalid(errors))
            return Refused(asked.order_id, breaches)
        verdict = decided.verdict
        if isinstance(verdict, Refusal):
            return Refused.of(verdict, asked.order_id)
        look = self._last_look(context, verdict, decided, asked)
        approved = mint(checked, reduce_only=verdict.reduces, epoch=verdict.epoch, last_look=look)
        return await self._send(context, approved)

    async def _asking(self, context: SafetyContext, order: CheckedOrder) -> Asking:
        """Find what stops entries beside the database: doorbell, breaker's state, clock, venue."""
        await self._breaker.ready()
        found = [*await self._kill_switch.found(), *self._breaker.faults()]
        found += await self.account.found(context)
        reduces_only = False
        try:
            async with asyncio.timeout(RULES_TIMEOUT_S):
                rules = await self._exchange.market(order.symbol.text)
            reduces_only = rules.reduce_only
        except Exception as error:  # noqa: BLE001 - whatever broke there, its rules are unknown
            told = str(error) or type(error).__name__
            message = f"the venue does not tell its rules for {order.symbol.text}: {told}"
            found.append(Breach(Reason.STATE_UNKNOWN, message))
        return Asking(
            ACTOR,
            self._breaker.limits,
            with_intent=True,
            found=tuple(found),
            venue_reduces_only=reduces_only,
        )

    async def _refuse_invalid(
        self, context: SafetyContext, order_id: str | None, errors: tuple[str, ...]
    ) -> Refused:
        await self._admitter.record_invalid(context, errors, ACTOR, order_id=order_id)
        return Refused(order_id, (*_stops(context), *invalid(errors)))

    def _last_look(
        self, context: SafetyContext, verdict: Admitted, decided: Decided, asked: _Asked
    ) -> Callable[[], Refusal | None]:
        def last_look() -> Refusal | None:
            late = 1000 * (self._clock.monotonic() - decided.at_s) > APPROVAL_TTL_MS
            if late or asked.withdrawn:
                return expired()
            if verdict.reduces:
                return context.store.peek(lambda book: _closing(context, book))
            stopped = context.store.peek(
                lambda book: (
                    _stopped_since(book, verdict.epoch)
                    or (None if book is None else self.account.differs(book))
                )
            )
            return stopped or context.stop_probe()

        return last_look

    async def _send(self, context: SafetyContext, approved: Approved) -> Outcome | Refused:
        order = approved.order
        try:
            placed = await self._placed(approved)
        except ApprovalVoid as void:
            await self._settler.unsent(context, order.client_order_id, void.refusal.reason)
            return Refused.of(void.refusal, order.client_order_id)
        try:
            return await self._settler.settle(context, order, placed)
        except Exception as error:  # it was sent, so that this is no refusal
            log.exception("settlement_failed", order_id=order.client_order_id)
            await self._trip_for(error, order.client_order_id)
            message = f"the outcome could not be booked: {type(error).__name__}"
            return Outcome(order.client_order_id, "UNKNOWN", HoldState.UNKNOWN, message=message)

    async def _placed(self, approved: Approved) -> Placed:
        """Send; an adapter's fault is an unknown outcome, once the order was given out."""
        order_id = approved.order.client_order_id
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                return await self._exchange.place(approved)
        except ApprovalVoid:
            raise
        except Exception as error:  # whatever broke: rejected, or unknown once given out
            log.exception("exchange_failed", order_id=order_id)
            message = f"{type(error).__name__} in the exchange adapter"
            if approved.redeemed:
                return Unknown(order_id, message)
            return Rejected(order_id, message)

    async def _looked_up(self, context: SafetyContext, hold: Hold) -> bool:
        """Book what the venue says of an order that nobody reported on; False for nothing."""
        found = await self._exchange.find(hold.key.symbol, hold.client_order_id)
        if found is None:
            return False
        await self._settler.report(context, hold.client_order_id, found)
        return True

    async def _trip_for(self, error: Exception, order_id: str | None) -> None:
        """Latch the breaker for a fault of our own, as far as the store lets us, and audit it."""
        trip_id = self._admitter.new_id()
        now = self._clock.now()
        fault = f"{type(error).__name__} inside the order gate"
        sentence = f"{Reason.INTERNAL_ERROR.value}: {fault}"
        trip = Trip(trip_id, "internal_error", "1", "0", sentence, to_ms(now))
        row = self._admitter.draft(
            EventType.INTERNAL_ERROR, {"fault": fault}, order_id=order_id, actor=ACTOR
        )
        try:
            context = await self._admitter.open()
            await self._breaker.latch_trip(context, trip)
            await context.store.transact(lambda tx: tx.audit(row))
        except Exception as unable:  # noqa: BLE001 - nothing may leave the gate but a value
            log.error("trip_not_latched", error=repr(unable))


def _refused(order: CheckedOrder, code: Reason, message: str) -> Refused:
    return Refused(order.client_order_id, (Breach(code, message),))


def _stops(context: SafetyContext | None) -> tuple[Breach, ...]:
    """What stands against every entry, as far as it is known without I/O."""
    if context is None:
        return ()
    standing = context.store.peek(lambda book: () if book is None else standing_stops(book))
    if any(breach.code is Reason.KILL_SWITCH_ACTIVE for breach in standing):
        return standing
    probed = context.stop_probe()
    return standing if probed is None else (*probed.breaches, *standing)


def _stopped_since(book: Book | None, epoch: int) -> Refusal | None:
    """What came between an entry's approval and its send, as far as this process has seen."""
    if book is None:
        message = "the store failed between the approval and the send"
        return Refusal((Breach(Reason.STATE_UNKNOWN, message),))
    if book.head.stop_epoch != epoch:
        message = "a stop came between the approval and the send"
        return Refusal(standing_stops(book) or (Breach(Reason.KILL_SWITCH_ACTIVE, message),))
    if book.head.trading is TradingState.STOPPED:
        message = "trading was stopped between the approval and the send"
        return Refusal((Breach(Reason.TRADING_STOPPED, message),))
    return None


def _closing(context: SafetyContext, book: Book | None) -> Refusal | None:
    """Whether a close began between an exit's approval and its send: then the close sells it."""
    if not closes(() if book is None else book.latches, context.stops_beside()):
        return None
    message = "the kill switch began to close positions"
    return Refusal((Breach(Reason.POSITION_CLOSING, message),))
