"""What stands on the doorbell's key: our envelopes, and how anything else is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from tinywindow.safety.domain.kill import KillSwitchMode, Latch
from tinywindow.safety.stores import fast_files
from tinywindow.safety.stores.latch_fields import latch_of, latch_to_fields

__all__ = ["RING_BYTES_MAX", "RING_KEY", "RingValue", "envelope", "enveloped", "ring_of"]

RING_KEY: Final = "tinywindow:kill_switch:active"
RING_BYTES_MAX: Final = 4096
"""What is read of the key's value."""
REASON_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class RingValue:
    """What was found on the key; implements `ports.Ring`."""

    mode: KillSwitchMode
    latch_id: str | None
    raw: bytes


def envelope(latch: Latch) -> bytes:
    """The value that names a latch: JSON whose `mode` any reader understands."""
    fields = latch_to_fields(latch)
    fields["reason"] = latch.reason[:REASON_CHARS_MAX]
    fields["actor"] = latch.actor[:REASON_CHARS_MAX]
    body = {"tinywindow": 1, "mode": latch.mode.value, "latches": [fields]}
    return fast_files.canonical(body).encode()


def enveloped(raw: bytes) -> Latch | None:
    """The latch that an envelope of ours names, None for any other value."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("tinywindow") != 1:
        return None
    latches = value.get("latches")
    if not isinstance(latches, list) or len(latches) != 1 or not fast_files.is_latch(latches[0]):
        return None
    return latch_of(latches[0])


def ring_of(raw: bytes) -> RingValue:
    """Read the key's value, whatever it is; anything unreadable asks for HALT_ONLY."""
    latch = enveloped(raw)
    if latch is not None:
        return RingValue(latch.mode, latch.id, raw)
    return RingValue(KillSwitchMode(fast_files.mode_of(raw)), None, raw)
