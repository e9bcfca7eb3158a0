"""The circuit breaker: measures trading, and halts it when a threshold is breached.

Whatever is recorded is evaluated in the transaction that records it; a check walks what other
processes recorded. A trip is latched in the database and stays until a person confirms a reset.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.breaker import evaluate
from tinywindow.safety.domain.breaker_documents import TRIP_RULES, nav_point, trip_rules_text
from tinywindow.safety.domain.money import to_decimal
from tinywindow.safety.domain.nav_state import NavState
from tinywindow.safety.domain.records import ReferencePrice, Trip
from tinywindow.safety.domain.reset import RESET_LIFETIME_MS, pending_reset
from tinywindow.safety.domain.reset import PendingReset as ShownReset
from tinywindow.safety.domain.validation import checked_label, checked_name
from tinywindow.safety.domain.windows import ExecutionBook, ExecutionKind, Outcome
from tinywindow.safety.errors import ResetRefused
from tinywindow.safety.ports import Tx
from tinywindow.safety.services import breaker_scripts, settlement
from tinywindow.safety.services.breaker_check import Examination, examine, settle
from tinywindow.safety.services.breaker_scripts import Attempt, MarkResult, outcome_of
from tinywindow.safety.services.breaker_status import CircuitBreakerStatus, metrics_of, note_of
from tinywindow.safety.services.clock_watch import Moment
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.operator_acts import OperatedBreaker
from tinywindow.safety.services.pending_reset import PendingReset, confirm_reset
from tinywindow.safety.services.times import from_ms, to_ms

__all__ = ["CircuitBreaker"]

_log = get_logger(__name__)

_CALLS: Final = {kind.value: kind for kind in (ExecutionKind.CANCEL, ExecutionKind.DECISION)}


class CircuitBreaker(OperatedBreaker):
    """Halts trading when one of five metrics is breached, until a person resets it."""

    async def __aenter__(self) -> Self:
        """Open the store and check once."""
        await self.check_all_metrics()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    async def ready(self) -> None:
        """Have the state read once; what the gate does before its first order.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        if not self._health.ever_checked:
            await self.check_all_metrics()

    async def check_all_metrics(self) -> CircuitBreakerStatus:
        """Read what is new, evaluate all five metrics, and trip if one is breached.

        Raises:
            StoreUnavailable: nothing could be read; the failure is counted, and three halt.
        """
        try:
            return await self._check()
        except Exception as error:  # counted, whatever broke; three in a row halt
            self._failure = f"{type(error).__name__}: {error}"
            self._health.failed(self._failure)
            raise

    async def _check(self) -> CircuitBreakerStatus:
        context = await self._open()
        if self._cursor is None:
            await self._agree_on_trips(context)
        moment = self._moment()
        limits, cursor = self._limits, self._cursor
        may_roll = moment.day_may_roll

        def look(tx: Tx) -> Examination:
            return examine(tx, cursor, limits, moment.now, day_may_roll=may_roll)

        def write(tx: Tx) -> Examination:
            return settle(
                tx,
                cursor,
                limits,
                moment.now,
                day_may_roll=may_roll,
                trip_id=self._new_id(),
                rows=owed,
            )

        seen = await context.store.read(look)
        failures, owed = self._health.unaudited, list(self._watch.owed)
        if failures:
            # However often the store failed, it is one row once it is back.
            data = {"failures": failures, "last": self._failure}
            owed.append(self._row(EventType.MONITOR_FAILED, moment.now, data))
        if seen.due is not None or seen.owes or owed:
            seen = await context.store.transact(write)
            # Another check may have run meanwhile, and rows may have been added.
            written = {row.id for row in owed}
            self._watch.owed[:] = [row for row in self._watch.owed if row.id not in written]
            self._health.audited(failures)
        self._cursor, self._last_trip = seen.cursor, seen.trip
        if not seen.whole:
            self._activity.set()
        mono_s = self._clock.monotonic()
        self._health.checked(mono_s)
        if seen.age_ms is not None:
            self._health.marked(mono_s, age_ms=seen.age_ms)
        status = self._status(seen, moment.now)
        self._mirror.offer(status.to_json())
        return status

    async def _agree_on_trips(self, context: SafetyContext) -> None:
        """Tell every kill switch on the store what a trip asks of it, at the first check."""
        text = trip_rules_text(cancel_entries=self._config.cancel_entries_on_trip)
        told = await context.store.read(lambda tx: tx.document(TRIP_RULES))
        if told != text and not (told is None and self._config.cancel_entries_on_trip):
            await context.store.transact(lambda tx: tx.put_document(TRIP_RULES, text))

    def _status(self, seen: Examination, now: datetime) -> CircuitBreakerStatus:
        reason = None if seen.trip is None else seen.trip.sentence
        if reason is None:
            halts = self._health.halts(self._clock.monotonic())
            reason = halts[0].sentence if halts else None
        return CircuitBreakerStatus(
            is_halted=reason is not None,
            halt_reason=reason,
            metrics=metrics_of(seen.readings),
            checked_at=now,
            trip=seen.trip,
            entries_cancelled_by=seen.cancelling,
            note=note_of(seen, cancels=self._config.cancel_entries_on_trip),
        )

    async def record_equity(
        self,
        equity: object,
        *,
        cash_flow: object = 0,
        account: str = "default",
        at: datetime | None = None,
        estimated: bool = False,
    ) -> None:
        """Record an account's equity in USD, the cash flow included; trips at once on a breach.

        Args:
            equity: cash and open positions at market value, fees included.
            cash_flow: what was paid in (drawn out: negative) since the account's mark before.
            account: whose equity.
            at: when it was true, aware; now when absent.
            estimated: some position had no fresh price, so the mark is not trusted.

        Raises:
            NotANumber: a number is none.
            ValueError: the account is no name, or the mark was not taken on, such as a flow at a
                NAV of zero.
            StoreUnavailable: nothing was recorded.
        """
        await self._mark(equity, cash_flow, account, at, (), estimated=estimated)

    async def record_market(
        self,
        equity: object,
        *,
        prices: Mapping[str, object],
        cash_flow: object = 0,
        account: str = "default",
        at: datetime | None = None,
        estimated: bool = False,
    ) -> None:
        """Record reference prices in quote units and an equity mark, in one transaction.

        Raises:
            BadSymbol, NotANumber: a symbol or a number is none.
            ValueError: see `record_equity`.
            StoreUnavailable: nothing was recorded.
        """
        at_ms = to_ms(at or self._clock.now())
        rows = tuple(
            settlement.reference_price(symbol, price, at_ms) for symbol, price in prices.items()
        )
        await self._mark(equity, cash_flow, account, at, rows, estimated=estimated)

    async def _mark(
        self,
        equity: object,
        cash_flow: object,
        account: str,
        at: datetime | None,
        prices: tuple[ReferencePrice, ...],
        *,
        estimated: bool,
    ) -> None:
        value, flow = to_decimal(equity), to_decimal(cash_flow)
        account = checked_name("account", account)
        context = await self._open()
        moment = self._moment()

        def script(tx: Tx) -> MarkResult:
            settlement.put_prices(tx, prices)
            return breaker_scripts.record_mark(
                tx,
                equity=value,
                cash_flow=flow,
                account=account,
                at=at or moment.now,
                now=moment.now,
                estimated=estimated,
                new_id=self._new_id,
                limits=self._limits,
                day_may_roll=moment.day_may_roll,
                prices=prices,
            )

        result = await context.store.transact(script)
        if result.age_ms is not None:
            self._health.marked(self._clock.monotonic(), age_ms=result.age_ms)
        self._noticed(result.trip)
        if result.refused:
            raise ValueError(result.refused)

    async def record_execution(
        self,
        ok: bool | None,  # noqa: FBT001 - the signature is part of the public interface
        *,
        client_order_id: str | None = None,
        at: datetime | None = None,
    ) -> None:
        """Record one order send to a venue; trips at once on a breach.

        Idempotent per client order id; None may later become True or False.

        Args:
            ok: True when the venue took it, False when it failed or was rejected, None when
                nobody knows.
            client_order_id: the order's id; each call without one is another attempt.
            at: when it was sent, aware; now when absent.

        Raises:
            ValueError: `ok` or the id is none.
            StoreUnavailable: nothing was recorded.
        """
        if client_order_id is not None:
            checked_label("client_order_id", client_order_id)
        await self._attempted(ExecutionKind.ORDER, outcome_of(ok), client_order_id, at)

    async def record_call(
        self,
        ok: bool | None,  # noqa: FBT001 - the signature is part of the public interface
        *,
        kind: str,
    ) -> None:
        """Record a call that trading depends on: `cancel` or `decision`; trips on a breach.

        Raises:
            ValueError: the kind is neither.
            StoreUnavailable: nothing was recorded.
        """
        found = next((one for name, one in _CALLS.items() if name == kind), None)
        if found is None:
            raise ValueError(f"kind is {kind!r}; wanted 'cancel' or 'decision'")
        await self._attempted(found, outcome_of(ok), None, None)

    async def _attempted(
        self,
        kind: ExecutionKind,
        outcome: Outcome,
        client_order_id: str | None,
        at: datetime | None,
    ) -> None:
        context = await self._open()
        moment = self._moment()
        attempt = Attempt(kind, outcome, to_ms(at or moment.now), client_order_id)
        trip = await context.store.transact(lambda tx: self._attempt(tx, attempt, moment))
        self._noticed(trip)

    def _attempt(self, tx: Tx, attempt: Attempt, moment: Moment) -> Trip | None:
        return breaker_scripts.record_attempt(
            tx,
            attempt,
            limits=self._limits,
            now=moment.now,
            trip_id=self._new_id(),
            day_may_roll=moment.day_may_roll,
        )

    def record_attempt(
        self, tx: Tx, client_order_id: str, outcome: Outcome, *, now: datetime
    ) -> Trip | None:
        """Record what became of an order send inside a transaction of the caller's.

        `VOID` says that it is proven unsent: then its velocity slot is given back.
        """
        # Scripts run on the store's thread: the watch is only looked at, not moved, from there.
        moment = Moment(now, 0.0, day_may_roll=self._watch.believed)
        attempt = Attempt(ExecutionKind.ORDER, outcome, to_ms(now), client_order_id)
        return self._attempt(tx, attempt, moment)

    async def latch_trip(self, context: SafetyContext, trip: Trip) -> bool:
        """Latch a trip for a reason that is no metric; False when one stands already.

        Raises:
            StoreUnavailable: nothing was latched.
        """
        latched = await context.store.transact(
            lambda tx: breaker_scripts.latch_fault(tx, trip, self._limits), stop=True
        )
        self._noticed(trip if latched else None)
        return latched

    def reset(self) -> PendingReset:
        """Show why trading is halted and what would trip again at once; clears nothing, no I/O.

        What is shown is the last known state: check first where nothing was read yet.
        """
        moment = self._moment()
        now_ms = moment.now_ms
        expires_s = moment.mono_s + RESET_LIFETIME_MS / 1000

        def look(book: Book | None) -> ShownReset:
            state, executions, trip = NavState(), ExecutionBook(), self._last_trip
            if book is not None:
                state, executions = nav_point(book.documents).state, book.executions
                trip = book.trip
            readings = evaluate(
                state, executions, self._limits, now_ms, day_may_roll=moment.day_may_roll
            )
            return pending_reset(None if trip is None else trip.id, readings, now_ms)

        async def confirm(
            pending: ShownReset, operator: str, reason: str, *, rebaseline: bool
        ) -> None:
            await self._confirm(
                pending, operator, reason, rebaseline=rebaseline, expires_s=expires_s
            )

        context = self._handle.glance()
        pending = look(None) if context is None else context.store.peek(look)
        return PendingReset(pending, self.halt_reason, confirm)

    async def _confirm(
        self,
        pending: ShownReset,
        operator: str,
        reason: str,
        *,
        rebaseline: bool,
        expires_s: float,
    ) -> None:
        context = await self._open()
        moment = self._moment()
        now = moment.now
        if moment.mono_s >= expires_s:
            # A wall clock that was set back makes no pending reset live longer.
            now = max(now, from_ms(pending.expires_ms))
        refused = await context.store.transact(
            lambda tx: confirm_reset(
                tx,
                pending,
                self._limits,
                operator=operator,
                reason=reason,
                rebaseline=rebaseline,
                now=now,
                row_id=self._new_id(),
                day_may_roll=moment.day_may_roll,
            )
        )
        if refused:
            raise ResetRefused(refused)
        _log.warning("circuit_breaker_reset", operator=operator, reason=reason)
        self._activity.set()
