"""Settling: what the venue said of a send becomes a hold, a position and a measured attempt."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.money import ZERO
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.domain.records import Hold, HoldState
from tinywindow.safety.domain.venue import Accepted, OrderReport, Placed, Rejected, ReportStatus
from tinywindow.safety.domain.windows import Outcome as Attempt
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.ports import Tx
from tinywindow.safety.services import settlement
from tinywindow.safety.services.admitter import Admitter
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.outcome import Outcome
from tinywindow.safety.services.times import to_ms

if TYPE_CHECKING:
    from tinywindow.safety.services.circuit_breaker import CircuitBreaker

__all__ = ["Settler"]

ACTOR: Final = "order-gate"

log = get_logger(__name__)


class Settler:
    """Books what venues say, one transaction a report: hold, position, attempt, audit row."""

    def __init__(self, admitter: Admitter, breaker: CircuitBreaker) -> None:
        self._admitter = admitter
        self._breaker = breaker

    async def settle(self, context: SafetyContext, order: CheckedOrder, placed: Placed) -> Outcome:
        """Book the answer to a send.

        Where the store is away the hold stays as it was, counted, and is reconciled later.
        """
        order_id = order.client_order_id
        attempt, message = _attempt(placed)
        row = self._row(order_id, message)

        def script(tx: Tx) -> Hold:
            hold = _apply(tx, order_id, placed, row, to_ms(row.time))
            self._breaker.record_attempt(tx, order_id, attempt, now=row.time)
            return hold

        try:
            hold = await context.store.transact(script)
        except StoreUnavailable as error:
            log.error("outcome_not_booked", order_id=order_id, error=str(error))
            return _outcome(order_id, placed, HoldState.UNKNOWN, message)
        return _outcome(order_id, placed, hold.state, message)

    async def unsent(self, context: SafetyContext, order_id: str, why: str) -> None:
        """Give back everything of an order that is proven unsent: exposure and velocity slot."""
        row = replace(self._row(order_id, why), event_type=EventType.ORDER_RELEASED)

        def script(tx: Tx) -> None:
            settlement.release(tx, order_id, row)
            self._breaker.record_attempt(tx, order_id, Attempt.VOID, now=row.time)

        try:
            await context.store.transact(script)
        except StoreUnavailable as error:
            log.error("release_not_booked", order_id=order_id, error=str(error))

    async def report(self, context: SafetyContext, order_id: str, report: OrderReport) -> Hold:
        """Book what the venue says of an order later on.

        Raises:
            StoreUnavailable: nothing was booked.
        """
        row = self._row(order_id, "")

        def script(tx: Tx) -> Hold:
            before = settlement.required(tx, order_id)
            hold = _apply_report(tx, report, row, to_ms(row.time))
            # A close is no trade of the strategy's, and none of the breaker's attempts.
            if before.state in {HoldState.INTENDED, HoldState.UNKNOWN} and not before.flatten:
                rejected = report.status is ReportStatus.REJECTED
                attempt = Attempt.FAILED if rejected else Attempt.OK
                self._breaker.record_attempt(tx, order_id, attempt, now=row.time)
            return hold

        return await context.store.transact(script)

    def _row(self, order_id: str, message: str) -> AuditDraft:
        data = {"message": message} if message else {}
        return self._admitter.draft(EventType.ORDER_OUTCOME, data, order_id=order_id, actor=ACTOR)


def _apply(tx: Tx, order_id: str, placed: Placed, row: AuditDraft, at_ms: int) -> Hold:
    if isinstance(placed, Accepted):
        return _apply_report(tx, placed.report, row, at_ms)
    if isinstance(placed, Rejected):
        return settlement.release(tx, order_id, row)
    return settlement.move(tx, order_id, HoldState.UNKNOWN, row)


def _apply_report(tx: Tx, report: OrderReport, row: AuditDraft, at_ms: int) -> Hold:
    before = settlement.required(tx, report.client_order_id)
    price = report.average_price or _likely_price(tx, before, report)
    if report.filled > ZERO and price is None:
        # A fill that cannot be valued stays held whole; it is neither lost nor guessed.
        log.error("fill_without_a_price", order_id=report.client_order_id)
        return settlement.move(tx, report.client_order_id, HoldState.UNKNOWN, row)
    if not report.status.terminal:
        settlement.move(tx, report.client_order_id, HoldState.WORKING, None)
    fill = settlement.FillReport(
        report.client_order_id,
        report.filled,
        price or ZERO,
        report.fee,
        final=report.status.terminal,
        at_ms=at_ms,
    )
    booked = settlement.book_fill(tx, fill, None)
    if booked != before:
        tx.audit(replace(row, data={**settlement.outcome_data(booked), **row.data}))
    return booked


def _likely_price(tx: Tx, hold: Hold, report: OrderReport) -> Decimal | None:
    """What a fill most likely cost where the venue does not say: limit, else reference price."""
    reference = tx.book().prices.get(hold.key.symbol)
    return report.price or hold.price or (None if reference is None else reference.price)


def _attempt(placed: Placed) -> tuple[Attempt, str]:
    """What a send counts as for the breaker, and the venue's words."""
    if isinstance(placed, Accepted):
        rejected = placed.report.status is ReportStatus.REJECTED
        return (Attempt.FAILED if rejected else Attempt.OK), ""
    if isinstance(placed, Rejected):
        return Attempt.FAILED, placed.message
    return Attempt.UNKNOWN, placed.message


def _outcome(order_id: str, placed: Placed, state: HoldState, message: str) -> Outcome:
    if isinstance(placed, Accepted):
        report = placed.report
        return Outcome(
            order_id,
            "REJECTED" if report.status is ReportStatus.REJECTED else "ACCEPTED",
            state,
            report.filled,
            report.average_price,
            report.fee,
            report.venue_order_id,
        )
    status = "REJECTED" if isinstance(placed, Rejected) else "UNKNOWN"
    return Outcome(order_id, status, state, message=message)
