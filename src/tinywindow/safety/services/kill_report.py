"""What a stop did: a report for people and programs, and its durable form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final

from tinywindow.safety.domain.audit import canonical_json
from tinywindow.safety.domain.kill import KillState, KillSwitchMode, Latch, LatchSource
from tinywindow.safety.domain.money import ZERO, plain
from tinywindow.safety.domain.records import CloseRecord
from tinywindow.safety.services.times import to_ms

__all__ = [
    "KillReport",
    "KillSwitchStatus",
    "PositionReport",
    "VenueReport",
    "overall_state",
    "record_of",
    "venue_report_of",
]

_NOTICED: Final = frozenset({LatchSource.FILE, LatchSource.JOURNAL, LatchSource.REDIS})

LIST_MAX: Final = 500
"""Order ids and errors kept in one venue's report."""


@dataclass(frozen=True, slots=True)
class PositionReport:
    """One position of a close, in base units: what was wanted, sent, filled, and is left.

    `left` that is below the venue's smallest size is `dust`. `error` is the last one.
    """

    symbol: str
    leg: str = "net"
    wanted: Decimal = ZERO
    sent: Decimal = ZERO
    filled: Decimal = ZERO
    left: Decimal = ZERO
    dust: bool = False
    error: str | None = None

    def to_data(self) -> dict[str, object]:
        """The report as plain data; decimals are text."""
        return {
            "symbol": self.symbol,
            "leg": self.leg,
            "wanted": plain(self.wanted),
            "sent": plain(self.sent),
            "filled": plain(self.filled),
            "left": plain(self.left),
            "dust": self.dust,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class VenueReport:
    """How far a stop is on one venue.

    `cancelled` are client order ids; `resting` how many orders that the stop wants gone still
    rest; `unresolved` how many sends have no known outcome; `latch_ids` the stops it serves;
    `rounds` how often the venue was gone through for them.
    """

    venue: str
    state: KillState
    positions: tuple[PositionReport, ...] = ()
    cancelled: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    resting: int = 0
    unresolved: int = 0
    latch_ids: tuple[str, ...] = ()
    rounds: int = 0

    @property
    def flat(self) -> bool:
        """Whether the venue was proven flat."""
        return self.state is KillState.FLAT

    def to_data(self) -> dict[str, object]:
        """The report as plain data."""
        return {
            "venue": self.venue,
            "state": self.state.value,
            "positions": [position.to_data() for position in self.positions],
            "cancelled": list(self.cancelled),
            "errors": list(self.errors),
            "resting": self.resting,
            "unresolved": self.unresolved,
            "latch_ids": list(self.latch_ids),
            "rounds": self.rounds,
        }


def record_of(report: VenueReport, *, now_ms: int) -> CloseRecord:
    """The durable form of a venue's report."""
    return CloseRecord(report.venue, report.state.value, canonical_json(report.to_data()), now_ms)


def venue_report_of(record: CloseRecord) -> VenueReport:
    """Read a venue's report back from its durable form."""
    data = json.loads(record.report)
    return VenueReport(
        venue=record.venue,
        state=KillState(record.state),
        positions=tuple(_position(item) for item in data["positions"]),
        cancelled=tuple(data["cancelled"]),
        errors=tuple(data["errors"]),
        resting=data["resting"],
        unresolved=data["unresolved"],
        latch_ids=tuple(data["latch_ids"]),
        rounds=data["rounds"],
    )


def _position(data: Mapping[str, object]) -> PositionReport:
    error = data["error"]
    return PositionReport(
        symbol=str(data["symbol"]),
        leg=str(data["leg"]),
        wanted=Decimal(str(data["wanted"])),
        sent=Decimal(str(data["sent"])),
        filled=Decimal(str(data["filled"])),
        left=Decimal(str(data["left"])),
        dust=bool(data["dust"]),
        error=None if error is None else str(error),
    )


@dataclass(frozen=True, slots=True)
class KillReport:
    """What `activate` did, as far as it is; closing goes on behind it.

    `mode` is the mode in force, which may be stronger than the one asked for. `durable` says
    that the latch is in the database; otherwise it is in the journal, and merged later.
    """

    latch_id: str
    mode: KillSwitchMode
    durable: bool
    state: KillState
    venues: Mapping[str, VenueReport] = field(default_factory=dict)
    errors: tuple[str, ...] = ()

    @property
    def flat(self) -> bool:
        """Whether every venue was proven flat; never true without a venue."""
        return self.state is KillState.FLAT

    def to_data(self) -> dict[str, object]:
        """The report as plain data."""
        return {
            "latch_id": self.latch_id,
            "mode": self.mode.value,
            "durable": self.durable,
            "state": self.state.value,
            "flat": self.flat,
            "venues": {name: venue.to_data() for name, venue in self.venues.items()},
            "errors": list(self.errors),
        }


@dataclass(frozen=True, slots=True)
class KillSwitchStatus:
    """Whether a stop is in force, why, and how far it is.

    `latches` are the standing stops that this status shows; passed as `seen=` to a release, it
    clears those and no other. `unknown` says what could not be read: then the switch is active
    with reason `STATE_UNKNOWN`, without a latch.
    """

    active: bool
    mode: KillSwitchMode | None = None
    reason: str = ""
    activated_at: datetime | None = None
    actor: str | None = None
    source: LatchSource | None = None
    state: KillState = KillState.INACTIVE
    venues: Mapping[str, VenueReport] = field(default_factory=dict)
    latches: tuple[Latch, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def latch_ids(self) -> tuple[str, ...]:
        """The ids of the stops that this status shows."""
        return tuple(latch.id for latch in self.latches)

    def latch_ids_until(self, asked_at: datetime) -> tuple[str, ...]:
        """The ids of the stops that stood when a release was asked for; a later one stands.

        What lay in the file, the journal or Redis has no time that can be compared with ours:
        its latch tells when it was noticed.
        """
        return tuple(
            latch.id
            for latch in self.latches
            if latch.source in _NOTICED or to_ms(latch.activated_at) <= to_ms(asked_at)
        )

    def to_data(self) -> dict[str, object]:
        """The status as plain data; times are datetimes in UTC."""
        return {
            "active": self.active,
            "mode": None if self.mode is None else self.mode.value,
            "reason": self.reason,
            "activated_at": self.activated_at,
            "actor": self.actor,
            "source": None if self.source is None else self.source.value,
            "state": self.state.value,
            "venues": {name: venue.to_data() for name, venue in self.venues.items()},
            "latch_ids": list(self.latch_ids),
            "unknown": list(self.unknown),
        }


def overall_state(
    mode: KillSwitchMode | None, latch_ids: frozenset[str], venues: Mapping[str, VenueReport]
) -> KillState:
    """How far a stop is over all venues; `latch_ids` are those that ask for closing."""
    if mode is None:
        return KillState.INACTIVE
    if mode is KillSwitchMode.HALT_ONLY:
        return KillState.HALTED
    states = [
        venue.state if latch_ids <= set(venue.latch_ids) else KillState.CLOSING
        for venue in venues.values()
    ]
    if KillState.INCOMPLETE in states:
        return KillState.INCOMPLETE
    if states and all(state is KillState.FLAT for state in states):
        return KillState.FLAT
    return KillState.CLOSING
