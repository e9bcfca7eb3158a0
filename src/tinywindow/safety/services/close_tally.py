"""What a close did so far, position by position: wanted, sent, filled, left, last error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal

from tinywindow.safety.domain.flatten import ClosePlan
from tinywindow.safety.domain.money import EXACT, ZERO
from tinywindow.safety.domain.records import Hold
from tinywindow.safety.domain.venue import OrderReport
from tinywindow.safety.services.kill_report import PositionReport

__all__ = ["CloseTally"]

_Key = tuple[str, str]


@dataclass(slots=True)
class CloseTally:
    """The books of one close on one venue; amounts are base units."""

    _positions: dict[_Key, PositionReport] = field(default_factory=dict)
    _orders: dict[str, tuple[_Key, Decimal]] = field(default_factory=dict)
    _waits: dict[_Key, str] = field(default_factory=dict)

    @classmethod
    def resumed(cls, positions: Iterable[PositionReport]) -> CloseTally:
        """Go on with what another process, or this one before a restart, had done."""
        return cls({(item.symbol, item.leg): item for item in positions})

    def reports(self) -> tuple[PositionReport, ...]:
        """Every position that was seen, those that are closed too."""
        return tuple(self._positions[key] for key in sorted(self._positions))

    def _change(self, key: _Key, **changes: object) -> None:
        known = self._positions.get(key, PositionReport(*key))
        self._positions[key] = replace(known, **changes)  # type: ignore[arg-type]

    def seen(self, plans: Iterable[ClosePlan]) -> None:
        """Take on one whole read of the venue: what is not in it any more has nothing left."""
        by_key = {(plan.symbol, plan.leg): plan for plan in plans}
        for key, report in tuple(self._positions.items()):
            if report.error is not None and report.error == self._waits.pop(key, None):
                # What a position waited for is over; a rejection is kept as its last error.
                self._change(key, error=None)
            if key not in by_key:
                self._change(key, left=ZERO, dust=False)
        for key, plan in by_key.items():
            known = self._positions.get(key)
            # What was wanted in all is what is left now and what was filled before.
            filled = ZERO if known is None else known.filled
            wanted = EXACT.add(plan.wanted, filled)
            self._change(
                key,
                wanted=max(wanted, ZERO if known is None else known.wanted),
                left=plan.wanted,
                dust=plan.done and plan.wanted > 0,
            )
            if plan.blocked is not None:
                self._change(key, error=plan.blocked)
                self._waits[key] = plan.blocked

    def sent(self, plan: ClosePlan, client_order_id: str, amount: Decimal) -> None:
        """Take on a slice that is about to be sent."""
        key = (plan.symbol, plan.leg)
        known = self._positions.get(key, PositionReport(*key))
        self._change(key, sent=EXACT.add(known.sent, amount))
        self._orders[client_order_id] = (key, ZERO)

    def adopt(self, hold: Hold) -> None:
        """Follow a slice that another process sent, or this one before a restart."""
        key = (hold.key.symbol, hold.key.leg)
        if key in self._positions:
            self._orders.setdefault(hold.client_order_id, (key, hold.filled))

    def unsent(self, client_order_id: str, amount: Decimal) -> None:
        """Take a slice back that never reached the venue."""
        key, _ = self._orders.pop(client_order_id)
        self._change(key, sent=EXACT.subtract(self._positions[key].sent, amount))

    def failed(self, plan: ClosePlan, error: str) -> None:
        """Keep a position's last error."""
        self._change((plan.symbol, plan.leg), error=error)

    def booked(self, report: OrderReport) -> None:
        """Take on what the venue says of a slice; fills are cumulative."""
        known = self._orders.get(report.client_order_id)
        if known is None or report.filled <= known[1]:
            return
        key, before = known
        more = EXACT.subtract(report.filled, before)
        self._orders[report.client_order_id] = (key, report.filled)
        self._change(key, filled=EXACT.add(self._positions[key].filled, more))
