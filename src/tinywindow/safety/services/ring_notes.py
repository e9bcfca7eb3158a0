"""What one kill switch heard from Redis: kept until the database has it, and never too old.

Whoever looks at the key, the order's gate too, leaves a note here. A stop that was seen once
can then not be lost any more by what happens to Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from tinywindow.safety.domain.decision import Breach, Reason
from tinywindow.safety.ports import Clock, Ring

__all__ = ["HEARD_AGE_MAX_S", "RingNotes", "Sighting"]

HEARD_AGE_MAX_S: Final = 0.25
"""No order commits on a look at Redis that began earlier: within this time after the key was
set, every process that can read it has stopped, however long an order waited in between."""
PENDING_MAX: Final = 64
RELEASED_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Sighting:
    """A value that stood on the key, and when the look at it began."""

    ring: Ring
    at: datetime


@dataclass(slots=True)
class RingNotes:
    """Notes of looks at the key; `on_new` is called for a value that was not known.

    Written on the event loop only. `breach` is read from the store's thread too: it looks at
    single values, each replaced as a whole.
    """

    clock: Clock
    on_new: Callable[[], None] = lambda: None
    _standing: Ring | None = None
    _heard_s: float | None = None
    _pending: dict[bytes, Sighting] = field(default_factory=dict)
    _known: bytes | None = None
    _released: dict[str, None] = field(default_factory=dict)

    def heard(self, ring: Ring | None, begun_s: float, at: datetime) -> None:
        """Note what a look found that began at `begun_s` on the monotonic clock."""
        # Where a newer look was answered before, this one can only add a stop.
        if self._heard_s is None or begun_s >= self._heard_s:
            self._heard_s = begun_s
            self._standing = ring
            if ring is None:
                self._known = None
        # What was released here and still stands is the watcher's to judge, not a new stop.
        if ring is None or ring.latch_id in self._released:
            return
        if ring.raw in self._pending or ring.raw == self._known:
            return
        if len(self._pending) < PENDING_MAX:
            self._pending[ring.raw] = Sighting(ring, at)
        self.on_new()

    @property
    def heard_s(self) -> float | None:
        """When the newest look began that was answered, by the monotonic clock."""
        return self._heard_s

    def pending(self) -> tuple[Sighting, ...]:
        """What was seen and is not known to be in the database, oldest first."""
        return tuple(self._pending.values())

    def settle(self, sighting: Sighting) -> None:
        """Say that the database has what a sighting asks for, or has had it."""
        raw = sighting.ring.raw
        if self._pending.get(raw) == sighting:
            del self._pending[raw]
        self._known = raw

    def released(self, latch_ids: Iterable[str]) -> None:
        """Say that stops were released: a value that was known is a new stop from now on."""
        self._known = None
        for latch_id in latch_ids:
            self._released[latch_id] = None
        while len(self._released) > RELEASED_MAX:
            del self._released[next(iter(self._released))]

    def breach(self) -> Breach | None:
        """Why no entry may commit now, as far as Redis goes; costs no I/O."""
        if self._pending or self._standing is not None:
            return Breach(Reason.KILL_SWITCH_ACTIVE, "a stop was seen in Redis")
        heard_s = self._heard_s
        if heard_s is None:
            return Breach(Reason.STATE_UNKNOWN, "Redis was not read yet")
        age_s = self.clock.monotonic() - heard_s
        if age_s > HEARD_AGE_MAX_S:
            message = f"Redis was last read {age_s * 1000:.0f} ms ago"
            return Breach(Reason.STATE_UNKNOWN, message)
        return None
