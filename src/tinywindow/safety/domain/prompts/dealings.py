"""Signals about trading and other work: switch a stop off, buy everything, alter a record."""

from __future__ import annotations

from typing import Final

from tinywindow.safety.domain.prompts.lexicon import WORK
from tinywindow.safety.domain.prompts.signal import FindingKind, Signal, signal

__all__ = ["CONTROLS", "MARKS", "TRADES", "WORKS"]

_C: Final = FindingKind.CONTROLS
_T: Final = FindingKind.TRADE
_W: Final = FindingKind.WORK

CONTROLS: Final[tuple[Signal, ...]] = (
    signal(
        _C,
        45,
        r"\b(?:disable|turn\s+off|remove|lift|ignore|bypass|skip|suspend|deactivate|override|drop"
        r"|switch\s+off|no|without|clear)\s+(?:(?:all|any|your|the|their|every|its)\s+){0,3}"
        r"(?:max(?:imum)?\s+leverage|stop[\s_-]{0,4}loss(?:es)?|kill[\s_-]{0,4}switch"
        r"|circuit[\s_-]{0,4}breaker|(?:risk|position|leverage|exposure|safety|order|trad(?:e|ing))"
        r"\s+(?:size\s+)?(?:limits?|checks?|manager|controls?|polic(?:y|ies)|management|rules?"
        r"|validation)|validation|(?:approval|confirmation)\s+step)\b",
    ),
    signal(
        _C,
        50,
        r"\b(?:risk|position|leverage|exposure|trading|safety)\s+(?:limits?|checks?|controls?"
        r"|rules?)\s+(?:(?:is|are|was|were|have|has|been|now|all)\s+){1,4}(?:lifted|removed"
        r"|suspended|disabled|off|void|waived|cancelled)\b",
        r"\b(?:kill\s+switch|limits?|stop[\s-]loss)\b[^.\n]{0,30}?\bnot\s+(?:exist|apply)\b",
    ),
    signal(
        _C,
        35,
        r"\b(?:stop_loss|take_profit|position_size\w{0,10}|risk_\w{1,20}|max_leverage|kill_switch"
        r"|place_order|cancel_order|order_size)\b",
    ),
)

TRADES: Final[tuple[Signal, ...]] = (
    signal(
        _T,
        50,
        r"[\"']?\b(?:action|decision|side|recommend(?:ation)?|signal|verdict|rating)\b[\"']?\s*[:=]"
        r"\s*[\"']?(?:strong[\s_-]{0,4})?(?:buy|sell|long|short|hold)\b",
    ),
    signal(
        _T,
        40,
        r"(?:^|[.!?:,;\"'(>\]]\s*|\b(?:must|and|to|then|now|please|immediately|always|shall|should"
        r"|just|you)\s+)(?:buy|sell|short|long|allocate|transfer|withdraw|convert|ape|go\s+all"
        r"|liquidate|close)\b[^.\n]{0,40}?\b(?:with\s+everything|everything\s+you"
        r"|all\s+(?:holdings|positions|funds|your|in\b)|max(?:imum)?\s+(?:leverage|size)"
        r"|(?:entire|full|whole)\s+(?:portfolio|balance|account|size|position)"
        r"|of\s+(?:balance|equity|portfolio)|every\s+open\s+position|at\s+full)\b",
        r"\bgo\s+all\s+in\s+on\b",
    ),
    signal(
        _T,
        30,
        r"\b(?:confidence|sentiment|score|rating|size|positions?)\b[^.\n]{0,25}?(?:\+?\b1\.0{1,4}\b"
        r"|\b100\s?%|\b100\b|\b0\.9\d\b|one\s+point\s+zero|at\s+the\s+maximum|maximum\s+available)",
    ),
    signal(
        _T,
        40,
        r"\b(?:always|only\s+ever|must|never)\s+(?:recommend|buy|sell|rate|answer|say|output"
        r"|conclude|report|respond|reply|flag)s?\b",
    ),
    signal(
        _T,
        40,
        r"\b(?:strong\s+buy|buy\s+decision|correct\s+answer)\b",
        r"\bthe\s+(?:right|correct|customary|proper|only)\s+(?:answer|allocation|action|decision"
        r"|way\s+to)\b",
    ),
)

WORKS: Final[tuple[Signal, ...]] = (
    signal(
        _W,
        35,
        r"(?:(?<=[.!?'\"\u201d\u2019])\s{1,4}|\n\s{0,4})please\s+"
        rf"(?:\w{{1,20}}ly\s+)?{WORK}\b",
    ),
    signal(_W, 15, rf"\A\s{{0,4}}please\s+(?:\w{{1,20}}ly\s+)?{WORK}\b"),
    signal(
        _W,
        35,
        r"\b(?:ID|case|account|server|record|patient|project|journal|flight|system|network|order)\b"
        r"[^.\n]{0,12}?\s#?[A-Z]{0,3}-?\d{4,12}\b",
    ),
    signal(
        _W,
        35,
        r"\bwithout\s+(?:leaving|proper|authori[sz]\w{2,8}|consent|detection|documentation|being"
        r"|notifying|any\s+trace|approval|their\s+knowledge)\b",
        r"\b(?:not|never)\s+(?:(?:be|been|is)\s+)?(?:documented|detected|recorded|noticed"
        r"|disclosed)\b",
        r"\b(?:discreetly|covertly|secretly)\b|\bno\s+need\s+to\s+(?:say|mention|tell)\b",
    ),
    signal(
        _W,
        30,
        r"\bdecode\s+(?:the\s+following|this|these)\b",
        r"\b(?:execute|run|follow|obey|carry\s+out|act\s+on)\s+(?:it|(?:the|these)\s+(?:following"
        r"|decoded|instructions?))\b",
        r"\bhelp\s+me\s+(?:craft|hack|steal|make)\b",
    ),
)

MARKS: Final[tuple[Signal, ...]] = (
    signal(
        FindingKind.MARK,
        15,
        r"\b(?-i:IMPORTANT|ATTENTION|URGENT|ALERT)\b\s*(?:[:!*]|message|update)",
        r"\*{3}|={4}|-{8}|#{3}|%{3}",
        r"\b(?:this\s+is\s+a\s+test|for\s+testing\s+purposes|experimental\s+features)\b",
    ),
)
