"""Any value becomes a capped text, without running a stranger's code.

Length is cut before anything else looks at the text, so that no later step can be made slow.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, cast

from tinywindow.safety.domain.text import exact_text, is_kind, shown, type_name

__all__ = ["CUT_MARK", "as_text", "capped"]

CUT_MARK: Final = "\u2026"
"""Ends a text that was cut, so that a reader knows it went on."""

UTF8_BYTES_MAX: Final = 4
"""Bytes that one character takes at most."""


def as_text(value: object, chars_max: int) -> str:
    """Read `value` as text of at most `chars_max` characters; never raises.

    Text is taken as it is, bytes are read as UTF-8 with a replacement for what is not, numbers
    are written out, and nothing is the empty text. Anything else stands as its type's name: its
    own `__str__` is code that this layer does not run.
    """
    text = exact_text(value)
    if text is not None:
        return capped(text, chars_max)
    bytes_max = UTF8_BYTES_MAX * (chars_max + 1)
    if is_kind(value, bytes):
        head = bytes.__getitem__(cast("bytes", value), slice(bytes_max))
        return capped(head.decode("utf-8", "replace"), chars_max)
    if is_kind(value, bytearray):
        head = bytes(bytearray.__getitem__(cast("bytearray", value), slice(bytes_max)))
        return capped(head.decode("utf-8", "replace"), chars_max)
    if value is None:
        return ""
    if is_kind(value, int) or is_kind(value, float) or is_kind(value, Decimal):
        return capped(shown(value), chars_max)
    return capped(f"({type_name(value)})", chars_max)


def capped(text: str, chars_max: int) -> str:
    """The text itself, or its beginning and a mark that says it was cut."""
    if len(text) <= chars_max:
        return text
    return text[: chars_max - 1] + CUT_MARK
