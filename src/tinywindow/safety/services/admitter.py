"""What the enforcer and the gate share: gathering a request, and taking it to its decision."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from tinywindow.safety.config import PositionLimits
from tinywindow.safety.domain.admission import Admission, AdmissionRequest, admit
from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.book import Book, DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.breaker import BreakerLimits
from tinywindow.safety.domain.decision import Breach, Reason
from tinywindow.safety.domain.limits import EquityView, LimitSet, PriceOf
from tinywindow.safety.domain.money import ZERO, to_decimal
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.domain.records import Hold, ReferencePrice
from tinywindow.safety.domain.watch import equity_view
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.ports import Clock, PriceSource, Tx
from tinywindow.safety.services import settlement
from tinywindow.safety.services.context import ContextHandle, SafetyContext
from tinywindow.safety.services.limits_in_force import (
    LIMITS_DOCUMENT,
    agree_on_limits,
    limits_of,
)
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.refusals import Counted, RefusalCounter
from tinywindow.safety.services.times import to_ms

__all__ = ["DEFAULT_VENUE", "Admitter", "Asking", "Decided", "random_id"]

DEFAULT_VENUE: Final = "default"
"""The venue of an order that names none, until a gate gives its own."""

log = get_logger(__name__)


def random_id() -> str:
    """A row id that nobody can guess and that never comes twice."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Asking:
    """How an order is asked about: by the enforcer alone, or by a gate that will send it."""

    actor: str = "position-limits"
    breaker: BreakerLimits | None = None
    with_intent: bool = False
    found: tuple[Breach, ...] = ()
    venue_reduces_only: bool = True
    data: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, and when it was made, by the monotonic clock, inside its transaction.

    `known` says that the order's id had a hold before, so that this decision reserved nothing.
    """

    verdict: Admission
    at_s: float
    known: bool = False


@dataclass(frozen=True, slots=True)
class _InForce:
    """The limits as this process enforces them, and the text that the store must hold."""

    limits: LimitSet
    text: str


LookUp = Callable[[SafetyContext, Hold], Awaitable[bool]]
"""Looks an order up at its venue and books what is found; False where the venue never knew it."""

LOOK_UP_TIMEOUT_S: Final = 1.0
LOOK_UP_PAUSE_S: Final = 5.0
"""How long after a venue did not answer it is asked again."""


class Admitter:
    """Takes validated orders to their decision, one transaction each."""

    def __init__(
        self,
        handle: ContextHandle,
        *,
        limits: PositionLimits | None,
        change_limits: bool,
        prices: PriceSource | None,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._handle = handle
        self._given_limits = limits
        self._change_limits = change_limits
        self._price_source = None if prices is None else _Prices(prices)
        self._refusals = RefusalCounter(clock)
        self._in_force: _InForce | None = None
        self._agreeing = asyncio.Lock()
        self.clock = clock
        self.new_id = new_id
        self.venue = DEFAULT_VENUE
        self.look_ups: dict[str, LookUp] = {}
        self._silent_s: dict[str, float] = {}

    async def open(self) -> SafetyContext:
        """Open the store and agree on the limits in force.

        Raises:
            LimitsDiffer: the store holds other limits than those given.
            StoreUnavailable: the store cannot be opened.
        """
        context = await self._handle.open()
        async with self._agreeing:
            if self._in_force is None:
                limits = await agree_on_limits(
                    context.store,
                    self._given_limits,
                    now=self.clock.now(),
                    change=self._change_limits,
                    new_id=self.new_id,
                )
                self._in_force = _InForce(limits, limits.to_text())
        return context

    @property
    def agreed(self) -> bool:
        """Whether the limits in force are known."""
        return self._in_force is not None

    @property
    def limits(self) -> LimitSet:
        """The limits in force, once they were agreed on."""
        if self._in_force is None:
            raise StoreUnavailable("the limits are not known before the first await")
        return self._in_force.limits

    @property
    def price_source(self) -> PriceOf | None:
        """Reference prices beside the store's."""
        return self._price_source

    def placed_here(self, order: CheckedOrder) -> CheckedOrder:
        """Give an order that names no venue this admitter's own."""
        return replace(order, venue=self.venue) if order.venue == DEFAULT_VENUE else order

    def request(
        self, context: SafetyContext, order: CheckedOrder, asking: Asking
    ) -> AdmissionRequest:
        """Gather everything that a decision depends on beside the book."""
        now = self.clock.now()
        return AdmissionRequest(
            order=order,
            now=now,
            now_ms=to_ms(now),
            limits=self.limits,
            equity_of=_equity_of(self.limits, to_ms(now)),
            price_source=self._price_source,
            stop_probe=context.stop_probe,
            stops_beside=context.stops_beside,
            ids=(self.new_id(), self.new_id(), self.new_id()),
            actor=asking.actor,
            breaker=asking.breaker,
            with_intent=asking.with_intent,
            found=(*asking.found, *context.found()),
            venue_reduces_only=asking.venue_reduces_only,
            data=asking.data,
        )

    def in_force(self, request: AdmissionRequest, book: Book) -> AdmissionRequest:
        """Hold a request to the limits that the store holds at this moment.

        Another process may have changed them since they were agreed on: who adopted them adopts
        them again, and whoever was given others sends no entry any more.
        """
        text = book.documents.get(LIMITS_DOCUMENT)
        if self._in_force is not None and text == self._in_force.text:
            return request
        if text is None or self._given_limits is not None:
            message = "the limits in the store were changed and differ from those given here"
            return replace(request, found=(*request.found, Breach(Reason.LIMITS_DIFFER, message)))
        limits = limits_of(text)
        self._in_force = _InForce(limits, text)
        return replace(request, limits=limits, equity_of=_equity_of(limits, request.now_ms))

    async def admit(self, context: SafetyContext, order: CheckedOrder, asking: Asking) -> Decided:
        """Decide about a validated order and commit the decision.

        Raises:
            LedgerBusy, StoreUnavailable: nothing was decided.
        """
        # Before the decision: after its commit nothing may fail any more.
        await self.flush_refusals(context)
        await self._lapse_if_due(context)
        asked = self._refusals.asked(order)
        request = replace(self.request(context, order, asking), coalesced=asked.counts)
        at_s, known = self.clock.monotonic(), False

        def propose(view: DecisionView) -> Draft[Admission]:
            nonlocal at_s, known
            at_s, known = self.clock.monotonic(), view.existing is not None
            # A store may ask again before it commits, from a newer book.
            asked.begin()
            return admit(self.in_force(request, view.book), view)

        ids = DecisionIds(order.client_order_id, order.decision_id)
        try:
            verdict = await context.store.decide(ids, propose)
        except asyncio.CancelledError:
            # Nobody hears the answer, which may stand all the same.
            asked.committed()
            raise
        except BaseException:  # whatever broke: what was drafted does not stand
            asked.begin()
            raise
        asked.committed()
        return Decided(verdict, at_s, known)

    async def record_invalid(
        self,
        context: SafetyContext,
        errors: tuple[str, ...],
        actor: str,
        *,
        order_id: str | None = None,
    ) -> None:
        """Write the row of an order that was not valid, or count it with its like in a flood."""
        await self.flush_refusals(context)
        if self._refusals.counts_invalid(errors):
            return
        row = self.draft(
            EventType.ORDER_VALIDATION_FAILED,
            {"errors": list(errors)},
            order_id=order_id,
            actor=actor,
        )
        await context.store.transact(lambda tx: tx.audit(row))

    async def flush_refusals(self, context: SafetyContext, *, everything: bool = False) -> None:
        """Write the rows of refusals that were counted together and whose second is over.

        Raises:
            StoreUnavailable: they were not written, and are kept for the next time.
        """
        counted = self._refusals.due(everything=everything)
        if counted:
            # A cancelled caller must not leave it open whether they were written.
            await asyncio.shield(self._write_counted(context, counted))

    async def _write_counted(self, context: SafetyContext, counted: Iterable[Counted]) -> None:
        rows = [
            replace(self.draft(one.event, one.data, order_id=one.order_id), agent_id=one.agent_id)
            for one in counted
        ]

        def script(tx: Tx) -> None:
            for row in rows:
                tx.audit(row)

        try:
            await context.store.transact(script)
        except StoreUnavailable:
            self._refusals.put_back(counted)
            raise

    def draft(
        self,
        event: EventType,
        data: Mapping[str, object],
        *,
        order_id: str | None = None,
        actor: str = "position-limits",
    ) -> AuditDraft:
        """An audit row of now."""
        return AuditDraft(self.new_id(), self.clock.now(), event, actor, data, order_id=order_id)

    async def _lapse_if_due(self, context: SafetyContext) -> None:
        now_ms = to_ms(self.clock.now())
        ttl_ms = self.limits.reservation_ttl_ms
        due = context.store.peek(lambda book: settlement.lapsing(book, now_ms, ttl_ms))
        names = [hold.client_order_id for hold in await self._forgotten(context, due)]
        if names:
            rows = {name: self.draft(EventType.ORDER_LAPSED, {}, order_id=name) for name in names}
            await context.store.transact(
                lambda tx: settlement.lapse(tx, rows, now_ms=now_ms, ttl_ms=ttl_ms)
            )

    async def _forgotten(self, context: SafetyContext, due: Iterable[Hold]) -> list[Hold]:
        """Those of the orders that their venue, where it is known here, does not know.

        An order waits for all of these questions together for at most `LOOK_UP_TIMEOUT_S`. While
        a venue does not answer its holds stay, and it is asked again only a moment later.
        """
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                return [hold for hold in due if not await self._may_be_known(context, hold)]
        except TimeoutError:
            log.warning("venue_silent", within_s=LOOK_UP_TIMEOUT_S)
            return []

    async def _may_be_known(self, context: SafetyContext, hold: Hold) -> bool:
        venue = hold.key.venue
        look_up = self.look_ups.get(venue)
        if look_up is None:
            return False
        now_s = self.clock.monotonic()
        if now_s - self._silent_s.get(venue, -LOOK_UP_PAUSE_S) < LOOK_UP_PAUSE_S:
            return True
        # Until it has answered.
        self._silent_s[venue] = now_s
        try:
            found = await look_up(context, hold)
        except Exception as error:  # noqa: BLE001 - what is not known to have gone stays held
            told = str(error) or repr(error)
            log.warning("order_not_looked_up", order_id=hold.client_order_id, error=told)
            return True
        del self._silent_s[venue]
        return found


class _Prices:
    """A price source as the domain looks prices up; what it says wrongly counts as unknown."""

    def __init__(self, source: PriceSource) -> None:
        self._source = source

    def __call__(self, symbol: str) -> ReferencePrice | None:
        try:
            seen = self._source.reference_price(symbol)
            if seen is None:
                return None
            price, at_ms = to_decimal(seen[0]), to_ms(seen[1])
        except Exception as error:  # noqa: BLE001 - a source that fails is a price nobody knows
            log.warning("price_source_failed", symbol=symbol, error=repr(error))
            return None
        return ReferencePrice(symbol, price, at_ms) if price > ZERO else None


def _equity_of(limits: LimitSet, now_ms: int) -> Callable[[Mapping[str, str]], EquityView]:
    return lambda documents: equity_view(documents, now_ms, limits.equity_max_age_ms)
