"""Which processes are there, and in which roles: small texts in Redis that expire.

For people, dashboards and `doctor`. Nothing in TinyWindow decides by them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from tinywindow.safety.ports import Clock

__all__ = ["HEARTBEAT_INTERVAL_S", "HEARTBEAT_PREFIX", "HEARTBEAT_TTL_S", "Heartbeat", "TextBoard"]

HEARTBEAT_PREFIX: Final = "tinywindow:heartbeat:"
"""Followed by host, process id and a random part; the value is one JSON text."""
HEARTBEAT_INTERVAL_S: Final = 1.0
HEARTBEAT_TTL_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 0.5


@runtime_checkable
class TextBoard(Protocol):
    """Where a text can be left for others, for a while."""

    async def put(self, key: str, text: str, *, ttl_s: float, timeout_s: float) -> None:
        """Leave a text under a key."""
        ...


@dataclass(slots=True)
class Heartbeat:
    """One object's beat; `roles` grows as the object takes them on.

    Roles: `kill-switch` watches for stops, `flattener` can close positions, `gate` sends orders,
    `circuit-breaker` measures trading.
    """

    clock: Clock
    unique: str
    roles: set[str]
    active: Callable[[], bool] = field(default=lambda: False)

    @property
    def key(self) -> str:
        """The key of this beat."""
        return f"{HEARTBEAT_PREFIX}{os.uname().nodename}:{os.getpid()}:{self.unique[-8:]}"

    def text(self) -> str:
        """What stands under the key."""
        body = {
            "at": self.clock.now().isoformat(),
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "roles": sorted(self.roles),
            "stopped": self.active(),
            "tinywindow": 1,
        }
        return json.dumps(body, sort_keys=True)

    async def write(self, board: TextBoard) -> None:
        """Beat once.

        Raises:
            DoorbellUnavailable: it was not written.
        """
        await board.put(self.key, self.text(), ttl_s=HEARTBEAT_TTL_S, timeout_s=WRITE_TIMEOUT_S)
