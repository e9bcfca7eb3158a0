"""The enforcer: is this order allowed, and if so, hold its exposure until it is settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from tinywindow.safety.config import PositionLimits
from tinywindow.safety.domain.admission import Admission
from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.domain.limits import newest_price
from tinywindow.safety.domain.money import to_decimal
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.domain.validation import checked_name, is_order_id
from tinywindow.safety.domain.watch import equity_view
from tinywindow.safety.errors import LedgerBusy, LimitsDiffer, StoreUnavailable
from tinywindow.safety.ports import Clock, PriceSource
from tinywindow.safety.services import settlement
from tinywindow.safety.services.admitter import Admitter, Asking, Decided, random_id
from tinywindow.safety.services.breaker_scripts import record_mark
from tinywindow.safety.services.capacity import Capacity, capacity_of
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.context import ContextHandle, SafetyContext
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.order_validator import OrderValidator
from tinywindow.safety.services.outcome import LimitResult, invalid
from tinywindow.safety.services.times import to_ms

__all__ = ["LimitResult", "PositionLimitEnforcer"]

ACTOR: Final = "position-limits"

log = get_logger(__name__)


class PositionLimitEnforcer:
    """Enforces size, exposure, leverage and sector limits before every order.

    Check is reserve: an allowed order holds its exposure under its client order id until it is
    filled, released or lapses. The limits live in the store; an enforcer that is configured
    otherwise raises `LimitsDiffer` at its first await.
    """

    def __init__(
        self,
        db_connection: object,
        *,
        limits: PositionLimits | None = None,
        prices: PriceSource | None = None,
        clock: Clock | None = None,
        change_limits: bool = False,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """Take what is given; nothing is opened before the first await.

        Args:
            db_connection: an AsyncEngine, a database URL, or the path of an SQLite file.
            limits: the limits; None adopts what the store holds, or the configured ones.
            prices: where reference prices come from beside `set_reference_price`.
            clock: the clock; the system's when absent.
            change_limits: put `limits` in force where the store holds others; audited.
            new_id: makes unique ids; the system's random source when absent.

        Raises:
            ConfigurationError: `db_connection` is no durable database.
        """
        self._handle = ContextHandle(db_connection)
        self._clock: Clock = SystemClock() if clock is None else clock
        self._validator = OrderValidator()
        self.admitter = Admitter(
            self._handle,
            limits=limits,
            change_limits=change_limits,
            prices=prices,
            clock=self._clock,
            new_id=random_id if new_id is None else new_id,
        )

    async def __aenter__(self) -> Self:
        """Open the store and agree on the limits."""
        await self.admitter.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    @property
    def opened(self) -> SafetyContext | None:
        """The shared store if it is open, without opening it."""
        return self._handle.opened

    async def check_order_allowed(self, order: object) -> LimitResult:
        """Validate an order, read the stops, check the limits, and hold its exposure.

        A broken store is a refusal like any other, and so is a fault in TinyWindow itself; no
        order, whatever it is, makes this raise.

        Raises:
            LimitsDiffer: this enforcer is configured with other limits than the store's.
        """
        validated = self._validator.validate_order(order)
        checked = validated.checked
        order_id = None if checked is None else checked.client_order_id
        try:
            context = await self.admitter.open()
            if checked is None:
                await self.admitter.record_invalid(context, validated.errors, ACTOR)
                return LimitResult(False, None, invalid(validated.errors))
            placed = self.admitter.placed_here(checked)
            decided = await self.admitter.admit(context, placed, Asking(ACTOR))
            verdict = await self._still(context, decided)
        except LimitsDiffer:
            raise
        except LedgerBusy as error:
            breaches = (Breach(Reason.LEDGER_BUSY, str(error)), *invalid(validated.errors))
            return LimitResult(False, order_id, breaches)
        except StoreUnavailable as error:
            breaches = (Breach(Reason.STATE_UNKNOWN, str(error)), *invalid(validated.errors))
            return LimitResult(False, order_id, breaches)
        except Exception as error:  # the last resort: a bug refuses
            log.exception("limits_failed", order_id=order_id)
            message = f"{type(error).__name__} inside the enforcer"
            return LimitResult(False, order_id, (Breach(Reason.INTERNAL_ERROR, message),))
        if isinstance(verdict, Refusal):
            return LimitResult(False, order_id, verdict.breaches)
        return LimitResult(True, order_id)

    async def _still(self, context: SafetyContext, decided: Decided) -> Admission:
        """Look once more at what stops this host beside the database, after the commit.

        A stop that no database knows of yet, such as a `KILL` file, has no lock in common with
        the commit and may have come while that was under way: the approval is not given out, and
        what it reserved is given back.
        """
        verdict = decided.verdict
        if isinstance(verdict, Refusal) or verdict.reduces:
            return verdict
        stopped = context.stop_probe()
        if stopped is None:
            return verdict
        order_id = verdict.hold.client_order_id
        try:
            if not decided.known:
                row = self.admitter.draft(
                    EventType.ORDER_RELEASED, {"message": stopped.reason}, order_id=order_id
                )
                await context.store.transact(lambda tx: settlement.release(tx, order_id, row))
        except StoreUnavailable as error:
            # It stays reserved, which refuses others rather than approving too much.
            log.error("release_not_booked", order_id=order_id, error=str(error))
        return stopped

    async def record_fill(
        self,
        client_order_id: str,
        amount: object,
        price: object,
        *,
        fee: object = 0,
        final: bool = False,
        at: datetime | None = None,
    ) -> None:
        """Book a fill report; a late one is always booked.

        Args:
            client_order_id: the order's id.
            amount: base units filled so far in all; the highest seen counts.
            price: the average price of all that filled, in quote units.
            fee: fees so far in all, in quote units.
            final: nothing more will fill: what is left is released.
            at: when the venue says it happened; now when absent.

        Raises:
            KeyError: no order was ever held under the id.
            NotANumber: a number is none.
        """
        _no_stranger(client_order_id)
        context = await self.admitter.open()
        report = settlement.FillReport(
            client_order_id,
            to_decimal(amount),
            to_decimal(price),
            to_decimal(fee),
            final=final,
            at_ms=to_ms(at or self._clock.now()),
        )
        row = self.admitter.draft(EventType.ORDER_OUTCOME, {}, order_id=client_order_id)
        await context.store.transact(lambda tx: settlement.book_fill(tx, report, row))

    async def release(self, client_order_id: str) -> None:
        """Give back what an order still holds: it was cancelled, rejected or never sent.

        Raises:
            KeyError: no order was ever held under the id.
        """
        _no_stranger(client_order_id)
        context = await self.admitter.open()
        row = self.admitter.draft(EventType.ORDER_RELEASED, {}, order_id=client_order_id)
        await context.store.transact(lambda tx: settlement.release(tx, client_order_id, row))

    async def set_position(
        self,
        symbol: str,
        amount: object,
        price: object,
        *,
        venue: str | None = None,
        account: str = "default",
    ) -> None:
        """Take on what a reconciliation found: the signed position, in base units.

        Raises:
            BadSymbol, NotANumber: the symbol or a number is none.
            ValueError: the venue or the account is no name.
        """
        context = await self.admitter.open()
        found = settlement.FoundPosition(
            self.admitter.venue if venue is None else checked_name("venue", venue),
            checked_name("account", account),
            parse_symbol(symbol).text,
            to_decimal(amount),
            to_decimal(price),
            to_ms(self._clock.now()),
        )
        row = self.admitter.draft(EventType.POSITION_SET, {})
        await context.store.transact(lambda tx: settlement.set_position(tx, found, row))

    async def record_equity(
        self,
        equity: object,
        *,
        cash_flow: object = 0,
        account: str = "default",
        at: datetime | None = None,
    ) -> None:
        """Record an equity mark in USD, the cash flow included: the same that the breaker reads.

        Raises:
            NotANumber: a number is none.
            ValueError: the account is no name, or the mark was not taken on, such as a flow at a
                NAV of zero.
        """
        context = await self.admitter.open()
        value, flow = to_decimal(equity), to_decimal(cash_flow)
        account = checked_name("account", account)
        now = self._clock.now()
        result = await context.store.transact(
            lambda tx: record_mark(
                tx,
                equity=value,
                cash_flow=flow,
                account=account,
                at=at or now,
                now=now,
                estimated=False,
                new_id=self.admitter.new_id,
                day_may_roll=Reason.CLOCK_UNTRUSTED not in context.faults,
            )
        )
        if result.refused:
            raise ValueError(result.refused)

    async def set_reference_price(
        self, symbol: str, price: object, *, at: datetime | None = None
    ) -> None:
        """Set the reference price of a symbol, in quote units, for all processes.

        Raises:
            BadSymbol, NotANumber: the symbol or the price is none, or the price is not positive.
        """
        await self.set_reference_prices({symbol: price}, at=at)

    async def set_reference_prices(
        self, prices: Mapping[str, object], *, at: datetime | None = None
    ) -> None:
        """Set several reference prices in one transaction; see `set_reference_price`."""
        context = await self.admitter.open()
        at_ms = to_ms(at or self._clock.now())
        rows = [settlement.reference_price(name, price, at_ms) for name, price in prices.items()]
        await context.store.transact(lambda tx: settlement.put_prices(tx, rows))

    async def capacity(self, symbol: str) -> Capacity:
        """What could still be bought and sold of a symbol now, and which rule binds.

        Raises:
            BadSymbol: the symbol is none.
        """
        context = await self.admitter.open()
        parsed = parse_symbol(symbol)
        now_ms = to_ms(self._clock.now())
        limits, source = self.admitter.limits, self.admitter.price_source
        venue = self.admitter.venue

        def look(book: Book) -> Capacity:
            equity = equity_view(book.documents, now_ms, limits.equity_max_age_ms)
            prices = newest_price(book, source)
            return capacity_of(book, limits, equity, prices, now_ms, parsed, venue)

        return await context.store.read(lambda tx: look(tx.book()))

    async def close(self) -> None:
        """Count out of the shared store."""
        context = self._handle.opened
        try:
            if context is not None:
                await self.admitter.flush_refusals(context, everything=True)
        except StoreUnavailable as error:
            log.error("refusals_not_written", error=str(error))
        finally:
            await self._handle.close()


def _no_stranger(client_order_id: object) -> None:
    """Say at once that an id is unknown under which no order can ever have been held."""
    if not isinstance(client_order_id, str) or not is_order_id(client_order_id):
        raise KeyError(client_order_id)
