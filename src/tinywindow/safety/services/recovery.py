"""Recovery: how a process starts, whether it stopped in order or was killed at any line.

Start-up is recovery: there is no other path. Open intents are looked up at the venue by their
ids, reservations stay held, positions are compared, and only then is equity marked.
"""

from __future__ import annotations

from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.domain.order import DEFAULT_ACCOUNT
from tinywindow.safety.domain.records import HoldState
from tinywindow.safety.errors import VenueUnavailable
from tinywindow.safety.services import journalled_intents
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.gate import OrderGate
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.position_limits import PositionLimitEnforcer
from tinywindow.safety.services.reconcile import Reconciler, ReconciliationReport

__all__ = ["Recovery"]

log = get_logger(__name__)


class Recovery:
    """Brings a process to the point where it may trade."""

    def __init__(
        self,
        gate: OrderGate,
        limits: PositionLimitEnforcer,
        breaker: CircuitBreaker,
        *,
        account: str = DEFAULT_ACCOUNT,
    ) -> None:
        """`account` is whose equity the first mark is."""
        self._limits = limits
        self._breaker = breaker
        self._account = account
        self._gate = gate
        self._reconciler = Reconciler(limits.admitter, gate.settler, gate.exchange)
        self._positions_due = True
        self._recovery_due = True
        gate.account.marked_as = account

    async def run(self) -> ReconciliationReport:
        """Recover orders and positions, record a first mark, and audit what was found.

        Where the venue does not say whose account it is, nothing is booked: entries are refused,
        and it is asked again before anything else is.

        Raises:
            ConfigurationError: the venue's name stands for another account in this store.
            LimitsDiffer: this process is configured with other limits than the store's.
            StoreUnavailable: the store cannot be opened.
        """
        context = await self._limits.admitter.open()
        try:
            return await self._recover(context)
        except VenueUnavailable as error:
            return ReconciliationReport(errors=[f"account: {error}"])

    async def _recover(self, context: SafetyContext) -> ReconciliationReport:
        if self._recovery_due:
            message = f"whose account {self._gate.exchange.name} is was not compared yet"
            context.faults[Reason.STATE_UNKNOWN] = message
        await self._gate.account.claim(context)
        self._recovery_due = False
        await journalled_intents.take_on(context, self._gate.exchange.name)
        report = await self._reconciler.orders(context)
        await self._positions(context, report)
        await self._first_mark(report)
        row = self._limits.admitter.draft(
            EventType.RECOVERY,
            {
                "settled": report.settled,
                "unsettled": report.unsettled,
                "mismatches": report.mismatches,
                "errors": report.errors,
            },
            actor="recovery",
        )
        await context.store.transact(lambda tx: tx.audit(row))
        return report

    async def _positions(self, context: SafetyContext, report: ReconciliationReport) -> None:
        """Compare positions; until that has succeeded once, entries are refused."""
        try:
            self._positions_due = not await self._reconciler.positions(context, report)
        finally:
            if self._positions_due:
                message = f"the positions at {self._gate.exchange.name} were not compared yet"
                context.faults[Reason.STATE_UNKNOWN] = message
            else:
                context.faults.pop(Reason.STATE_UNKNOWN, None)

    async def _first_mark(self, report: ReconciliationReport) -> None:
        try:
            account = await self._gate.exchange.account()
            await self._breaker.record_equity(
                account.equity, account=self._account, estimated=account.estimated
            )
        except (VenueUnavailable, ValueError) as error:
            # Without a mark the losses are unknown, and so no entry is sent.
            report.errors.append(f"account: {error}")

    async def settle_working(self) -> ReconciliationReport | None:
        """Book what became of orders that rest at the venue or whose outcome is unknown.

        What was left over from the start, and refusals that were counted together, follow too.

        Raises:
            ConfigurationError: the venue's name stands for another account by now.
            VenueUnavailable: the venue still does not say whose account it is.
            StoreUnavailable: the store cannot be read or written.
        """
        context = await self._limits.admitter.open()
        if self._recovery_due:
            return await self._recover(context)
        if await self._gate.account.found(context):
            # It says why, as what it is.
            await self._gate.account.claim(context)
        await self._limits.admitter.flush_refusals(context)
        waiting = context.store.peek(
            lambda book: (
                book is not None
                and any(
                    hold.state in {HoldState.INTENDED, HoldState.WORKING, HoldState.UNKNOWN}
                    for hold in book.holds.values()
                )
            )
        )
        if not waiting and not self._positions_due:
            return None
        report = await self._reconciler.orders(context)
        if self._positions_due:
            await self._positions(context, report)
        for error in report.errors:
            log.warning("order_not_reconciled", error=error)
        return report
