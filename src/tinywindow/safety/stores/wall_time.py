"""Two times in one row: what is written on a market's time also tells the wall's."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tinywindow.safety.domain.audit import AuditDraft, utc_text
from tinywindow.safety.ports import Clock

__all__ = ["WALL_TIME", "stamped"]

WALL_TIME: Final = "wall_time"


def stamped(draft: AuditDraft, wall: Clock | None) -> AuditDraft:
    """The draft with the wall clock's time in its data; as it is where no wall clock is given."""
    if wall is None:
        return draft
    return replace(draft, data={**draft.data, WALL_TIME: utc_text(wall.now())})
