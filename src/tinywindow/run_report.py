"""What a run shows: one line for each thing that happens, and a summary at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tinywindow.orchestrator import CycleReport
from tinywindow.safety import Outcome, Refused
from tinywindow.safety.domain.audit import utc_text
from tinywindow.safety.domain.money import plain
from tinywindow.strategies.base import Proposal

__all__ = ["RunReport"]

Say = Callable[[str], None]


def _silent(_line: str) -> None:
    """Say nothing."""


@dataclass(slots=True)
class RunReport:
    """Counts what a run did and tells it as it happens.

    `say` prints a line that stays; `show` shows the line of the moment, which may be overwritten.
    """

    say: Say = _silent
    show: Say = _silent
    moments: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    equity_first: Decimal | None = None
    equity_last: Decimal | None = None
    equity_peak: Decimal | None = None
    equity_low: Decimal | None = None
    sent: int = 0
    rejected: int = 0
    unknown: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    halted_at: datetime | None = None
    halted_for: str = ""

    def cycle(self, report: CycleReport) -> None:
        """Take on one cycle."""
        at = report.moment.at
        self.moments += 1
        self.first_at = self.first_at or at
        self.last_at = at
        if report.equity is not None:
            self._equity(report.equity)
        for proposal, answer in report.answers:
            self._answer(at, proposal, answer)
        self.show(self._line(report))

    def _equity(self, equity: Decimal) -> None:
        if self.equity_first is None:
            self.equity_first = equity
        self.equity_last = equity
        self.equity_peak = max(equity, self.equity_peak or equity)
        self.equity_low = equity if self.equity_low is None else min(equity, self.equity_low)

    def _answer(self, at: datetime, proposal: Proposal, answer: Outcome | Refused) -> None:
        asked = _asked(proposal)
        if isinstance(answer, Refused):
            self.refused[answer.reason_code.value] += 1
            self.say(f"{_clock(at)}  refused   {asked}: {answer.rejection_reason}")
            return
        if answer.status == "UNKNOWN":
            self.unknown += 1
        elif answer.accepted:
            self.sent += 1
        else:
            self.rejected += 1
        self.say(
            f"{_clock(at)}  {answer.status.lower():<9} {asked}{_filled(proposal, answer)} "
            f"{answer.client_order_id} {answer.message}".rstrip()
        )

    def halted(self, at: datetime, reason: str) -> None:
        """Tell that trading is halted, and again when it is for another cause."""
        # The figures in a reason move on; what stands before them tells the cause.
        if self.halted_at is None or _cause(reason) != _cause(self.halted_for):
            self.halted_at, self.halted_for = self.halted_at or at, reason
            self.say(f"{_clock(at)}  HALTED    {reason}")

    def resumed(self, at: datetime) -> None:
        """Tell that trading goes on."""
        if self.halted_at is not None:
            self.halted_at = None
            self.say(f"{_clock(at)}  RUNNING   trading goes on")

    def _line(self, report: CycleReport) -> str:
        prices = "  ".join(
            f"{symbol} {_money(price)}" for symbol, price in report.moment.prices.items()
        )
        equity = "?" if report.equity is None else _money(report.equity)
        state = "trading" if self.halted_at is None else "HALTED"
        return f"{_clock(report.moment.at)}  {state:<8}  equity {equity}  {prices}"

    def summary(self) -> dict[str, object]:
        """The run as plain data."""
        return {
            "moments": self.moments,
            "first_at": None if self.first_at is None else utc_text(self.first_at),
            "last_at": None if self.last_at is None else utc_text(self.last_at),
            "halted": None
            if self.halted_at is None
            else {"at": utc_text(self.halted_at), "reason": self.halted_for},
            "equity": {
                "first": _text(self.equity_first),
                "last": _text(self.equity_last),
                "peak": _text(self.equity_peak),
                "low": _text(self.equity_low),
            },
            "orders": {
                "accepted": self.sent,
                "rejected": self.rejected,
                "unknown": self.unknown,
                "refused": dict(sorted(self.refused.items())),
            },
        }


def _cause(reason: str) -> str:
    return reason.partition(":")[0]


def _asked(proposal: Proposal) -> str:
    """What was proposed: side, amount, symbol, and the limit price where there is one."""
    limit = "" if proposal.price is None else f" limit {plain(proposal.price)}"
    return f"{proposal.side.value} {plain(proposal.amount)} {proposal.symbol}{limit}"


def _filled(proposal: Proposal, answer: Outcome) -> str:
    """What of it was filled, and at which price."""
    if answer.average_price is None or answer.filled.is_zero():
        return ""
    part = "" if answer.filled == proposal.amount else f", {plain(answer.filled)} filled"
    return f"{part} at {_money(answer.average_price)}"


def _clock(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _money(amount: Decimal) -> str:
    return f"{amount:,.2f}"


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)
