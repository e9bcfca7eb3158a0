"""The kinds of field that untrusted text arrives in, and what each kind may hold.

A headline of twenty thousand characters is no headline. The kind sets the cap and says whether
line breaks belong there; both shrink what an attacker can write and cost an honest text nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["FieldKind", "chars_max_of", "is_one_line"]


class FieldKind(Enum):
    """What a text is, which decides its cap and its form."""

    HEADLINE = "headline"
    BODY = "body"
    TOKEN_NAME = "token_name"  # noqa: S105 - the name of a coin, not a secret
    NOTE = "note"


CHARS_MAX: Final = {
    FieldKind.HEADLINE: 300,
    FieldKind.TOKEN_NAME: 64,
    FieldKind.NOTE: 2_000,
}
"""Caps by kind. A body has none of its own: the sanitizer's `max_chars` is its cap."""


def chars_max_of(kind: FieldKind, limit: int) -> int:
    """The cap of a field in characters: the smaller of its kind's and the sanitizer's."""
    return min(CHARS_MAX.get(kind, limit), limit)


def is_one_line(kind: FieldKind) -> bool:
    """Whether line breaks become spaces: a headline and a token name are one line."""
    return kind in (FieldKind.HEADLINE, FieldKind.TOKEN_NAME)
