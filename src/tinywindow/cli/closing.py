"""Whether anybody closes, by what the store knows."""

from __future__ import annotations

from typing import Final

from tinywindow.safety.domain.kill import KillState, KillSwitchMode
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.flatten_lease import LEASE_TTL_MS, heart_beats, lease_name
from tinywindow.safety.services.kill_report import KillSwitchStatus
from tinywindow.safety.services.times import to_ms

__all__ = ["PATIENCE_MS", "anybody_closing", "closing_of"]

PATIENCE_MS: Final = LEASE_TTL_MS + 1000
"""How long a close may be without a heartbeat before nobody counts as closing."""


def anybody_closing(tx: Tx, *, now_ms: int) -> bool:
    """Whether any flattener's heart beats, on any venue that the store knows."""
    names = {key.venue for key in tx.book().keys()}  # noqa: SIM118 - a method of the book
    names.update(record.venue for record in tx.close_records())
    return any(heart_beats(tx.lease(lease_name(name)), now_ms=now_ms) for name in names)


def closing_of(tx: Tx, status: KillSwitchStatus, *, now_ms: int) -> bool | None:
    """Whether the close that a status asks for is under way in any process.

    None where there is nothing to close, and within moments of a stop that nobody took up yet.
    """
    if status.mode is not KillSwitchMode.CLOSE_POSITIONS or status.state is KillState.FLAT:
        return None
    if anybody_closing(tx, now_ms=now_ms):
        return True
    asked_at = status.activated_at
    if asked_at is not None and 0 <= now_ms - to_ms(asked_at) < PATIENCE_MS:
        return None
    return False
