"""Starting and stopping trading by hand: a stop stops it, and only this starts it again."""

from __future__ import annotations

from tinywindow.safety.domain.audit import AuditDraft
from tinywindow.safety.domain.records import TradingState
from tinywindow.safety.errors import StartRefused
from tinywindow.safety.ports import Tx

__all__ = ["start_trading", "stop_trading"]


def start_trading(tx: Tx, row: AuditDraft) -> bool:
    """Set trading to RUNNING, as a script; False when it runs already.

    Raises:
        StartRefused: a latch or a trip stands.
    """
    latches = tx.standing_latches()
    if latches:
        names = ", ".join(latch.id for latch in latches)
        raise StartRefused(f"the kill switch is active ({names}); release it first")
    trip = tx.standing_trip()
    if trip is not None:
        raise StartRefused(f"the circuit breaker is tripped ({trip.sentence}); reset it first")
    return _set(tx, TradingState.RUNNING, row)


def stop_trading(tx: Tx, row: AuditDraft) -> bool:
    """Set trading to STOPPED without a latch, as a script; False when it is stopped already."""
    return _set(tx, TradingState.STOPPED, row)


def _set(tx: Tx, state: TradingState, row: AuditDraft) -> bool:
    if tx.head().trading is state:
        return False
    tx.set_trading(state)
    tx.audit(row)
    return True
