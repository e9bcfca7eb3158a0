"""The order of the steps, which is what makes the result safe.

Length is cut first, hidden characters go next, and structure is escaped last, on text from which
nothing more is deleted: what deletion closes up is seen by the escape.
"""

from __future__ import annotations

import re
from typing import Final

from tinywindow.safety.domain.prompts.hidden import without_hidden
from tinywindow.safety.domain.prompts.kinds import FieldKind, chars_max_of, is_one_line
from tinywindow.safety.domain.prompts.reading import as_text
from tinywindow.safety.domain.prompts.structure import escape

__all__ = ["UNNAMED_TOKEN", "sanitized"]

UNNAMED_TOKEN: Final = "unnamed token"  # noqa: S105 - the name of a coin, not a secret
"""Stands for a token name that is outside the alphabet; says nothing an attacker chose."""

_BLANKS: Final = re.compile(r"\s+")
_TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9$][A-Za-z0-9 ._()/+$&'\-]*")
_TOKEN_WORDS_MAX: Final = 8


def sanitized(value: object, *, kind: FieldKind, chars_max: int) -> str:
    """Text that is safe to place in a prompt as data; total, bounded, and a fixed point.

    Args:
        value: anything; what is not text is read as `as_text` says.
        kind: the field's kind, which sets cap and form.
        chars_max: the cap in characters, before and after.
    """
    text = without_hidden(as_text(value, chars_max_of(kind, chars_max)))
    if is_one_line(kind):
        text = _BLANKS.sub(" ", text).strip()
    if kind is FieldKind.TOKEN_NAME:
        return _token_name(text)
    # An escape may leave a selector or mark without what it belonged to; hence the last step.
    return without_hidden(escape(text))


def _token_name(text: str) -> str:
    if text == "":
        return ""
    if _TOKEN_NAME.fullmatch(text) and len(text.split(" ")) <= _TOKEN_WORDS_MAX:
        return text
    return UNNAMED_TOKEN
