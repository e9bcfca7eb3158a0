"""Datetimes and milliseconds of Unix time, one made from the other exactly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["from_ms", "to_ms"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(moment: datetime) -> int:
    """An aware datetime as milliseconds of Unix time, rounded down.

    Raises:
        ValueError: it is no datetime, or has no time zone.
    """
    given: object = moment
    if not isinstance(given, datetime) or given.tzinfo is None:
        raise ValueError("a time needs a time zone; pass an aware datetime")
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_ms(ms: int) -> datetime:
    """Milliseconds of Unix time as an aware UTC datetime."""
    return _EPOCH + timedelta(milliseconds=ms)
