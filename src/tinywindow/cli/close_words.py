"""How far a close is, in words for somebody who was woken by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from tinywindow.safety.domain.kill import KillState
from tinywindow.safety.domain.money import ZERO, plain

__all__ = ["close_words"]

POSITIONS_SHOWN: Final = 50
ERRORS_SHOWN: Final = 5

_STATES: Final[Mapping[str, str]] = {
    KillState.HALTED: "halted; nothing is closed",
    KillState.CLOSING: "closing, not flat yet",
    KillState.INCOMPLETE: "NOT FLAT after the deadline; it is tried on, but look at the venue",
    KillState.FLAT: "flat, as two reads of the venue have shown",
}


def close_words(name: str, report: Mapping[str, Any]) -> Iterator[str]:
    """A venue's report, as plain data has it, as lines of plain text."""
    positions = report["positions"]
    yield f"{name}: {_STATES.get(report['state'], report['state'])}"
    for count, one, many in (
        (report["resting"], "1 order still rests", "{} orders still rest"),
        (
            report["unresolved"],
            "of 1 sent order nobody knows yet what became of it",
            "of {} sent orders nobody knows yet what became of them",
        ),
    ):
        if count:
            yield f"  {one if count == 1 else many.format(count)}"
    for position in positions[:POSITIONS_SHOWN]:
        yield f"  {_position(position)}"
    if len(positions) > POSITIONS_SHOWN:
        yield f"  and {len(positions) - POSITIONS_SHOWN} more positions"
    errors = [error for error in report["errors"] if not _told(error, positions)]
    for error in errors[:ERRORS_SHOWN]:
        yield f"  trouble: {error}"


def _position(position: Mapping[str, Any]) -> str:
    wanted, sent, filled, left = (
        Decimal(position[name]) for name in ("wanted", "sent", "filled", "left")
    )
    leg = "" if position["leg"] == "net" else f" {position['leg']}"
    told = f"{position['symbol']}{leg}: "
    if wanted == ZERO:
        told += "nothing of it is ours to close"
    elif left == ZERO:
        told += f"closed, {plain(filled)} of {plain(wanted)} by our orders"
        if filled < wanted:
            told += "; the rest was gone before (liquidated, or closed by somebody else)"
    else:
        told += f"{plain(filled)} of {plain(wanted)} closed, {plain(left)} left"
        if position["dust"]:
            told += ", which is too small for the venue to take (dust)"
        else:
            told += f" (sent so far: {plain(sent)})"
    if position["error"]:
        told += f"; last trouble: {position['error']}"
    return told


def _told(error: str, positions: list[Mapping[str, Any]]) -> bool:
    """Whether a position's own line says it already."""
    return any(error == f"{one['symbol']}: {one['error']}" for one in positions)
