"""Latches and trips: the stops, which are added and cleared by name only."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import bindparam, func, select, update

from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.domain.records import Trip
from tinywindow.safety.stores import schema
from tinywindow.safety.stores.sql.engine import Engine, Row
from tinywindow.safety.stores.sql.part import (
    Part,
    as_int,
    as_int_or_none,
    as_one_of,
    as_text_or_none,
    first,
)
from tinywindow.safety.stores.sql.rows import Writer

__all__ = ["StopsPart", "read_latches", "read_trip"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_L = schema.latches.c
_T = schema.trips.c
_LATCHES: Final = Writer.of(schema.latches, key=("id",))
_TRIPS: Final = Writer.of(schema.trips, key=("id",))
_LATCH_COLUMNS: Final = tuple(schema.latches.columns)
_TRIP_COLUMNS: Final = tuple(column for column in schema.trips.columns if column.name != "standing")

_STANDING: Final = (
    select(*_LATCH_COLUMNS).where(_L.released_ms.is_(None)).order_by(_L.activated_ms, _L.id)
)
_LATCH: Final = select(*_LATCH_COLUMNS).where(_L.id == bindparam("p_id"))
_LAST_RELEASE: Final = select(func.max(_L.released_ms))
_RELEASE: Final = (
    update(schema.latches)
    .where(_L.id == bindparam("p_id"), _L.released_ms.is_(None))
    .values(
        released_ms=bindparam("p_at_ms"),
        released_by=bindparam("p_by"),
        release_reason=bindparam("p_reason"),
    )
)
_STANDING_TRIP: Final = select(*_TRIP_COLUMNS).where(_T.standing == 1)
_LAST_TRIP: Final = select(*_TRIP_COLUMNS).order_by(_T.tripped_ms.desc(), _T.id.desc()).limit(1)
_CLEAR_TRIP: Final = (
    update(schema.trips)
    .where(_T.id == bindparam("p_id"), _T.standing == 1)
    .values(standing=None, cleared_ms=bindparam("p_at_ms"), cleared_by=bindparam("p_by"))
)


def to_datetime(ms: int) -> datetime:
    """Milliseconds of Unix time as an aware UTC datetime, exactly."""
    return _EPOCH + timedelta(milliseconds=ms)


def to_ms(moment: datetime) -> int:
    """An aware datetime as milliseconds of Unix time, rounded down."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def read_latches(db: Engine) -> tuple[Latch, ...]:
    """Every latch that stands, oldest first."""
    return tuple(_latch(row) for row in db.rows(_STANDING))


def read_trip(db: Engine) -> Trip | None:
    """The standing trip, or None."""
    row = first(db.rows(_STANDING_TRIP))
    return None if row is None else _trip(row)


def _latch(row: Row) -> Latch:
    released = as_int_or_none(row[6])
    return Latch(
        id=str(row[0]),
        mode=as_one_of(KillSwitchMode, row[1]),
        reason=str(row[2]),
        actor=str(row[3]),
        source=as_one_of(LatchSource, row[4]),
        activated_at=to_datetime(as_int(row[5])),
        released_at=None if released is None else to_datetime(released),
        released_by=as_text_or_none(row[7]),
        release_reason=as_text_or_none(row[8]),
    )


def _trip(row: Row) -> Trip:
    return Trip(
        id=str(row[0]),
        metric=str(row[1]),
        value=str(row[2]),
        limit=str(row[3]),
        sentence=str(row[4]),
        tripped_ms=as_int(row[5]),
        cleared_ms=as_int_or_none(row[6]),
        cleared_by=as_text_or_none(row[7]),
    )


class StopsPart(Part):
    """The part of a transaction that holds latches and trips."""

    def standing_latches(self) -> tuple[Latch, ...]:
        """Every latch that stands, oldest first."""
        return read_latches(self._db)

    def latch(self, latch_id: str) -> Latch | None:
        """One latch by its id, standing or released."""
        row = first(self._db.rows(_LATCH, {"p_id": latch_id}))
        return None if row is None else _latch(row)

    def add_latch(self, latch: Latch) -> bool:
        """Latch a stop: grows the epoch and stops trading. False when the id was known."""
        if self.latch(latch.id) is not None:
            return False
        _LATCHES.add(
            self._db,
            {
                "id": latch.id,
                "mode": latch.mode.value,
                "reason": latch.reason,
                "actor": latch.actor,
                "source": latch.source.value,
                "activated_ms": to_ms(latch.activated_at),
                "released_ms": None if latch.released_at is None else to_ms(latch.released_at),
                "released_by": latch.released_by,
                "release_reason": latch.release_reason,
            },
        )
        if latch.standing:
            self._new_epoch()
            self._pending.latches = read_latches(self._db)
        return True

    def release_latch(self, latch_id: str, *, at_ms: int, by: str, reason: str) -> bool:
        """Turn one standing latch into a tombstone. False when it did not stand."""
        changed = self._db.run(
            _RELEASE, {"p_id": latch_id, "p_at_ms": at_ms, "p_by": by, "p_reason": reason}
        )
        if changed:
            self._touch()
            self._pending.latches = read_latches(self._db)
        return changed == 1

    def last_release_ms(self) -> int | None:
        """When a latch was last released, or None."""
        return as_int_or_none(self._db.rows(_LAST_RELEASE)[0][0])

    def standing_trip(self) -> Trip | None:
        """The breaker's standing trip, or None."""
        return read_trip(self._db)

    def last_trip(self) -> Trip | None:
        """The newest trip, standing or cleared."""
        row = first(self._db.rows(_LAST_TRIP))
        return None if row is None else _trip(row)

    def add_trip(self, trip: Trip) -> bool:
        """Latch a trip: grows the epoch and stops trading. False when one stands already."""
        if self.standing_trip() is not None:
            return False
        _TRIPS.add(
            self._db,
            {
                "id": trip.id,
                "metric": trip.metric,
                "value": trip.value,
                "limit_value": trip.limit,
                "sentence": trip.sentence,
                "tripped_ms": trip.tripped_ms,
                "cleared_ms": None,
                "cleared_by": None,
                "standing": 1,
            },
        )
        self._new_epoch()
        self._pending.trip = (replace(trip, cleared_ms=None, cleared_by=None),)
        return True

    def clear_trip(self, trip_id: str, *, at_ms: int, by: str) -> bool:
        """Clear the standing trip by its id. False when that trip does not stand."""
        changed = self._db.run(_CLEAR_TRIP, {"p_id": trip_id, "p_at_ms": at_ms, "p_by": by})
        if changed:
            self._touch()
            self._pending.trip = ()
        return changed == 1
