"""Watching the clock: both clocks are read together, and what follows is told to the gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tinywindow.safety.domain import clock_trust
from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.ports import Clock
from tinywindow.safety.services.breaker_check import newest_row_ms
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.times import to_ms

__all__ = ["ClockWatch", "Moment"]

ACTOR: Final = "circuit-breaker"

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading of both clocks; the day may roll while the wall clock is believed."""

    now: datetime
    mono_s: float
    day_may_roll: bool = True

    @property
    def now_ms(self) -> int:
        """The wall clock in Unix milliseconds."""
        return to_ms(self.now)


class ClockWatch:
    """Says whether the wall clock is believed; `owed` are audit rows that must be written."""

    __slots__ = ("_clock", "_new_id", "_trust", "owed")

    def __init__(self, clock: Clock, new_id: Callable[[], str]) -> None:
        self._clock = clock
        self._new_id = new_id
        self._trust: clock_trust.ClockTrust | None = None
        self.owed: list[AuditDraft] = []

    @property
    def believed(self) -> bool:
        """Whether the wall clock was believed when it was last read; reads nothing."""
        return self._trust is None or self._trust.trusted

    async def start(self, context: SafetyContext) -> None:
        """Compare the wall clock with the newest row, once.

        Raises:
            StoreUnavailable: the newest row cannot be read.
        """
        if self._trust is not None:
            return
        newest = await context.store.read(newest_row_ms)
        if self._trust is None:
            moment = self._read()
            trust = clock_trust.start(moment.now_ms, _ms(moment.mono_s), newest_row_ms=newest)
            self._take(context, trust, before=True)

    def moment(self, context: SafetyContext | None) -> Moment:
        """Read both clocks, and take on what that says about the wall clock."""
        moment = self._read()
        if self._trust is None or context is None:
            return moment
        before = self._trust.trusted
        trust = clock_trust.observe(self._trust, moment.now_ms, _ms(moment.mono_s))
        self._take(context, trust, before=before)
        return Moment(moment.now, moment.mono_s, day_may_roll=trust.trusted)

    def vouch(self, context: SafetyContext) -> None:
        """An operator says that the wall clock is right; whoever calls has audited it."""
        moment = self._read()
        self._trust = clock_trust.vouch(moment.now_ms, _ms(moment.mono_s))
        context.faults.pop(Reason.CLOCK_UNTRUSTED, None)

    def _read(self) -> Moment:
        return Moment(self._clock.now(), self._clock.monotonic())

    def _take(self, context: SafetyContext, trust: clock_trust.ClockTrust, *, before: bool) -> None:
        self._trust = trust
        if trust.trusted is before:
            return
        if trust.trusted:
            context.faults.pop(Reason.CLOCK_UNTRUSTED, None)
        else:
            context.faults[Reason.CLOCK_UNTRUSTED] = trust.note
            _log.error("clock_untrusted", note=trust.note)
        data = {"trusted": trust.trusted, "reason": trust.note or "five minutes of agreement"}
        self.owed.append(
            AuditDraft(self._new_id(), self._clock.now(), EventType.CLOCK_UNTRUSTED, ACTOR, data)
        )


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
