"""Faults on demand: a hook through which tests make the paper venue misbehave.

The faults are those of a venue: a send that times out before or after the venue took it, a
rejection, a partial fill, a close that leaves dust, and calls that fail before or after they
had their effect.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol

from tinywindow.safety.domain.order import CheckedOrder

__all__ = ["CallFault", "Faults", "NoFaults", "PlaceFault", "ScriptedFaults"]


class PlaceFault(StrEnum):
    """What may go wrong with one send."""

    LOST_BEFORE = "LOST_BEFORE"
    """It times out and the venue never saw it: `Unknown`, and `find` knows nothing."""
    LOST_AFTER = "LOST_AFTER"
    """The venue took it and the answer is lost: `Unknown`, although the order is live."""
    REJECT = "REJECT"
    """The venue turns it away."""
    PARTIAL = "PARTIAL"
    """Only half of it fills at once; of a market order the rest is cancelled."""
    DUST = "DUST"
    """All but half of the market's minimum fills; of a market order the rest is cancelled."""


class CallFault(StrEnum):
    """What may go wrong with any other call; both raise `VenueUnavailable`."""

    BEFORE = "BEFORE"
    """It fails and has no effect."""
    AFTER = "AFTER"
    """It has its effect and the answer is lost."""


class Faults(Protocol):
    """Asked before each call; must be safe to ask from several threads."""

    def on_place(self, order: CheckedOrder) -> PlaceFault | None:
        """The fault of this send, or None."""
        ...

    def on_call(self, operation: str) -> CallFault | None:
        """The fault of this call; `operation` is the name of the port's method."""
        ...


class NoFaults:
    """Nothing goes wrong."""

    def on_place(self, order: CheckedOrder) -> PlaceFault | None:
        """No fault."""
        del order
        return None

    def on_call(self, operation: str) -> CallFault | None:
        """No fault."""
        del operation
        return None


class ScriptedFaults:
    """Faults in the order in which they were scripted; None in a script lets one call pass."""

    def __init__(self) -> None:
        self._place: deque[PlaceFault | None] = deque()
        self._calls: dict[str, deque[CallFault | None]] = {}
        self._lock = threading.Lock()

    def place(self, *faults: PlaceFault | None) -> ScriptedFaults:
        """Script the next sends, one fault each."""
        with self._lock:
            self._place.extend(faults)
        return self

    def call(self, operation: str, faults: Iterable[CallFault | None]) -> ScriptedFaults:
        """Script the next calls of a method of the port, such as ``positions``."""
        with self._lock:
            self._calls.setdefault(operation, deque()).extend(faults)
        return self

    def on_place(self, order: CheckedOrder) -> PlaceFault | None:
        """The next scripted fault of a send."""
        del order
        with self._lock:
            return self._place.popleft() if self._place else None

    def on_call(self, operation: str) -> CallFault | None:
        """The next scripted fault of this call."""
        with self._lock:
            script = self._calls.get(operation)
            return script.popleft() if script else None
