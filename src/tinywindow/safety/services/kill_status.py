"""From what was seen to a status and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.domain.kill import KillState, KillSwitchMode, Latch
from tinywindow.safety.ports import Clock
from tinywindow.safety.services.flattener import Flattener
from tinywindow.safety.services.kill_report import (
    KillReport,
    KillSwitchStatus,
    VenueReport,
    overall_state,
)
from tinywindow.safety.services.stop_register import Seen
from tinywindow.safety.services.times import to_ms

__all__ = ["StatusReader"]

RECORD_AGE_MAX_MS: Final = 24 * 3_600_000
"""How long a venue that another process flattened is still waited for at a later stop."""


@dataclass(slots=True)
class StatusReader:
    """Joins what this process's flattener says with what others kept in the database."""

    clock: Clock
    own_venues: tuple[str, ...]
    flattener: Flattener | None

    def status(self, seen: Seen) -> KillSwitchStatus:
        """The status."""
        if not seen.active:
            return KillSwitchStatus(active=False)
        mode = seen.mode or KillSwitchMode.HALT_ONLY
        latches = seen.latches
        wanted = _asking(latches, mode)
        venues = self.venues(seen, wanted)
        shown = next((latch for latch in latches if latch.mode is mode), None)
        reason = shown.reason if shown is not None else self._other_reason(seen)
        return KillSwitchStatus(
            active=True,
            mode=mode,
            reason=reason,
            activated_at=None if shown is None else shown.activated_at,
            actor=None if shown is None else shown.actor,
            source=None if shown is None else shown.source,
            state=overall_state(mode, wanted, venues),
            venues=venues,
            latches=latches,
            unknown=seen.unknown,
        )

    def _other_reason(self, seen: Seen) -> str:
        if seen.ring is not None:
            return "the kill key stands in Redis"
        if seen.file:
            return "the file KILL stands in the data directory"
        return f"{Reason.STATE_UNKNOWN.value}: {'; '.join(seen.unknown)}"

    def report(
        self, seen: Seen, latch_id: str, errors: tuple[str, ...], *, durable: bool
    ) -> KillReport:
        """The report."""
        status = self.status(seen)
        return KillReport(
            latch_id=latch_id,
            mode=status.mode or KillSwitchMode.HALT_ONLY,
            durable=durable,
            state=status.state,
            venues=status.venues,
            errors=errors,
        )

    def reported(self, seen: Seen) -> bool:
        """Whether every venue of this process has carried out the stops in `seen`, once."""
        own = {} if self.flattener is None else self.flattener.reports
        mode = seen.mode
        if mode is None:
            return True
        wanted = _asking(seen.latches, mode)
        for venue in self.own_venues:
            report = own.get(venue)
            if report is None or not wanted <= set(report.latch_ids) or report.rounds == 0:
                return False
            if mode is KillSwitchMode.CLOSE_POSITIONS and report.state is not KillState.FLAT:
                return False
        return True

    def venues(self, seen: Seen, wanted: frozenset[str]) -> Mapping[str, VenueReport]:
        """The newest report of each venue that this stop concerns."""
        found = {venue: VenueReport(venue, KillState.CLOSING) for venue in self.own_venues}
        if seen.view is not None:
            now_ms = to_ms(self.clock.now())
            times = zip(seen.view.records, seen.view.record_times_ms, strict=True)
            for record, at_ms in times:
                recent = abs(now_ms - at_ms) <= RECORD_AGE_MAX_MS
                if record.venue in found or wanted <= set(record.latch_ids) or recent:
                    found[record.venue] = record
        own = {} if self.flattener is None else self.flattener.reports
        for venue, report in own.items():
            known = found[venue]
            covered = wanted <= set(known.latch_ids)
            if wanted <= set(report.latch_ids) and (self._at_work() or not covered):
                found[venue] = report
        return found

    def _at_work(self) -> bool:
        return self.flattener is not None and self.flattener.running


def _asking(latches: tuple[Latch, ...], mode: KillSwitchMode) -> frozenset[str]:
    """The stops that ask for the mode in force."""
    return frozenset(latch.id for latch in latches if latch.standing and latch.mode is mode)
