"""Reconciliation: our book against the venue's word, order by order and position by position.

An order whose outcome is unknown is looked up by its id and never sent again. One that the
venue never knew is given back only when it can no longer arrive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.kill import closes
from tinywindow.safety.domain.money import ZERO, plain
from tinywindow.safety.domain.order import PositionKey
from tinywindow.safety.domain.records import Hold, HoldState, Position
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.domain.venue import VenuePosition
from tinywindow.safety.errors import DependencyError, VenueUnavailable
from tinywindow.safety.ports import Exchange, Tx
from tinywindow.safety.services import settlement
from tinywindow.safety.services.admitter import Admitter
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.flatten_lease import heart_beats, lease_name
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.sending import Settler
from tinywindow.safety.services.times import to_ms

__all__ = ["Reconciler", "ReconciliationReport"]

ARRIVAL_MAX_MS: Final = 10_000
"""How long after its intent an order may still reach the venue: approval, wire and expiry."""

log = get_logger(__name__)


@dataclass(slots=True)
class ReconciliationReport:
    """What a reconciliation settled, and what it could not."""

    settled: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether everything is settled and every read succeeded."""
        return not self.unsettled and not self.errors


class Reconciler:
    """Reconciles one venue's orders and positions with the store."""

    def __init__(
        self, admitter: Admitter, settler: Settler, exchange: Exchange, *, account: str = "default"
    ) -> None:
        self._admitter = admitter
        self._settler = settler
        self._exchange = exchange
        self._account = account

    async def orders(self, context: SafetyContext) -> ReconciliationReport:
        """Look up every order of ours that is open with a recorded intent.

        Closing orders are the flattener's while one is at work or has to be; what a released
        close left behind is looked up like any other order.
        """
        report = ReconciliationReport()
        holds, closing = await self._open_orders(context)
        for hold in holds:
            if hold.key.venue != self._exchange.name or hold.intent_ms is None:
                continue
            if hold.flatten and closing:
                continue
            try:
                await self._order(context, hold, report)
            except Exception as error:  # one order's trouble may not hide the others'
                if not isinstance(error, DependencyError):
                    log.exception("order_not_reconciled", order_id=hold.client_order_id)
                report.errors.append(f"{hold.client_order_id}: {str(error) or repr(error)}")
                report.unsettled.append(hold.client_order_id)
        return report

    async def _open_orders(self, context: SafetyContext) -> tuple[tuple[Hold, ...], bool]:
        """Every open order, and whether closing ones are a flattener's to follow."""
        beside = context.stops_beside()
        now_ms = to_ms(self._admitter.clock.now())

        def script(tx: Tx) -> tuple[tuple[Hold, ...], bool]:
            book = tx.book()
            lease = tx.lease(lease_name(self._exchange.name))
            closing = closes(book.latches, beside) or heart_beats(lease, now_ms=now_ms)
            return tuple(book.holds.values()), closing

        return await context.store.read(script)

    async def _order(
        self, context: SafetyContext, hold: Hold, report: ReconciliationReport
    ) -> None:
        order_id = hold.client_order_id
        found = await self._exchange.find(hold.key.symbol, order_id)
        if found is not None:
            after = await self._settler.report(context, order_id, found)
            if not after.state.open:
                report.settled.append(order_id)
            elif after.state is HoldState.UNKNOWN:
                report.unsettled.append(order_id)
            return
        age_ms = to_ms(self._admitter.clock.now()) - (hold.intent_ms or 0)
        if hold.state in {HoldState.INTENDED, HoldState.UNKNOWN} and age_ms > ARRIVAL_MAX_MS:
            await self._settler.unsent(context, order_id, "the venue never knew this order")
            report.settled.append(order_id)
        else:
            report.unsettled.append(order_id)

    async def positions(self, context: SafetyContext, report: ReconciliationReport) -> bool:
        """Compare positions; take on what the venue says, but never the owner's other coins.

        False when they could not all be compared: the venue did not answer, or an order filled
        while it did.
        """
        before = await self._booked(context)
        try:
            found = await self._exchange.positions()
        except VenueUnavailable as error:
            report.errors.append(f"positions: {error}")
            return False
        # A fill that the venue counts already and the book does not yet must not count twice.
        late = await self.orders(context)
        booked = await self._booked(context)
        venue = {position.symbol: position for position in found}
        closing = await self._closing(context)
        whole = not late.errors
        for symbol in sorted({*venue, *before, *booked}):
            if symbol in closing:
                report.errors.append(f"{symbol}: a closing order is not booked yet")
                whole = False
                continue
            have = booked[symbol].amount if symbol in booked else ZERO
            had = before[symbol].amount if symbol in before else ZERO
            if have != had:
                report.errors.append(f"{symbol}: an order filled while positions were read")
                whole = False
                continue
            price = booked[symbol].price if symbol in booked else ZERO
            wanted, at = _wanted(symbol, have, venue.get(symbol))
            await self._take_on(context, report, symbol, have, wanted, at or price)
        return whole

    async def _booked(self, context: SafetyContext) -> dict[str, Position]:
        book = await context.store.read(lambda tx: dict(tx.book().positions))
        name = self._exchange.name
        return {
            key.symbol: position
            for key, position in book.items()
            if key.venue == name and key.account == self._account
        }

    async def _closing(self, context: SafetyContext) -> set[str]:
        """The symbols of closing orders whose fills are the flattener's to book."""
        holds = await context.store.read(lambda tx: tuple(tx.book().holds.values()))
        name = self._exchange.name
        return {hold.key.symbol for hold in holds if hold.flatten and hold.key.venue == name}

    async def _take_on(
        self,
        context: SafetyContext,
        report: ReconciliationReport,
        symbol: str,
        have: Decimal,
        wanted: Decimal,
        price: Decimal,
    ) -> None:
        if wanted != ZERO and price <= ZERO:
            report.errors.append(f"{symbol}: the venue reports a position without a price")
            return
        event = EventType.POSITION_SET
        if wanted != have:
            event = EventType.RECONCILIATION_MISMATCH
            report.mismatches.append(f"{symbol}: booked {plain(have)}, found {plain(wanted)}")
            log.warning("position_mismatch", symbol=symbol, booked=str(have), found=str(wanted))
        key = PositionKey(self._exchange.name, self._account, symbol)
        now_ms = to_ms(self._admitter.clock.now())
        row = self._admitter.draft(event, {}, actor="reconciliation")
        state = settlement.FoundPosition(key.venue, key.account, symbol, wanted, price, now_ms)

        def script(tx: Tx) -> bool:
            position = tx.book().positions.get(key)
            if (ZERO if position is None else position.amount) != have:
                return False
            settlement.set_position(tx, state, row)
            return True

        if not await context.store.transact(script):
            report.errors.append(f"{symbol}: an order filled while positions were compared")


def _wanted(
    symbol: str, have: Decimal, found: VenuePosition | None
) -> tuple[Decimal, Decimal | None]:
    """The position to take on, and its price where the venue gives one.

    A spot balance may hold coins that the owner put there: only less than booked is believed.
    """
    amount = ZERO if found is None else found.amount
    price = None if found is None else (found.entry_price or found.mark_price)
    if parse_symbol(symbol).is_spot and amount > have:
        return have, price
    return amount, price
