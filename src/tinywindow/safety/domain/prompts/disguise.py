"""Findings of disguise: characters that cannot be seen, and text in the shape of structure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final

from tinywindow.safety.domain.prompts.finding import Finding
from tinywindow.safety.domain.prompts.hidden import FLAG
from tinywindow.safety.domain.prompts.shadow import Shadow
from tinywindow.safety.domain.prompts.signal import FindingKind
from tinywindow.safety.domain.prompts.structure import markup_tokens, structural_tokens, with_acting

__all__ = ["hidden_findings", "structural_findings"]

MATCHES_MAX: Final = 16

_HIDDEN: Final = (
    ("tag characters", 80, re.compile("[\U000e0000-\U000e007f]{1,1000}")),
    ("selectors in a row", 60, re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,1000}")),
    ("bidirectional override", 50, re.compile("[\u202d\u202e]")),
    (
        "zero width in a word",
        25,
        re.compile("(?<=[A-Za-z])[\u200b-\u200d\u2060-\u2064\ufeff]+"),
    ),
    (
        "zero width in words, often",
        60,
        re.compile("(?:[A-Za-z ]{0,12}[\u200b-\u200d\u2060-\u2064\ufeff]+){3}"),
    ),
    ("zero width in a row", 50, re.compile("[\u200b\u200c\u2060-\u2064]{4}")),
    ("terminal sequence", 40, re.compile("\x1b[\\[\\]]|\x9b")),
)

_STRUCTURE: Final = (
    ("template token", 65, re.compile(r"<\s*[|<]|\[\s*(?:/\s*)?(?:SYSTEM_PROMPT|TOOL_)", re.I)),
    ("template bracket", 30, re.compile(r"\[\s*INST", re.I)),
    ("closing template bracket", 40, re.compile(r"\[\s*/\s*INST", re.I)),
    ("role in brackets", 50, re.compile(r"\[\s*(?:/\s*)?(?:system|assistant|user|human)", re.I)),
    (
        "tag of a prompt",
        55,
        re.compile(
            r"<\s*(?:/\s*)?(?:[\w.\-]{1,40}:)?(?:system|instructions?|human|assistant|user|documents?"
            r"|untrusted|data|context|news|article|tool|function|invoke|parameter|think|operator"
            r"|admin|developer|prompt|start_of|end_of|im_)",
            re.I,
        ),
    ),
    ("active tag", 45, re.compile(r"<\s*(?:/\s*)?(?:script|iframe|style|svg|img|caption)\b", re.I)),
    ("comment", 20, re.compile(r"<!--")),
    ("picture from elsewhere", 40, re.compile(r"\[[^\]]{0,200}\]\(")),
)
"""Tried in turn at the place of a token; the first that matches names it."""


def hidden_findings(text: str) -> Iterator[Finding]:
    """Runs of characters that a reader cannot see, apart from real flags."""
    if text.isascii() and "\x1b" not in text:
        return
    shown = FLAG.sub(lambda flag: " " * len(flag[0]), text)
    for rule, severity, pattern in _HIDDEN:
        for found in islice(pattern.finditer(shown), MATCHES_MAX):
            yield Finding(FindingKind.HIDDEN, found.start(), found.end(), severity, rule)


def structural_findings(shadow: Shadow) -> Iterator[Finding]:
    """Tags, tokens and turns, also where `sanitize` has already escaped them.

    A turn at the very beginning says little: headlines begin with a word and a colon.
    """
    acting = with_acting(shadow)
    tokens = chain(structural_tokens(acting), markup_tokens(acting.text))
    for token in islice(tokens, MATCHES_MAX * MATCHES_MAX):
        start, end = acting.span(token.index)
        if token.name in ("turn", "header", "role"):
            severity = 60 if "\n" in acting.text[: token.index] or token.name != "turn" else 15
            yield Finding(FindingKind.STRUCTURE, start, end, severity, token.name)
            continue
        for rule, severity, pattern in _STRUCTURE:
            if pattern.match(acting.text, token.index):
                yield Finding(FindingKind.STRUCTURE, start, end, severity, rule)
                break
