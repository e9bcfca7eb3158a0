"""What the enforcer and the gate share: gathering a request, and taking it to its decision."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from tinywindow.safety.config import PositionLimits
from tinywindow.safety.domain.admission import Admission, AdmissionRequest, admit
from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.book import DecisionIds
from tinywindow.safety.domain.breaker import BreakerLimits
from tinywindow.safety.domain.decision import Breach
from tinywindow.safety.domain.limits import LimitSet, PriceOf
from tinywindow.safety.domain.money import ZERO, to_decimal
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.domain.records import ReferencePrice
from tinywindow.safety.domain.validation import ValidationResult
from tinywindow.safety.domain.watch import equity_view
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.ports import Clock, PriceSource
from tinywindow.safety.services import settlement
from tinywindow.safety.services.context import ContextHandle, SafetyContext
from tinywindow.safety.services.limits_in_force import agree_on_limits
from tinywindow.safety.services.refusals import RefusalCounter
from tinywindow.safety.services.times import to_ms

__all__ = ["DEFAULT_VENUE", "Admitter", "Asking", "random_id"]

DEFAULT_VENUE: Final = "default"
"""The venue of an order that names none, until a gate gives its own."""


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
        self._limits: LimitSet | None = None
        self._agreeing = asyncio.Lock()
        self.clock = clock
        self.new_id = new_id
        self.venue = DEFAULT_VENUE

    async def open(self) -> SafetyContext:
        """Open the store and agree on the limits in force.

        Raises:
            LimitsDiffer: the store holds other limits than those given.
            StoreUnavailable: the store cannot be opened.
        """
        context = await self._handle.open()
        async with self._agreeing:
            if self._limits is None:
                self._limits = await agree_on_limits(
                    context.store,
                    self._given_limits,
                    now=self.clock.now(),
                    change=self._change_limits,
                    new_id=self.new_id,
                )
        return context

    @property
    def limits(self) -> LimitSet:
        """The limits in force, once they were agreed on."""
        if self._limits is None:
            raise StoreUnavailable("the limits are not known before the first await")
        return self._limits

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
        now_ms = to_ms(now)
        limits = self.limits
        return AdmissionRequest(
            order=order,
            now=now,
            now_ms=now_ms,
            limits=limits,
            equity_of=lambda documents: equity_view(documents, now_ms, limits.equity_max_age_ms),
            price_source=self._price_source,
            stop_probe=context.stop_probe,
            ids=(self.new_id(), self.new_id(), self.new_id()),
            actor=asking.actor,
            breaker=asking.breaker,
            with_intent=asking.with_intent,
            found=(*asking.found, *context.found()),
            venue_reduces_only=asking.venue_reduces_only,
            data=asking.data,
            coalesced=lambda refusal: self._refusals.counts(order, refusal),
        )

    async def admit(self, context: SafetyContext, order: CheckedOrder, asking: Asking) -> Admission:
        """Decide about a validated order and commit the decision.

        Raises:
            LedgerBusy, StoreUnavailable: nothing was decided.
        """
        await self._lapse_if_due(context)
        request = self.request(context, order, asking)
        ids = DecisionIds(order.client_order_id, order.decision_id)
        verdict = await context.store.decide(ids, lambda view: admit(request, view))
        await self.flush_refusals(context)
        return verdict

    async def record_invalid(
        self, context: SafetyContext, result: ValidationResult, actor: str
    ) -> None:
        """Write the row of an order that was not valid."""
        row = self.draft(
            EventType.ORDER_VALIDATION_FAILED, {"errors": list(result.errors)}, actor=actor
        )
        await context.store.transact(lambda tx: tx.audit(row))

    async def flush_refusals(self, context: SafetyContext, *, everything: bool = False) -> None:
        """Write the rows of refusals that were counted together and whose second is over."""
        for order_id, agent_id, data, event in self._refusals.due(everything=everything):
            row = replace(self.draft(event, data, order_id=order_id), agent_id=agent_id)
            await context.store.transact(lambda tx, row=row: tx.audit(row))  # type: ignore[misc]

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
        if due:
            rows = {name: self.draft(EventType.ORDER_LAPSED, {}, order_id=name) for name in due}
            await context.store.transact(
                lambda tx: settlement.lapse(tx, rows, now_ms=now_ms, ttl_ms=ttl_ms)
            )


class _Prices:
    """A price source as the domain looks prices up; what it says wrongly counts as unknown."""

    def __init__(self, source: PriceSource) -> None:
        self._source = source

    def __call__(self, symbol: str) -> ReferencePrice | None:
        seen = self._source.reference_price(symbol)
        if seen is None:
            return None
        try:
            price, at_ms = to_decimal(seen[0]), to_ms(seen[1])
        except ValueError:
            return None
        return ReferencePrice(symbol, price, at_ms) if price > ZERO else None
