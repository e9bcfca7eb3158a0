"""Rules: how one field's raw value is read, and what is wanted where it cannot be.

A rule is a plain function from whatever came in to the field's value; it raises `Wrong` with
the reason and with what is wanted. Rules never guess and never correct.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from tinywindow.safety.domain.money import ZERO, NotANumber, plain, to_decimal
from tinywindow.safety.domain.symbols import BadSymbol, parse_symbol
from tinywindow.safety.domain.text import exact_text

__all__ = [
    "Number",
    "NumberRule",
    "Rule",
    "Wrong",
    "choice",
    "day_start",
    "flag",
    "seconds",
    "symbols",
    "table",
    "time_zone",
    "to_ms",
    "whole",
]

Number = float | Decimal
"""A number as it was given: a float stays one, and text is read exactly."""
Rule = Callable[[object], object]

LIST_MAX: Final = 10_000
TEXT_CHARS_MAX: Final = 100_000
DAY_S: Final = 86_400
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_DAY_START: Final = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_ZONE: Final = re.compile(r"[A-Za-z0-9_+\-]+(?:/[A-Za-z0-9_+\-]+)*")


class Wrong(ValueError):
    """A value breaks its rule; the message has the reason and what is wanted."""

    def __init__(self, why: str, wanted: str) -> None:
        super().__init__(f"{why}; wanted {wanted}")


@dataclass(frozen=True, slots=True)
class NumberRule:
    """A number within bounds; a bound is None where there is none, and may be excluded."""

    wanted: str
    low: Decimal | None = None
    high: Decimal | None = None
    low_excluded: bool = False
    high_excluded: bool = False

    def __call__(self, value: object) -> Number:
        """Read the number."""
        number = self.decimal(value)
        if type(value) is float or type(value) is Decimal:
            return value
        return as_number(number)

    def decimal(self, value: object) -> Decimal:
        """Read the number exactly and hold it against the bounds."""
        try:
            number = to_decimal(value)
        except NotANumber as error:
            raise Wrong(str(error), self.wanted) from None
        if self.low is not None and (
            number < self.low or (self.low_excluded and number == self.low)
        ):
            word = "above" if self.low_excluded else "at least"
            raise Wrong(_beyond(word, self.low), self.wanted)
        if self.high is not None and (
            number > self.high or (self.high_excluded and number == self.high)
        ):
            word = "below" if self.high_excluded else "at most"
            raise Wrong(_beyond(word, self.high), self.wanted)
        return number


def _beyond(word: str, bound: Decimal) -> str:
    return f"is not {word} {plain(bound)}"


def as_number(number: Decimal) -> Number:
    """A float where it holds the number exactly as written, else the decimal itself."""
    near = float(number)
    return near if math.isfinite(near) and to_decimal(near) == number else number


def positive(wanted: str, *, high: int | None = None) -> NumberRule:
    """A number above zero, and at most `high`."""
    top = None if high is None else Decimal(high)
    return NumberRule(wanted, low=ZERO, high=top, low_excluded=True)


def whole(wanted: str, *, low: int = 1, high: int = 1_000_000_000) -> Callable[[object], int]:
    """A whole number between two bounds, both allowed."""
    bounds = NumberRule(wanted, low=Decimal(low), high=Decimal(high))

    def read(value: object) -> int:
        number = bounds.decimal(value)
        if number != number.to_integral_value():
            raise Wrong("is not a whole number", wanted)
        return int(number)

    return read


def seconds(*, high: int = DAY_S) -> Callable[[object], float]:
    """A duration in seconds, in whole milliseconds, above zero."""
    wanted = f"seconds above 0 and at most {high}, in steps of 0.001"
    bounds = positive(wanted, high=high)

    def read(value: object) -> float:
        number = bounds.decimal(value)
        if number * 1000 != (number * 1000).to_integral_value():
            raise Wrong("is finer than a millisecond", wanted)
        return float(number)

    return read


def to_ms(duration: float) -> int:
    """Seconds in whole milliseconds; `seconds` admits nothing finer."""
    return int(to_decimal(duration) * 1000)


def flag(value: object) -> bool:
    """True or false; the environment may also say yes, no, on, off, 1 and 0."""
    if value is True or value is False:
        return bool(value)
    text = (exact_text(value) or "").lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise Wrong("is neither true nor false", "true or false")


def choice(*options: str) -> Callable[[object], str]:
    """One of a few words."""
    wanted = "one of " + ", ".join(options)

    def read(value: object) -> str:
        text = exact_text(value)
        if text is None or text not in options:
            raise Wrong("is not known here", wanted)
        return text

    return read


def day_start(value: object) -> str:
    """A time of day, as `HH:MM`."""
    text = exact_text(value)
    if text is None or not _DAY_START.fullmatch(text):
        raise Wrong("is no time of day", "HH:MM between 00:00 and 23:59")
    return text


def time_zone(value: object) -> str:
    """The name of a time zone in the IANA database, such as `UTC` or `Europe/Zurich`."""
    wanted = "a time zone of the IANA database, such as UTC or Europe/Zurich"
    text = exact_text(value)
    if text is None or not _ZONE.fullmatch(text):
        raise Wrong("is no name of a time zone", wanted)
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise Wrong("is a time zone that this system does not know", wanted) from None
    return text


def symbols(value: object) -> tuple[str, ...]:
    """A list of unified symbols; text may be a JSON array, or names with commas between."""
    wanted = "a list of unified symbols such as BTC/USDT, at least one"
    items = _items(value, wanted)
    if not items:
        raise Wrong("names no symbol", wanted)
    bad: list[str] = []
    read: dict[str, None] = {}
    for item in items:
        try:
            read[parse_symbol(item).text] = None
        except BadSymbol as error:
            bad.append(str(error))
    if bad:
        raise Wrong("has bad entries: " + ", ".join(bad[:10]), wanted)
    return tuple(read)


def _items(value: object, wanted: str) -> list[object]:
    text = exact_text(value)
    if text is not None:
        if len(text) > TEXT_CHARS_MAX:
            raise Wrong("is far too long", wanted)
        if text.lstrip().startswith("["):
            value = _json(text, wanted)
        else:
            value = [part.strip() for part in text.split(",")] if text.strip() else []
    if not isinstance(value, list | tuple | set | frozenset):
        raise Wrong("is no list", wanted)
    if len(value) > LIST_MAX:
        raise Wrong(f"has more than {LIST_MAX} entries", wanted)
    return sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)


def _json(text: str, wanted: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Wrong("is no JSON", wanted) from None


def table(
    wanted: str, key: re.Pattern[str], item: Callable[[object], object]
) -> Callable[[object], dict[str, object]]:
    """A table from names of one form to values of one rule; text is a JSON object."""

    def read(value: object) -> dict[str, object]:
        text = exact_text(value)
        if text is not None:
            value = _json(text[:TEXT_CHARS_MAX], wanted)
        if not isinstance(value, Mapping):
            raise Wrong("is no table", wanted)
        if len(value) > LIST_MAX:
            raise Wrong(f"has more than {LIST_MAX} entries", wanted)
        entries = {}
        for name, inner in value.items():
            exact = exact_text(name)
            if exact is None or not key.fullmatch(exact):
                raise Wrong("has a key that is no name of an asset in upper case", wanted)
            try:
                entries[exact] = item(inner)
            except Wrong as error:
                raise Wrong(f"has a bad value at {exact}: {error}", wanted) from None
        return entries

    return read
