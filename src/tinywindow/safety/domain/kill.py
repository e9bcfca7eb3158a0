"""The kill switch: latches with identities, how they join, and the states of a stop.

Theory. A stop is a set of latches. Sets join by union, so stops commute, associate and are
idempotent: no race, duplicate or replay can weaken one. The mode in force is the maximum over
the standing latches. A latch leaves the set only by name; a released latch is a tombstone.

    INACTIVE ──stop──▶ HALTED ──stop(CLOSE)──▶ CLOSING ──flat──▶ FLAT
        │                                        │  ▲              │
        └────────────stop(CLOSE)─────────────────┘  │not flat       │
                                      deadline ▶ INCOMPLETE ──flat──┘
    every state ──release of every standing latch──▶ INACTIVE
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from tinywindow.safety.errors import InvariantBroken

__all__ = [
    "KillEvent",
    "KillState",
    "KillSwitchMode",
    "Latch",
    "LatchSource",
    "closes",
    "effective_mode",
    "join",
    "step",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class KillSwitchMode(StrEnum):
    """What a stop does beyond refusing entries."""

    HALT_ONLY = "HALT_ONLY"
    CLOSE_POSITIONS = "CLOSE_POSITIONS"

    @property
    def rank(self) -> int:
        """The order of modes; the stronger wins."""
        return 1 if self is KillSwitchMode.CLOSE_POSITIONS else 0


class LatchSource(StrEnum):
    """Which way a stop came in."""

    PYTHON = "PYTHON"
    CLI = "CLI"
    API = "API"
    FILE = "FILE"
    REDIS = "REDIS"
    JOURNAL = "JOURNAL"
    WATCHDOG = "WATCHDOG"


@dataclass(frozen=True, slots=True)
class Latch:
    """One accepted stop. It stands until it is released by its id."""

    id: str
    mode: KillSwitchMode
    reason: str
    actor: str
    source: LatchSource
    activated_at: datetime
    released_at: datetime | None = None
    released_by: str | None = None
    release_reason: str | None = None

    @property
    def standing(self) -> bool:
        """Whether the stop is in force."""
        return self.released_at is None


class KillState(StrEnum):
    """How far a stop is."""

    INACTIVE = "INACTIVE"
    HALTED = "HALTED"
    CLOSING = "CLOSING"
    FLAT = "FLAT"
    INCOMPLETE = "INCOMPLETE"


class KillEvent(StrEnum):
    """What moves a stop from one state to the next."""

    HALT = "HALT"
    CLOSE = "CLOSE"
    PROVEN_FLAT = "PROVEN_FLAT"
    NOT_FLAT = "NOT_FLAT"
    DEADLINE = "DEADLINE"
    RELEASED = "RELEASED"


_S = KillState
_E = KillEvent
TRANSITIONS: Final[dict[tuple[KillState, KillEvent], KillState]] = {
    (_S.INACTIVE, _E.HALT): _S.HALTED,
    (_S.INACTIVE, _E.CLOSE): _S.CLOSING,
    (_S.INACTIVE, _E.RELEASED): _S.INACTIVE,
    (_S.HALTED, _E.HALT): _S.HALTED,
    (_S.HALTED, _E.CLOSE): _S.CLOSING,
    (_S.HALTED, _E.RELEASED): _S.INACTIVE,
    (_S.CLOSING, _E.HALT): _S.CLOSING,
    (_S.CLOSING, _E.CLOSE): _S.CLOSING,
    (_S.CLOSING, _E.PROVEN_FLAT): _S.FLAT,
    (_S.CLOSING, _E.NOT_FLAT): _S.CLOSING,
    (_S.CLOSING, _E.DEADLINE): _S.INCOMPLETE,
    (_S.CLOSING, _E.RELEASED): _S.INACTIVE,
    (_S.INCOMPLETE, _E.HALT): _S.INCOMPLETE,
    (_S.INCOMPLETE, _E.CLOSE): _S.CLOSING,
    (_S.INCOMPLETE, _E.PROVEN_FLAT): _S.FLAT,
    (_S.INCOMPLETE, _E.NOT_FLAT): _S.INCOMPLETE,
    (_S.INCOMPLETE, _E.DEADLINE): _S.INCOMPLETE,
    (_S.INCOMPLETE, _E.RELEASED): _S.INACTIVE,
    (_S.FLAT, _E.HALT): _S.FLAT,
    (_S.FLAT, _E.CLOSE): _S.CLOSING,
    (_S.FLAT, _E.PROVEN_FLAT): _S.FLAT,
    (_S.FLAT, _E.NOT_FLAT): _S.CLOSING,
    (_S.FLAT, _E.RELEASED): _S.INACTIVE,
}
"""The whole machine. A pair that is not here cannot happen."""


def step(state: KillState, event: KillEvent) -> KillState:
    """Move a stop on by one event.

    Raises:
        InvariantBroken: for a pair that the table does not hold.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise InvariantBroken(f"a stop in state {state} cannot meet {event}") from None


def join(left: Iterable[Latch], right: Iterable[Latch]) -> frozenset[Latch]:
    """Join two sets of latches by id; a tombstone wins over the same latch standing.

    Associative, commutative and idempotent, so stops may arrive in any order, any number of
    times. Two tombstones of one latch keep the earlier release, ties by who released it.
    """
    joined: dict[str, Latch] = {}
    for latch in (*left, *right):
        known = joined.get(latch.id)
        joined[latch.id] = latch if known is None else _winner(known, latch)
    return frozenset(joined.values())


def _winner(first: Latch, second: Latch) -> Latch:
    return max(first, second, key=_precedence)


def _precedence(latch: Latch) -> tuple[bool, int, str, int, str]:
    released = latch.released_at
    return (
        released is not None,
        0 if released is None else -((released - _EPOCH) // timedelta(microseconds=1)),
        latch.released_by or "",
        latch.mode.rank,
        latch.reason,
    )


def effective_mode(latches: Iterable[Latch]) -> KillSwitchMode | None:
    """The mode in force: the strongest over the standing latches, None when none stands."""
    modes = [latch.mode for latch in latches if latch.standing]
    return max(modes, key=lambda mode: mode.rank) if modes else None


def closes(latched: Iterable[Latch], beside: Iterable[Latch]) -> bool:
    """Whether positions are to be closed, by the database's latches and those seen beside it.

    Of a stop that the database has latched, its own word counts: it may have taken it on as a
    halt only.
    """
    latched = tuple(latched)
    known = {latch.id for latch in latched}
    unlatched = (latch for latch in beside if latch.id not in known)
    return effective_mode((*latched, *unlatched)) is KillSwitchMode.CLOSE_POSITIONS
