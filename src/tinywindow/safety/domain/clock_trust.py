"""Clock trust: may the wall clock be believed, told by the clock that never goes back.

Theory. An anchor pairs one reading of the wall clock with one of the monotonic clock. As long as
both have moved on by the same time since, within two seconds, the wall clock is believed. When
they have not, somebody set it: it is not believed until both have agreed for five minutes, or an
operator vouches for it. Meanwhile entries are refused and the day does not roll.

    TRUSTED ──differ by > 2 s──▶ UNTRUSTED ──agree for 5 min──▶ TRUSTED
       │                           │   ▲
       │                           └───┘ differ again: the five minutes begin anew
    at start, before the newest row by > 2 s ▶ UNTRUSTED
    every state ──an operator vouches──▶ TRUSTED

All times are whole milliseconds: the wall clock's of Unix time, the monotonic clock's of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["AGREEMENT_MS", "DRIFT_MAX_MS", "ClockTrust", "observe", "start", "vouch"]

DRIFT_MAX_MS: Final = 2_000
"""How far the two clocks may differ since the anchor, and the wall clock from the newest row."""
AGREEMENT_MS: Final = 300_000
"""How long they must agree before the wall clock is believed again."""


@dataclass(frozen=True, slots=True)
class ClockTrust:
    """Whether the wall clock is believed.

    Attributes:
        wall_ms: the wall clock at the anchor.
        mono_ms: the monotonic clock at the anchor.
        trusted: whether the wall clock is believed.
        note: why not, as a sentence; empty while it is believed.
    """

    wall_ms: int
    mono_ms: int
    trusted: bool = True
    note: str = ""

    def drift_ms(self, wall_ms: int, mono_ms: int) -> int:
        """How much further the wall clock has moved since the anchor than the other."""
        return (wall_ms - self.wall_ms) - (mono_ms - self.mono_ms)


def start(wall_ms: int, mono_ms: int, *, newest_row_ms: int | None) -> ClockTrust:
    """Begin: the wall clock may not stand before what was already written.

    Standing long after the newest row is only downtime.
    """
    if newest_row_ms is None or wall_ms >= newest_row_ms - DRIFT_MAX_MS:
        return ClockTrust(wall_ms, mono_ms)
    behind_ms = newest_row_ms - wall_ms
    note = f"the wall clock stands {_seconds(behind_ms)} s before the newest row"
    return ClockTrust(wall_ms, mono_ms, trusted=False, note=note)


def observe(state: ClockTrust, wall_ms: int, mono_ms: int) -> ClockTrust:
    """Take on one reading of both clocks."""
    drift_ms = state.drift_ms(wall_ms, mono_ms)
    if abs(drift_ms) > DRIFT_MAX_MS:
        way = "ahead of" if drift_ms > 0 else "behind"
        note = f"the wall clock jumped {_seconds(abs(drift_ms))} s {way} the monotonic clock"
        return ClockTrust(wall_ms, mono_ms, trusted=False, note=note)
    if not state.trusted and mono_ms - state.mono_ms >= AGREEMENT_MS:
        return ClockTrust(wall_ms, mono_ms)
    return state


def vouch(wall_ms: int, mono_ms: int) -> ClockTrust:
    """An operator says that the wall clock is right as it is now."""
    return ClockTrust(wall_ms, mono_ms)


def _seconds(ms: int) -> str:
    whole, rest = divmod(ms, 1_000)
    return f"{whole}.{rest:03d}"
