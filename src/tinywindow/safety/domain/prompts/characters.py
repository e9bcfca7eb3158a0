"""Classes of characters that decide what belongs where."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

__all__ = [
    "DIRECTION_MARKS",
    "ZWJ",
    "ZWNJ",
    "has_right_to_left",
    "is_conditional",
    "is_generic_mark",
    "is_mark",
    "is_pictograph",
    "is_selector",
    "joins",
]

ZWNJ: Final = "\u200c"
ZWJ: Final = "\u200d"
DIRECTION_MARKS: Final = "\u200e\u200f\u061c"


@lru_cache(maxsize=8_192)
def is_mark(char: str) -> bool:
    """Whether the character stacks on the one before it (selectors are judged elsewhere)."""
    return (
        char != ""
        and not is_selector(char)
        and (unicodedata.category(char) in ("Mn", "Me") or unicodedata.combining(char) != 0)
    )


def is_generic_mark(char: str) -> bool:
    """Whether the mark belongs to no script, as accents and enclosures do."""
    return (
        "\u0300" <= char <= "\u036f"
        or "\u1ab0" <= char <= "\u1aff"
        or "\u1dc0" <= char <= "\u1dff"
        or "\u20d0" <= char <= "\u20ff"
    )


def is_selector(char: str) -> bool:
    """Whether the character chooses another shape of the one before it."""
    return (
        "\ufe00" <= char <= "\ufe0f"
        or "\U000e0100" <= char <= "\U000e01ef"
        or "\u180b" <= char <= "\u180d"
    )


def is_conditional(char: str) -> bool:
    """Whether the character cannot be seen, and yet is right in some places."""
    return (
        char in (ZWJ, ZWNJ)
        or char in DIRECTION_MARKS
        or "\U000e0020" <= char <= "\U000e007f"
        or is_selector(char)
    )


def is_pictograph(char: str) -> bool:
    """Whether the character is drawn as an emoji or symbol that joiners and selectors shape."""
    return (
        "\U0001f000" <= char <= "\U0001faff"
        or "\u2190" <= char <= "\u21ff"
        or "\u2300" <= char <= "\u27bf"
        or "\u2900" <= char <= "\u297f"
        or "\u2b00" <= char <= "\u2bff"
        or (char != "" and char in "\xa9\xae\u203c\u2049\u2122\u2139\u3030\u303d\u3297\u3299")
    )


def joins(char: str) -> bool:
    """Whether joiners are spelling in the character's script."""
    return (
        "\u0600" <= char <= "\u08ff"
        or "\u0900" <= char <= "\u0dff"
        or "\u1000" <= char <= "\u109f"
        or "\u1780" <= char <= "\u18af"
        or "\ufb50" <= char <= "\ufefc"
    )


def has_right_to_left(text: str) -> bool:
    """Whether a letter of a script written from right to left occurs."""
    return any(
        ("\u0590" <= char <= "\u08ff" or "\ufb1d" <= char <= "\ufefc") and char.isalpha()
        for char in text
    )
