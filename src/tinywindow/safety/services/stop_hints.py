"""What a process knows of its stops besides the database, shared between threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from tinywindow.safety.domain.kill import Latch

__all__ = ["StopHints"]


@dataclass(slots=True)
class StopHints:
    """Stops handed to the flattener, for when it cannot read the database itself.

    `detached` says that the owner was closed: the flattener ends as soon as it has nothing more
    to do. Every access is one atomic read or one write under the lock.
    """

    detached: bool = False
    _latches: dict[str, Latch] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, latch: Latch) -> None:
        """Hand a stop over."""
        with self._lock:
            self._latches[latch.id] = latch

    def drop(self, latch_id: str) -> None:
        """Take a stop back that is known to be released."""
        with self._lock:
            self._latches.pop(latch_id, None)

    def latches(self) -> tuple[Latch, ...]:
        """The stops handed over, oldest first."""
        with self._lock:
            return tuple(self._latches.values())
