"""Latches as plain fields: the shape in which files, journal and doorbell carry them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource

__all__ = ["activation_draft", "latch_of", "latch_to_fields"]

ROW_ID_CHARS_MAX: Final = 64
"""As long as the id of an audit row may be; PostgreSQL refuses a longer one."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def latch_to_fields(latch: Latch) -> dict[str, object]:
    """A latch as plain fields."""
    return {
        "id": latch.id,
        "mode": latch.mode.value,
        "reason": latch.reason,
        "actor": latch.actor,
        "source": latch.source.value,
        "activated_ms": (latch.activated_at - _EPOCH) // _MS,
    }


def latch_of(fields: Mapping[str, object]) -> Latch:
    """Read a latch from plain fields that were checked by `fast_files.is_latch`."""
    source = str(fields["source"])
    known = source in LatchSource.__members__
    return Latch(
        id=str(fields["id"]),
        mode=KillSwitchMode(str(fields["mode"])),
        reason=str(fields["reason"]),
        actor=str(fields["actor"]),
        source=LatchSource(source) if known else LatchSource.FILE,
        activated_at=_EPOCH + int(str(fields["activated_ms"])) * _MS,
    )


def activation_draft(latch: Latch) -> AuditDraft:
    """The audit row of a latch; its id follows from the latch's, so there is only ever one."""
    row_id = f"activate-{latch.id}"
    if len(row_id) > ROW_ID_CHARS_MAX:
        row_id = f"activate-{hashlib.sha256(latch.id.encode()).hexdigest()[:32]}"
    return AuditDraft(
        id=row_id,
        time=latch.activated_at,
        event_type=EventType.KILL_SWITCH_ACTIVATE,
        actor=latch.actor,
        data={
            "latch_id": latch.id,
            "mode": latch.mode.value,
            "reason": latch.reason,
            "source": latch.source.value,
        },
    )
