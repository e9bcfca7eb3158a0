"""A text's shadow: the same text folded to plain letters, each with the place it came from.

Structure is searched in the shadow, because a full-width bracket, a Cyrillic `H` or `&lt;` acts
like the plain one on a model or after the next decoding step. It is mended in the original, so
that nothing else changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.entities import html5
from typing import Final

from tinywindow.safety.domain.prompts.confusables import fold_char

__all__ = ["Shadow", "cast", "decode_entity"]

_PIECE: Final = re.compile(r"[\t\n\x20-\x25\x27-\x7e]+|.", re.DOTALL)
_ENTITY: Final = re.compile(
    r"&(?:amp;|#0{0,4}38;|#[xX]0{0,4}26;){0,4}"
    r"(?:#(?P<decimal>[0-9]+);?|#[xX](?P<hex>[0-9a-fA-F]+);?|(?P<name>[A-Za-z][A-Za-z0-9]{1,31};?))"
)
_NAME_CHARS_MIN: Final = 2
_CODE_DIGITS_MAX: Final = 7
_CODE_MAX: Final = 0x10FFFF


@dataclass(frozen=True, slots=True)
class Shadow:
    """Folded text; where `spans` is given, one (start, end) in the original per character."""

    text: str
    spans: tuple[tuple[int, int], ...] | None

    def span(self, index: int) -> tuple[int, int]:
        """Where in the original the shadow's character at `index` came from."""
        return (index, index + 1) if self.spans is None else self.spans[index]

    def between(self, start: int, end: int) -> tuple[int, int]:
        """Where in the original the shadow's characters from `start` up to `end` came from."""
        if start >= end:
            return (0, 0)
        return (self.span(start)[0], self.span(end - 1)[1])


def cast(text: str) -> Shadow:
    """Fold `text`, reading character references (`&lt;`, `&#60;`) as what they stand for."""
    if text.isascii() and "&" not in text:
        return Shadow(text, None)
    folded: list[str] = []
    spans: list[tuple[int, int]] = []
    position, end = 0, len(text)
    while position < end:
        found = _PIECE.match(text, position)
        piece = found[0] if found else text[position]
        stop = position + len(piece)
        if len(piece) > 1:
            folded.append(piece)
            spans.extend((at, at + 1) for at in range(position, stop))
        else:
            decoded, stop = decode_entity(text, position) if piece == "&" else (piece, stop)
            shades = "".join(map(fold_char, decoded))
            folded.append(shades)
            spans.extend([(position, stop)] * len(shades))
        position = stop
    return Shadow("".join(folded), tuple(spans))


def decode_entity(text: str, position: int) -> tuple[str, int]:
    """What the character reference at `position` stands for, and where it ends.

    Returns the ampersand itself where there is no reference. A reference escaped again and again
    (`&amp;lt;`) is read through, up to four times.
    """
    found = _ENTITY.match(text, position)
    if found is None:
        return "&", position + 1
    name = found["name"]
    if name is None:
        digits = (found["decimal"] or found["hex"]).lstrip("0")
        code = (
            int(digits or "0", 10 if found["decimal"] else 16)
            if len(digits) <= _CODE_DIGITS_MAX
            else 0
        )
        return (chr(code), found.end()) if 0 < code <= _CODE_MAX else ("&", position + 1)
    if name in html5:
        return html5[name], found.end()
    for length in range(min(len(name) - 1, 6), _NAME_CHARS_MIN - 1, -1):
        # Old references work without their semicolon: `&ltdocument` is a tag in HTML.
        if name[:length] in html5:
            return html5[name[:length]], found.start("name") + length
    return "&", position + 1
