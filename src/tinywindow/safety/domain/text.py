"""Text from outside: read without running it, and quoted so that it can do no harm.

A value that somebody hands in may have a `__repr__` that raises, a `__class__` that lies, or a
million characters. Nothing here calls a method of the value's own class: built-in types are
read through their own methods, and everything else is named by its type only.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, cast

__all__ = ["SHOWN_CHARS_MAX", "exact_text", "is_kind", "shown", "type_name"]

SHOWN_CHARS_MAX: Final = 40
"""Characters of a value that are quoted; what was clipped ends in `...`."""
QUOTED_CHARS_MAX: Final = 2 * SHOWN_CHARS_MAX
"""Characters of a quotation after escaping."""
INT_BITS_MAX: Final = 256
"""Integers beyond this are described, since writing them out takes quadratic time."""

# Read from the slot itself: a metaclass may define a `__name__` of its own.
_name_of_type: Final = type.__dict__["__name__"].__get__


def is_kind(value: object, kind: type) -> bool:
    """Say whether `value` is an instance of the concrete class `kind`, whatever it claims to be.

    `isinstance` believes a `__class__` property; between two real types, nothing is asked.
    """
    return issubclass(type(value), kind)


def exact_text(value: object) -> str | None:
    """Return `value` as a plain `str` if it is one, a subclass included, and None otherwise."""
    return str.__str__(cast("str", value)) if is_kind(value, str) else None


def type_name(value: object) -> str:
    """Name the type of `value` in a few printable ASCII characters."""
    return _clipped(ascii(_name_of_type(type(value))[: SHOWN_CHARS_MAX + 1])[1:-1], SHOWN_CHARS_MAX)


def shown(value: object) -> str:
    """Quote `value` on one line of at most 83 printable ASCII characters.

    Text is quoted and clipped, numbers are written out where they are short, and anything else
    is shown as its type in angle brackets.
    """
    text = exact_text(value)
    if text is not None:
        quoted = ascii(text[:SHOWN_CHARS_MAX])
        whole = len(text) <= SHOWN_CHARS_MAX
        return _clipped(quoted if whole else quoted + "...", QUOTED_CHARS_MAX)
    if value is None or value is True or value is False:
        return str(value)
    if is_kind(value, int):
        return _shown_int(int.__int__(cast("int", value)))
    if is_kind(value, float):
        return float.__repr__(cast("float", value))
    if is_kind(value, Decimal):
        return _clipped(Decimal.__str__(cast("Decimal", value)), SHOWN_CHARS_MAX)
    return f"<{type_name(value)}>"


def _shown_int(number: int) -> str:
    bits = number.bit_length()
    if bits > INT_BITS_MAX:
        return f"<int of {bits} bits>"
    return _clipped(int.__repr__(number), SHOWN_CHARS_MAX)


def _clipped(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else text[:chars_max] + "..."
