"""What a reader cannot see is taken out; what a script or an emoji needs stays.

Hidden characters carry messages to a model past the human who reads the same text, or split a
word so that no pattern finds it. They go in two steps. The first looks at each character alone.
The second looks at joiners, selectors, direction marks, flag tags and combining marks, which are
right in one place and smuggled in another, and judges each by the character kept before it and
the one that follows. A neighbour that could itself be taken out never counts, and therefore the
result is a fixed point.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from tinywindow.safety.domain.prompts.characters import (
    DIRECTION_MARKS,
    ZWJ,
    ZWNJ,
    has_right_to_left,
    is_conditional,
    is_generic_mark,
    is_mark,
    is_pictograph,
    joins,
)

__all__ = ["FLAG", "GENERIC_MARKS_MAX", "MARKS_MAX", "without_hidden"]

GENERIC_MARKS_MAX: Final = 2
"""Accents in a row on one letter; Vietnamese needs two."""
MARKS_MAX: Final = 8
"""Marks of any script in a row; bounds the quadratic step of Unicode normalisation."""

_KEYCAP: Final = "\u20e3"
_REPLACEMENT: Final = "\ufffd"

_NOT_PLAIN: Final = re.compile(r"[^\t\n\x20-\x7e]")
_TERMINAL_SEQUENCE: Final = re.compile("(?:\x1b\\[|\x9b)[0-9;:?]{0,32}[A-Za-z]")
FLAG: Final = re.compile(
    "\U0001f3f4(?:\U000e0067\U000e0062(?:"
    "\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074|\U000e0077\U000e006c\U000e0073"
    ")|(?:\U000e0075\U000e0073|\U000e0063\U000e0061)[\U000e0061-\U000e007a]{2})\U000e007f"
)
"""England, Scotland, Wales, and the states and provinces: a closed list carries no message."""

_BREAKS: Final = frozenset("\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
_BLANKS: Final = frozenset("\u2800\u3164\uffa0")
_NOTHING: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180e\u2065")
_SHOWN_FORMATS: Final = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u0890\u0891\u08e2\U000110bd\U000110cd"
)
"""Format characters that draw something: number signs and the end of a verse."""


def without_hidden(text: str) -> str:
    """Remove what cannot be seen, keep every word; the result is a fixed point.

    Line breaks of every kind become line feeds, blanks that pose as letters become spaces, and
    what has no agreed meaning (lone surrogates, private use, unassigned) becomes U+FFFD.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not _NOT_PLAIN.search(text):
        return text
    text = _TERMINAL_SEQUENCE.sub("", text)
    return _fitting(_NOT_PLAIN.sub(lambda found: _alone(found[0]), text))


@lru_cache(maxsize=8_192)
def _alone(char: str) -> str:
    """What stands for a character that is judged without its neighbours."""
    if char in _BREAKS:
        return "\n"
    if char in _BLANKS:
        return " "
    if char in _NOTHING:
        return ""
    if is_conditional(char) or char in _SHOWN_FORMATS:
        return char
    code = ord(char)
    if 0xE0000 <= code <= 0xE0FFF or 0xFFF0 <= code <= 0xFFFB:
        return ""
    category = unicodedata.category(char)
    if category in ("Cc", "Cf"):
        return ""
    if category == "Cn" and 0x1F000 <= code <= 0x1FAFF:
        return char  # Reserved for emoji newer than this Python.
    return _REPLACEMENT if category in ("Cs", "Co", "Cn") else char


def _fitting(text: str) -> str:
    """Keep each conditional character only where it belongs."""
    flags = {found.start(): found.end() for found in FLAG.finditer(text)}
    right_to_left = has_right_to_left(text)
    kept: list[str] = []
    before = ""
    marks = generic = 0
    position, end = 0, len(text)
    while position < end:
        char = text[position]
        after = text[position + 1 : position + 2]
        flag_end = flags.get(position)
        if flag_end is not None:
            kept.append(text[position:flag_end])
            before, position, marks, generic = text[flag_end - 1], flag_end, 0, 0
            continue
        position += 1
        if char < "\u0300":
            if char not in "\t\n":
                marks = generic = 0
        elif is_mark(char):
            is_generic = is_generic_mark(char)
            if marks >= MARKS_MAX or (is_generic and generic >= GENERIC_MARKS_MAX):
                continue
            marks += 1
            generic += is_generic
        elif is_conditional(char):
            if not _belongs(char, before, after, marks, generic, right_to_left=right_to_left):
                continue
        elif char not in _SHOWN_FORMATS:
            marks = generic = 0
        kept.append(char)
        before = char
    return "".join(kept)


def _belongs(
    char: str, before: str, after: str, marks: int, generic: int, *, right_to_left: bool
) -> bool:
    if char in DIRECTION_MARKS:
        return right_to_left and before not in DIRECTION_MARKS
    if char == ZWNJ:
        return joins(before)
    if char == ZWJ:
        if is_pictograph(after):
            return is_pictograph(before) or before == "\ufe0f"
        if is_mark(after) and (
            marks >= MARKS_MAX or (is_generic_mark(after) and generic >= GENERIC_MARKS_MAX)
        ):
            return False
        return joins(before) and (after == "" or after.isspace() or joins(after))
    code = ord(char)
    if 0xFE0E <= code <= 0xFE0F:
        keycap = before != "" and before in "0123456789#*" and after == _KEYCAP
        return keycap or is_pictograph(before)
    if 0xE0100 <= code <= 0xE011F:
        return "\u3400" <= before <= "\u9fff" or "\U00020000" <= before <= "\U000323af"
    if 0x180B <= code <= 0x180D:
        return "\u1820" <= before <= "\u18aa"
    return False
