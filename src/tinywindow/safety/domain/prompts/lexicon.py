"""Groups of words that the signals are made of."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ACT",
    "ASK",
    "MODEL",
    "MUST",
    "ORDERS",
    "POINTED",
    "REPLY",
    "SAY",
    "SET_ASIDE",
    "WITHHELD",
]

SET_ASIDE: Final = (
    r"(?:ignor(?:e|ing)|disregard(?:ing)?|forget|overlook|neglect|overrid(?:e|es|ing)|overrule"
    r"|bypass|discard|dismiss|erase|supersede|abandon|pay\s+no\s+attention\s+to"
    r"|(?:do\s+not|don'?t|stop|never|no\s+longer)\s+"
    r"(?:follow(?:ing)?|obey(?:ing)?|adher(?:e|ing)\s+to|comply(?:ing)?\s+with))"
)
"""Verbs of setting an order aside."""

POINTED: Final = (
    r"(?:all|any|every|your|above|previous(?:ly)?|prior|preceding|earlier|foregoing|initial"
    r"|original|following|their|system|old|existing)"
)
"""Words that point at a model's own orders."""

WHICH: Final = (
    rf"(?:{POINTED}|each|the|these|those|that|this|its|my|of|about|former|past|current|next|other"
    r"|system'?s|developer'?s?|safety|security|and|or|ethical|moral|content|risk|max(?:imum)?"
    r"|leverage|position)"
)

TASKS: Final = (
    r"(?:instruct\w{0,12}|directi(?:on|ve)s?|prompt(?:s|ing)?|commands?|programming|training"
    r"|configuration)"
)
"""What models are told, and markets seldom."""

ORDERS: Final = (
    rf"(?:{TASKS}|rules?|guidelines?|guidance|polic(?:y|ies)|restrictions?|limits?|safeguards?"
    r"|constraints?)"
)
"""What a model is told to go by."""

SAY: Final = (
    r"(?:output|print|say|write|respond|reply|answer|return|repeat|echo|produce|state|display)"
)

REPLY: Final = (
    r"(?:(?:next|final|future|own|full|entire|whole|written|current)\s+)?"
    r"(?:response|reply|answer|output|summary|explanation|completion|message)s?\b"
)

ASK: Final = (
    r"(?:reveal|show|print|output|repeat|display|tell|give|list|relay|encode|translate|expose|leak"
    r"|dump|share|return|recite|echo|respond|provide|send|confirm|disclose|describe|see|forward"
    r"|summari[sz]e|include|copy|continue|complete|what\s+(?:is|are|were|was|would)|what'?s)"
)

WITHHELD: Final = (
    r"(?:system\s*(?:'s\s+)?(?:prompt|message|instruction|configuration|parameter)s?"
    r"|(?:initial|original|starting|previous|full|secret|hidden|earlier|first|above)\s+"
    r"(?:prompt|instructions?|message|directions?|text|conversation|configuration|guidelines)"
    r"|your\s+(?:\w{1,30}\s+){0,2}(?:prompt|instructions?|directives?|configuration|rules"
    r"|guidelines|password|credentials|secrets?|keys?|tokens?|initiali[sz]ation|database)"
    r"|(?:text|words|conversation|content|messages?|instructions?|prompt|everything)\s+"
    r"(?:that\s+(?:is|was)\s+)?above"
    r"|instructions?\s+(?:that\s+)?(?:you\s+)?(?:were|have\s+been|was)\s+given"
    r"|(?:instructions?|text)\s+you\s+(?:were|have\s+been|received|got)"
    r"|initiali[sz]ation\s+string|(?:the|our|system)\s+pass(?:word|phrase)"
    r"|secret\s+(?:key|code)|api[\s_-]{1,4}(?:keys?|secrets?)|private\s+keys?"
    r"|(?:conversation|chat)\s+history|(?:this|our|the|entire)\s+conversation)"
)
"""What a model is not to give away."""

MODEL: Final = (
    r"(?:AIs?|language[\s-]{0,4}models?|LLMs?|chat\s?bots?"
    r"|(?:(?:AI|trading|automated|autonomous|language-model|investment|news|sentiment)[\s-]{1,4})"
    r"{0,3}(?:bots?|agents?|assistants?|models?)"
    r"|(?:AI|automated)\s+(?:readers?|clients?|systems?|screening|traders?)"
    r"|claude|chatgpt|gpt(?:-?\d)?|grok|gemini|copilot)"
)
"""Who is spoken to."""

MUST: Final = (
    r"(?:must|should|shall|have\s+to|need\s+to|will\s+now"
    r"|(?:is|are)\s+(?:now\s+)?(?:instructed|required|authori[sz]ed|told|ordered|advised|expected))"
)

ACT: Final = (
    r"(?:buy|sell|short|long|output|sentiment|confidence|leverage|limits?|stop[\s_-]?loss|transfer"
    r"|summar\w{1,12}|rate|rank|treat|recommend|instructions?|prompt|ignore|disregard|include"
    r"|execute|close|position|allocate|score|api|secret)"
)

WORK: Final = (
    r"(?:perform|conduct|access|retrieve|issue|record|modify|adjust|transfer|acquire|delete|remove"
    r"|disable|deploy|manipulate|alter|update|audit|review|assess|secure|share|prepare|provide"
    r"|capture|introduce|release|schedule|order|prescribe|administer|implement|manage|monitor"
    r"|analy[sz]e|export|change|create|generate|initiate|execute|verify|evaluate|investigate|grant"
    r"|revoke|install|inject|redirect|extract|collect|gather|submit|approve|process|configure"
    r"|archive|suspend|neglect|check|optimi[sz]e|develop|examine|inspect|compile|coordinate"
    r"|document|falsify|withhold|send|forward|email|copy)"
)
