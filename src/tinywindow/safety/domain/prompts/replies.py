"""Signals that dictate the model's answer, or carry something out in it."""

from __future__ import annotations

from typing import Final

from tinywindow.safety.domain.prompts.lexicon import REPLY, SAY
from tinywindow.safety.domain.prompts.signal import FindingKind, Signal, signal

__all__ = ["EXFILTRATIONS", "REPLIES"]

_R: Final = FindingKind.REPLY
_X: Final = FindingKind.EXFILTRATION
_PUT: Final = r"(?:add|include|insert|append|embed|introduce|incorporate|integrate|put)"
_THING: Final = (
    r"(?:string|text|message|sentence|code|snippet|words?|information|link|line|phrase|markdown"
    r"|image)"
)

REPLIES: Final[tuple[Signal, ...]] = (
    signal(_R, 50, rf"\byour\s+{REPLY}"),
    signal(
        _R,
        35,
        rf"\b(?:{SAY}|{_PUT}|start|begin|end)\s+(?:(?:only|with|back|exactly|just|out|as|the"
        r"|sentence|phrase|words?|string|text|message)\s+){0,4}[\"'{(\[\u201c\u2018]",
    ),
    signal(
        _R,
        35,
        rf"\b(?:{SAY}|{_PUT}|execute)\b[^.\n]{{0,40}}?\b(?:the\s+following|subsequent|below|this)\s+"
        rf"(?:\w{{1,30}}\s+)?{_THING}\b",
    ),
    signal(
        _R,
        30,
        r"\b(?:respond|reply|answer)\s+(?:only\s+|back\s+|to\s+\w{1,30}\s+)?(?:with|using|in)\b",
        r"\brepeat\s+the\s+word\b",
        r"\bwhen\s+(?:asked|producing|you\s+(?:summari[sz]e|answer|respond|reply))\b",
        r"\bif\s+(?:asked|questioned)\b",
        r"\b(?:translate|rewrite|summari[sz]e|classify|rate|label|mark|describe)\s+"
        r"(?:this|the\s+following|these|it)\b[^.\n]{0,40}?\bas\b",
    ),
    signal(
        _R,
        35,
        r"\b(?:following|subsequent|below|this|next)\s+code\s+(?:snippet|block|segment|excerpt)",
        r"\b(?:do\s+not|don'?t)\s+use\s+a\s+code\s+block\b",
    ),
    signal(
        _R,
        20,
        r"\byour\s+(?:code(?:base)?|solution|implementation|algorithm|program|script)\b",
        r"```\s*\w{0,12}\s*\n?(?:import|from)\s",
    ),
)

EXFILTRATIONS: Final[tuple[Signal, ...]] = (
    signal(
        _X, 60, r"(?:\]\(|https?:)[^\s)]{0,120}[?&]\w{1,20}=\"?\[?\{?(?-i:[A-Z_]{3,20})\b[\]}]?"
    ),
    signal(
        _X,
        35,
        r"\b(?:replac(?:e|ing)|substitut(?:e|ing)|where(?:as)?)\s+"
        r"(?:\[\{?\w{1,40}\}?\]|(?-i:[A-Z]{4,40}))\s+(?:is|with|by)\b",
        r"\b(?:base64|quoted-printable|url|mime|rot13|hex)[\s-]{1,4}encod(?:e|ed|ing)\b",
        r"\bencod(?:e|ed|ing)\s+(?:it\s+|them\s+)?(?:in|as|using|with)\s+(?:base64|rot13|hex)",
        r"\b(?:decode|act\s+on|answer\s+in)\b[^.\n]{0,40}?\b(?:base64|rot13|hex\w{0,8}|cipher|morse)\b",
    ),
    signal(
        _X,
        50,
        r"\b(?:e-?mail|send|forward|post|upload|transfer|exfiltrate)\b[^.\n]{0,60}?\b(?:to|at)\s+"
        r"(?:\S{1,64}@\S{1,64}|0x[0-9a-f]{12}|https?://)",
        r"\b(?:api\s+(?:keys?|secrets?)|account\s+balance|seed\s+phrase|private\s+keys?"
        r"|credentials)\b[^.\n]{0,40}?\bin\s+(?:every|each|the|your|all)\b",
    ),
)
