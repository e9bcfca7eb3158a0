"""Signals of orders to a model: set your instructions aside, or give them away."""

from __future__ import annotations

from typing import Final

from tinywindow.safety.domain.prompts.lexicon import (
    ASK,
    ORDERS,
    POINTED,
    SAY,
    SET_ASIDE,
    TASKS,
    WHICH,
    WITHHELD,
)
from tinywindow.safety.domain.prompts.signal import FindingKind, Signal, signal

__all__ = ["LEAKS", "OVERRIDES"]

_O: Final = FindingKind.OVERRIDE
_L: Final = FindingKind.LEAK
_TOLD: Final = r"(?:told|instructed|taught|given|asked|said|trained|learned|programmed)"
_CALL: Final = r"(?:^|[.!?:;\"'(,\-]\s*|\b(?:please|and|to|then|now|must|just|you|should)\s+)"
"""What stands before a verb that calls on somebody, and not between a subject and its verb."""
_YOURS: Final = r"(?:your|previous|prior|earlier|existing|original|initial|above)"

OVERRIDES: Final[tuple[Signal, ...]] = (
    signal(
        _O,
        75,
        rf"\b{SET_ASIDE}\s+(?:{WHICH}\s+){{0,5}}{POINTED}\s+(?:\w{{1,30}}\s+){{0,2}}{TASKS}\b",
        rf"{_CALL}{SET_ASIDE}\s+(?:{WHICH}\s+){{0,5}}{POINTED}\s+(?:\w{{1,30}}\s+){{0,2}}{ORDERS}\b",
        rf"\b{SET_ASIDE}\s+(?:(?:all|any|every|of)\s+){{0,2}}your\s+(?:\w{{1,30}}\s+){{0,3}}{ORDERS}\b",
    ),
    signal(
        _O,
        60,
        rf"{_CALL}{SET_ASIDE}\s+{ORDERS}\b",
    ),
    signal(
        _O,
        25,
        rf"\b{SET_ASIDE}\s+(?:{WHICH}\s+){{1,4}}(?:\w{{1,30}}\s+){{0,2}}{ORDERS}\b",
    ),
    signal(
        _O,
        60,
        rf"\b{SET_ASIDE}\s+(?:all\s+)?(?:of\s+)?(?:the\s+)?(?:above|foregoing|everything\s+else"
        r"|rest\s+of\s+(?:the|this)\s+(?:feed|page|text|prompt|data|document))\b",
    ),
    signal(
        _O,
        65,
        rf"\b{SET_ASIDE}\s+(?:about\s+)?(?:all|every\s?thing|anything|whatever|what)\s+"
        r"(?:(?:that|which)\s+)?(?:you|i)(?:'ve)?\s+"
        rf"(?:(?:have|had|were|was|are)\s+)?(?:been\s+|just\s+)?{_TOLD}",
    ),
    signal(
        _O,
        60,
        rf"\b{_YOURS}\s+(?:\w{{1,30}}\s+)?{ORDERS}\s+(?:is|are|was|were|have|has)\s+"
        r"(?:(?:been|now|just|only|an?)\s+){0,2}(?:false|void|changed|out\s+of\s+date|cancel\w*"
        r"|test|overrid\w*|obsolete|superseded|no\s+longer|replaced|invalid|wrong|suspended)",
        r"\b(?:overrid(?:e|es|ing)|supersedes?|replaces?)\s+(?:any|all|your|the|every)\s+"
        r"(?:\w{1,30}\s+){0,2}(?:prompt|instructions?|guidelines?|directives?)",
    ),
    signal(
        _O,
        55,
        rf"\b{SET_ASIDE}\s+(?:the|this|that|all|any|every)\b[^.\n]{{0,40}}?\b(?:and|instead)\s+"
        rf"(?:instead\s+|just\s+|only\s+)?(?:{SAY}|rate|tell|treat|label)\b",
    ),
    signal(
        _O,
        40,
        r"\bnew\s+(?:instructions?|directives?|tasks?|system\s+prompt|orders)\s*(?:[:#]"
        r"|to\s+(?:chat|the\s+assistant|all))",
        r"\bbegin\s+(?:new|reprogramming)\b",
        r"\b(?:your\s+new|new\s+system)\s+(?:instructions?|task|role|rules?|goal)\b",
    ),
    signal(
        _O,
        50,
        r"\b(?:system|admin\w{0,12}|developer|root|operator|data|enforcement)\s+override\s*"
        r"(?:[:!.]|accepted|mode)",
        r"\bsafe\s+mode\s+off\b",
    ),
    signal(
        _O,
        25,
        r"\b(?:developer|maintenance|debug|god|jailbreak|system|dan|admin|unrestricted|diagnostic"
        r"|training)[\s_-]{1,4}mode\b",
        r"\b(?:prompt|system|admin\w{0,12}|data)\s+override\b",
    ),
    signal(
        _O,
        30,
        rf"\b(?:just|only|instead|simply)\s+(?:{SAY}|tell)\b",
        rf"\b{SAY}\s+(?:only|exactly|just|verbatim)\b",
    ),
    signal(
        _O,
        35,
        r"\bstop\s+everything\b",
        r"\bend\s+of\s+(?:session|instructions?|prompt|document|context)\b",
        r"\breal\s+(?:task|instructions?|goal)\s+(?:is|are)\b",
        r"\bregardless\s+of\s+(?:what\s+)?(?:the|your)\s+(?:system|instructions?|prompt|rules)\b",
    ),
)

LEAKS: Final[tuple[Signal, ...]] = (
    signal(_L, 60, rf"\b{ASK}\b[^.\n?!]{{0,70}}?\b{WITHHELD}"),
    signal(_L, 20, r"\b(?:system\s*prompts?|your\s+(?:system\s+)?(?:prompt|instructions))\b"),
    signal(_L, 35, r"\b(?:your|the|our|my)\s+(?:\w{1,30}\s+)?pass(?:word|phrase)s?\b"),
    signal(
        _L,
        30,
        r"\b(?:confirm|tell\s+me|share|reveal|give\s+me|what\s+(?:is|would)|what's|write|poem|know"
        r"|need|provide|ask\w{0,3})\b[^.\n?!]{0,60}\bpass(?:word|phrase)s?\b",
    ),
    signal(
        _L,
        45,
        r"\bwhat\s+(?:were|are)\s+you\s+(?:not\s+)?(?:told|supposed|instructed|allowed)\b",
        r"\b(?:i\s+was\s+instructed\s+to|my\s+instructions\s+are|system_?prompt)\b",
    ),
)
