"""Words behind an encoding (base64, hexadecimal, binary) or another way of reading.

A model reads all of these. What decodes to words is looked at like the text itself. Everything
is bounded: how many runs are tried, how long each may be, and how deep they nest.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

__all__ = ["Payload", "ciphers", "payloads"]

RUNS_MAX: Final = 16
"""Runs of each encoding that are tried in one text."""
RUN_CHARS_MAX: Final = 8_000
"""Length of a run that is looked at; what lies beyond is left encoded."""
WORD_CHARS_MIN: Final = 3
WORDS_MIN: Final = 2
READABLE_PERCENT_MIN: Final = 90
CODE_MAX: Final = 0x10FFFF

_BASE64: Final = re.compile(r"(?<![A-Za-z0-9+/_\-])[A-Za-z0-9+/_\-]{16,}")
_HEX: Final = re.compile(r"(?<![0-9a-zA-Z])(?:(?:\\x|%|0x)?[0-9a-fA-F]{2}[\s,:]{0,2}){8,}")
_BINARY: Final = re.compile(r"(?<![0-9])(?:[01]{8}[\s,]{0,2}){6,}")
_ESCAPE: Final = re.compile(
    r"(?:%|\\x)([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\U000?([0-9a-fA-F]{5,6})(?![0-9a-fA-F])"
)
_HEX_DIGITS: Final = re.compile(r"(?:\\x|%|0x)?([0-9a-fA-F]{2})")
_SPACED: Final = re.compile(r"(?<!\w)(?:\w(?:[ ._\-*|]|[ ]{2,3}(?=\w[ ._\-*|]\w))){5,}\w(?!\w)")
_WORD: Final = re.compile(rf"[A-Za-z]{{{WORD_CHARS_MIN},}}")
_URL_SAFE: Final = str.maketrans("-_", "+/")

_LOW: Final = "abcdefghijklmnopqrstuvwxyz"
_ROT13: Final = str.maketrans(
    _LOW + _LOW.upper(), _LOW[13:] + _LOW[:13] + _LOW[13:].upper() + _LOW[:13].upper()
)
_LEET: Final = str.maketrans("013457@$!|", "oieastasil")
_LEET_WORD: Final = re.compile(r"(?<!\S)(?=\S{0,20}[013457@$!|])(?=\S{0,20}[A-Za-z])\S{3,24}(?!\S)")


@dataclass(frozen=True, slots=True)
class Payload:
    """A run that decodes to words: where it stands, and what it says."""

    start: int
    end: int
    text: str


def payloads(text: str) -> Iterator[Payload]:
    """Runs of `text` that decode to words."""
    for pattern, decode in _DECODERS:
        for found in islice(pattern.finditer(text), RUNS_MAX):
            said = decode(found[0][:RUN_CHARS_MAX])
            if _is_readable(said):
                yield Payload(found.start(), found.end(), said)


def ciphers(text: str) -> Iterator[str]:
    """The text read in other ways; only what a reading says can tell whether it is meant.

    The ways are rot13, backwards, escapes, figures for letters, and letters set apart.
    """
    yield text.translate(_ROT13)
    yield text[::-1]
    if _ESCAPE.search(text):
        yield _ESCAPE.sub(_unescaped, text)
    if _LEET_WORD.search(text):
        yield _LEET_WORD.sub(lambda found: found[0].translate(_LEET), text)
    if _SPACED.search(text):
        yield _SPACED.sub(lambda found: _closed_up(found[0]), text)


def _closed_up(spaced: str) -> str:
    """Letters set apart, put together again; a wider gap is a gap between words."""
    words = re.split(r" {2,}", spaced)
    return " ".join(re.sub(r"[ ._\-*|]", "", word) for word in words)


def _is_readable(said: str) -> bool:
    if len(_WORD.findall(said)) < WORDS_MIN:
        return False
    plain = sum(char.isalpha() or char.isdigit() or char in " .,:;!?'\"-_/()=<>\n" for char in said)
    return plain * 100 >= READABLE_PERCENT_MIN * len(said)


def _from_base64(run: str) -> str:
    whole = run.translate(_URL_SAFE)
    # A cut tail costs the last letters at most; a length of 4n+1 cannot occur and loses one.
    whole = whole[: len(whole) - (len(whole) % 4 == 1)]
    return _read(binascii.a2b_base64(whole + "=" * (-len(whole) % 4)))


def _from_hex(run: str) -> str:
    return _read(bytes.fromhex("".join(_HEX_DIGITS.findall(run))))


def _from_binary(run: str) -> str:
    return _read(bytes(int(octet, 2) for octet in re.findall(r"[01]{8}", run)))


def _unescaped(found: re.Match[str]) -> str:
    code = int(found[1] or found[2] or found[3], 16)
    return chr(code) if code <= CODE_MAX else found[0]


def _read(data: bytes) -> str:
    return data.decode("utf-8", "replace")


_DECODERS: Final = (
    (_BASE64, _from_base64),
    (_HEX, _from_hex),
    (_BINARY, _from_binary),
)
