"""What the standing stops ask of a venue."""

from __future__ import annotations

from dataclasses import dataclass

from tinywindow.safety.domain.kill import KillSwitchMode, Latch, effective_mode
from tinywindow.safety.ports import Tx

__all__ = ["Directive", "directive_of", "unmerged"]


@dataclass(frozen=True, slots=True)
class Directive:
    """What the standing stops ask of a venue; nothing where `mode` is None.

    `latch_ids` are the stops that ask for it; a breaker's trip has none, and cancels entries.
    """

    mode: KillSwitchMode | None = None
    latch_ids: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """How much it asks for."""
        return -1 if self.mode is None else self.mode.rank


def directive_of(latches: tuple[Latch, ...], *, tripped: bool) -> Directive:
    """What a set of stops asks for."""
    mode = effective_mode(latches)
    if mode is None:
        return Directive(KillSwitchMode.HALT_ONLY) if tripped else Directive()
    ids = {latch.id for latch in latches if latch.standing and latch.mode is mode}
    return Directive(mode, tuple(sorted(ids)))


def unmerged(tx: Tx, hints: tuple[Latch, ...]) -> tuple[Latch, ...]:
    """The stops of this process that the database does not know yet."""
    return tuple(latch for latch in hints if tx.latch(latch.id) is None)
