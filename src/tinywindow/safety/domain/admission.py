"""Admission: the whole decision about one order, pure, from what stands to what is committed.

The order of checks is fixed: kill switch, breaker, validation (done before), symbol, price,
limits, reservation. A strictly reducing order passes whatever can only stop risk from growing;
it is refused only by a spent id, a running close, or a position that cannot be relied on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.book import Book, DecisionView, Draft
from tinywindow.safety.domain.breaker import BreakerLimits
from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.domain.kill import Latch, closes
from tinywindow.safety.domain.limits import (
    EquityView,
    Exposure,
    LimitSet,
    PriceOf,
    check_limits,
    newest_price,
)
from tinywindow.safety.domain.money import plain, to_micros
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.domain.positions import reducible
from tinywindow.safety.domain.records import Hold, HoldState, TradingState
from tinywindow.safety.domain.watch import BreakerView, TripDraft, draft_trip, watch_breaker

__all__ = [
    "Admission",
    "AdmissionRequest",
    "Admitted",
    "admit",
    "halting_reasons",
    "standing_stops",
]

halting_reasons: Final = frozenset(
    {
        Reason.KILL_SWITCH_ACTIVE,
        Reason.CIRCUIT_BREAKER_TRIPPED,
        Reason.TRADING_STOPPED,
        Reason.STATE_UNKNOWN,
        Reason.METRIC_UNKNOWN,
        Reason.MONITOR_STALE,
        Reason.CLOCK_UNTRUSTED,
        Reason.STORE_ROLLED_BACK,
        Reason.TRADE_VELOCITY,
        Reason.POSITION_CLOSING,
    }
)
"""The reasons that are audited as `ORDER_REJECTED_HALTED`; the others as `…_LIMITS`."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """The order may go on: what it holds, and at which stop epoch that was decided."""

    hold: Hold
    epoch: int
    reduces: bool


Admission = Admitted | Refusal


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """One order, and everything that its decision depends on beside the book.

    Attributes:
        order: the validated order.
        now: the wall clock; `now_ms` the same in milliseconds.
        limits: the limits in force.
        breaker: the breaker's thresholds where a gate asks; None for the enforcer by itself,
            which reads standing trips but measures nothing and takes no velocity slot.
        with_intent: whether the order will be sent: then an intent is recorded.
        price_source: reference prices beside the store's, without I/O.
        stop_probe: what stops this host beside the database: the own flag, the `KILL` file.
        stops_beside: the same stops with their modes; asked for exits only.
        found: what the shell found broken before: entries are refused for it.
        venue_reduces_only: whether the venue can be told to only reduce on this market.
        ids: fresh unique ids for rows, in order of use.
        actor: who asks, for the audit log.
        data: evidence that the shell adds to the audit row.
        coalesced: tells whether a refusal is to be counted with others instead of written.
    """

    order: CheckedOrder
    now: datetime
    now_ms: int
    limits: LimitSet
    equity_of: Callable[[Mapping[str, str]], EquityView]
    price_source: PriceOf | None
    stop_probe: Callable[[], Refusal | None]
    stops_beside: Callable[[], tuple[Latch, ...]]
    ids: tuple[str, str, str]
    actor: str
    breaker: BreakerLimits | None = None
    with_intent: bool = False
    found: tuple[Breach, ...] = ()
    venue_reduces_only: bool = True
    data: Mapping[str, object] | None = None
    coalesced: Callable[[Refusal], bool] | None = None


def admit(request: AdmissionRequest, view: DecisionView) -> Draft[Admission]:
    """Decide about one order and draft everything that must be committed with the decision."""
    order = request.order
    reduces = order.amount <= reducible(view.book, order.key, order.side)
    existing = view.existing
    if existing is not None and _same(existing, order):
        reduces = existing.reduces
    duplicate = _duplicate(request, view, reduces=reduces)
    watched = None
    if request.breaker is not None:
        # An id that came before has its slot already, or will never be sent.
        asking = 0 if duplicate else 1
        may_roll = all(one.code is not Reason.CLOCK_UNTRUSTED for one in request.found)
        watched = watch_breaker(
            view.book, request.breaker, request.now_ms, asking=asking, day_may_roll=may_roll
        )
    stops = _exit_stops(request, view) if reduces else _entry_stops(request, view, watched)
    trip = _trip(request, view, watched)
    if stops or duplicate:
        return _refused(request, (*stops, *duplicate), trip)
    if existing is not None:
        return _repeated(request, view, existing, trip)
    if reduces:
        return _reducing(request, view, trip)
    breaches, exposure = check_limits(
        order,
        view.book,
        request.limits,
        request.equity_of(view.book.documents),
        newest_price(view.book, request.price_source),
        request.now_ms,
    )
    if breaches:
        return _refused(request, breaches, trip)
    return _entering(request, view, exposure)


def _same(hold: Hold, order: CheckedOrder) -> bool:
    return (
        hold.key == order.key
        and hold.side is order.side
        and hold.amount == order.amount
        and hold.type is order.type
        and hold.price == order.price
        and hold.reduce_only == order.reduce_only
    )


def standing_stops(book: Book) -> tuple[Breach, ...]:
    """The kill switch's latch and the breaker's trip that stand, in the order of checks."""
    breaches = []
    if book.latches:
        latch = max(book.latches, key=lambda one: one.mode.rank)
        message = f"{latch.mode.value} by {latch.actor}: {latch.reason}"
        breaches.append(Breach(Reason.KILL_SWITCH_ACTIVE, message))
    if book.trip is not None:
        breaches.append(Breach(Reason.CIRCUIT_BREAKER_TRIPPED, book.trip.sentence))
    return tuple(breaches)


def _entry_stops(
    request: AdmissionRequest, view: DecisionView, watched: BreakerView | None
) -> tuple[Breach, ...]:
    standing = standing_stops(view.book)
    breaches = [one for one in standing if one.code is Reason.KILL_SWITCH_ACTIVE]
    if not breaches:
        probed = request.stop_probe()
        breaches.extend(() if probed is None else probed.breaches)
    breaches.extend(request.found)
    breaches.extend(one for one in standing if one.code is Reason.CIRCUIT_BREAKER_TRIPPED)
    if watched is not None:
        if view.book.trip is None:
            breaches.extend(watched.refusals_of_entry)
        if view.book.head.trading is TradingState.STOPPED and not breaches:
            breaches.append(
                Breach(
                    Reason.TRADING_STOPPED,
                    "trading is stopped until an operator starts it",
                )
            )
    return tuple(breaches)


def _exit_stops(request: AdmissionRequest, view: DecisionView) -> tuple[Breach, ...]:
    order = request.order
    # A close may have begun before the database could take its latch.
    if closes(view.book.latches, request.stops_beside()):
        return (
            Breach(
                Reason.POSITION_CLOSING,
                f"the position in {order.symbol.text} is being closed by the kill switch",
            ),
        )
    if request.venue_reduces_only or order.symbol.is_spot or not request.with_intent:
        return ()
    position = view.book.positions.get(order.key)
    read_ms = None if position is None else position.read_ms
    if read_ms is not None and request.now_ms - read_ms <= request.limits.position_max_age_ms:
        return ()
    age_s = Decimal(request.limits.position_max_age_ms) / 1000
    return (
        Breach(
            Reason.POSITION_STALE,
            "the venue has no reduce-only flag here, and the position was not read from it "
            f"within {plain(age_s)} s",
            limit=age_s,
            unit="s",
        ),
    )


def _duplicate(
    request: AdmissionRequest, view: DecisionView, *, reduces: bool
) -> tuple[Breach, ...]:
    order, existing = request.order, view.existing
    if existing is not None:
        if not existing.state.open:
            message = f"{order.client_order_id} was used before and has ended {existing.state}"
            return (Breach(Reason.DUPLICATE_ORDER_ID, message),)
        if not _same(existing, order):
            message = f"{order.client_order_id} stands for another order"
            return (Breach(Reason.DUPLICATE_ORDER_ID, message),)
        if request.with_intent and existing.intent_ms is not None:
            message = f"{order.client_order_id} was already given to be sent"
            return (Breach(Reason.DUPLICATE_ORDER_ID, message),)
    if view.decision_spent and not reduces:
        message = f"decision {order.decision_id} was already spent on another order"
        return (Breach(Reason.DUPLICATE_DECISION, message),)
    return ()


def _trip(
    request: AdmissionRequest, view: DecisionView, watched: BreakerView | None
) -> TripDraft | None:
    """The trip to latch with this decision; None where one stands already."""
    if watched is None or watched.breach is None or view.book.trip is not None:
        return None
    return draft_trip(
        watched.breach,
        watched.readings,
        trip_id=request.ids[1],
        now=request.now,
        now_ms=request.now_ms,
        order_id=request.order.client_order_id,
    )


def _row(request: AdmissionRequest, event: EventType, data: Mapping[str, object]) -> AuditDraft:
    order = request.order
    return AuditDraft(
        id=request.ids[0],
        time=request.now,
        event_type=event,
        actor=request.actor,
        data={"order": order_data(order), **data, **(request.data or {})},
        agent_id=order.agent_id,
        order_id=order.client_order_id,
        decision_id=order.decision_id,
    )


def order_data(order: CheckedOrder) -> dict[str, object]:
    """An order as plain data for audit rows."""
    return {
        "symbol": order.symbol.text,
        "side": order.side.value,
        "type": order.type.value,
        "amount": plain(order.amount),
        "price": None if order.price is None else plain(order.price),
        "reduce_only": order.reduce_only,
        "venue": order.venue,
        "account": order.account,
    }


def _refused(
    request: AdmissionRequest,
    breaches: tuple[Breach, ...],
    trip: TripDraft | None,
) -> Draft[Admission]:
    refusal = Refusal(breaches)
    rows = () if trip is None else (trip.row,)
    if request.coalesced is None or not request.coalesced(refusal):
        event = (
            EventType.ORDER_REJECTED_HALTED
            if refusal.reason_code in halting_reasons
            else EventType.ORDER_REJECTED_LIMITS
        )
        data = {"reason": refusal.reason, "breaches": [b.to_data() for b in breaches]}
        rows = (*rows, _row(request, event, data))
    latched = None if trip is None else trip.trip
    return Draft(refusal, trip=latched, audit=rows, at_ms=request.now_ms)


def _repeated(
    request: AdmissionRequest, view: DecisionView, existing: Hold, trip: TripDraft | None
) -> Draft[Admission]:
    """The same order asked for again: it reserves nothing more, and may now get its intent."""
    epoch = view.book.head.stop_epoch
    if not request.with_intent:
        return Draft(Admitted(existing, epoch, existing.reduces), at_ms=request.now_ms)
    hold = replace(existing, state=HoldState.INTENDED, intent_ms=request.now_ms)
    return Draft(
        Admitted(hold, epoch + (trip is not None), hold.reduces),
        hold=hold,
        take_slot=request.breaker is not None,
        trip=None if trip is None else trip.trip,
        audit=(
            *(() if trip is None else (trip.row,)),
            _row(request, EventType.ORDER_APPROVED, {"reserved_before": True}),
        ),
        at_ms=request.now_ms,
    )


def _hold(request: AdmissionRequest, view: DecisionView, *, reduces: bool) -> Hold:
    order = request.order
    return Hold(
        client_order_id=order.client_order_id,
        key=order.key,
        side=order.side,
        type=order.type,
        amount=order.amount,
        price=order.price,
        state=HoldState.INTENDED if request.with_intent else HoldState.HELD,
        created_ms=request.now_ms,
        intent_ms=request.now_ms if request.with_intent else None,
        reduces=reduces,
        reduce_only=order.reduce_only,
        # A decision stands with the first order that it led to; an exit may come after it.
        decision_id=None if view.decision_spent else order.decision_id,
        agent_id=order.agent_id,
    )


def _reducing(
    request: AdmissionRequest, view: DecisionView, trip: TripDraft | None
) -> Draft[Admission]:
    hold = _hold(request, view, reduces=True)
    return Draft(
        Admitted(hold, view.book.head.stop_epoch + (trip is not None), reduces=True),
        hold=hold,
        take_slot=request.breaker is not None,
        trip=None if trip is None else trip.trip,
        audit=(
            *(() if trip is None else (trip.row,)),
            _row(request, EventType.ORDER_APPROVED, {"reduces": True}),
        ),
        at_ms=request.now_ms,
    )


def _entering(
    request: AdmissionRequest, view: DecisionView, exposure: Exposure
) -> Draft[Admission]:
    hold = _hold(request, view, reduces=False)
    limits = request.limits
    own = exposure.symbols[hold.key.symbol]
    data = {
        "reduces": False,
        "exposure": {
            "symbol_usd": plain(own),
            "symbol_limit_usd": plain(limits.max_position_size),
            "total_usd": plain(exposure.total),
            "total_limit_usd": plain(limits.max_total_exposure),
        },
    }
    return Draft(
        Admitted(hold, view.book.head.stop_epoch, reduces=False),
        hold=hold,
        entry=True,
        exposure_micros=to_micros(exposure.total),
        exposure_cap_micros=to_micros(limits.max_total_exposure),
        symbol_micros=to_micros(own),
        symbol_cap_micros=to_micros(limits.max_position_size),
        take_slot=request.breaker is not None,
        audit=(_row(request, EventType.ORDER_APPROVED, data),),
        at_ms=request.now_ms,
    )
