"""Signals that speak to a model, give it another character, or promise it freedom from rules."""

from __future__ import annotations

from typing import Final

from tinywindow.safety.domain.prompts.lexicon import ACT, MODEL, MUST
from tinywindow.safety.domain.prompts.signal import FindingKind, Signal, signal

__all__ = ["ADDRESSES", "FREEDOMS", "PERSONAS"]

_A: Final = FindingKind.ADDRESS
_P: Final = FindingKind.PERSONA
_F: Final = FindingKind.FREEDOM

ADDRESSES: Final[tuple[Signal, ...]] = (
    signal(_A, 35, rf"\b{MODEL}\b[^.\n]{{0,30}}?\s{MUST}\s", rf"\b{MODEL}:\s+you\s+(?:{MUST})\s"),
    signal(_A, 25, rf"\b{MODEL}\b[^.\n]{{0,40}}?\s{MUST}\s[^.\n]{{0,60}}?\b{ACT}\b"),
    signal(
        _A,
        50,
        r"(?:\b(?:dear|hello|hey|hi|attention|note\s+to|message\s+(?:to|for)|notice\s+to"
        r"|to\s+(?:all|any)|prompt\s+for|(?:instructions?|description)\s+(?:to|for))\s+|@)"
        rf"(?:(?:all|any|the|every|self\s+and\s+to)\s+){{0,3}}{MODEL}\b",
        rf"(?:^|[.!?(*\-\u2014]\s*){MODEL}\s*[,:]\s*(?:ignore|disregard|please|when|if|output|set"
        r"|treat|rate|you|always|never|buy|sell|forget|summari[sz]e|act|do)\b",
    ),
    signal(
        _A,
        55,
        r"[(\[]\s*(?:system|assistant|AI|LLM|claude|gpt|grok)\s*[,:]",
        rf"\b{MODEL}\s+(?:(?:that\s+)?(?:is|are)\s+)?(?:reading|processing|parsing|summari[sz]ing"
        r"|handling|analy[sz]ing|following|ingesting)\s+(?:this|the|these|it|my)\b",
        rf"\bif\s+you(?:\s+are|'re)\s+(?:an?\s+)?{MODEL}\b",
        r"\bvisible\s+to\s+(?:an?\s+)?(?:LLM|AI|models?)\b",
    ),
    signal(_A, 30, r"(?:^|[.!?:)]\s{1,4})(?-i:SYSTEM|ASSISTANT|HUMAN|USER|ADMIN|DEVELOPER):\s"),
    signal(_A, 25, rf"\byou\s+are\s+(?:an?\s+)?(?:\w{{1,30}}\s+)?{MODEL}\b"),
    signal(
        _A,
        45,
        r"\byour\s+(?:instructions|guidance|directives|system\s+prompt|limits|holdings|rules)\s+"
        r"(?:have|has|are|is)\b",
        r"\byour\s+(?:prior|previous)\s+(?:guidance|instructions?|context)\b",
    ),
)

PERSONAS: Final[tuple[Signal, ...]] = (
    signal(_P, 20, r"\byou(?:\s+are|'re)\s+(?:now|going\s+to|to|no\s+longer)\b"),
    signal(
        _P,
        45,
        r"\byou(?:\s+are|'re)\s+(?:now|going\s+to|to|no\s+longer|a|an|the|in)\s[^.\n]{0,50}?\b"
        rf"(?:{MODEL}|mode|unrestricted|unfiltered|uncensored|role-?play\w{{0,3}}|character"
        r"|persona|\w{1,20}GPT|evil)\b",
    ),
    signal(
        _P,
        50,
        r"\bfrom\s+now(?:\s+on)?\s*[,.]?\s*(?:you|i\s+want\s+you|your|act|answer|respond|always"
        r"|never|ignore|forget)\b",
    ),
    signal(
        _P,
        20,
        r"(?:^|[.!?]\s*|\b(?:to|you|will|should|must)\s+)(?:act|behave|respond|answer|role-?play"
        r"|speak|reply)\s+as\s+(?!if\b|though\b)",
    ),
    signal(
        _P,
        45,
        r"\bpretend\s+(?:that\s+)?(?:you|the\s|i\s|there|this|we)",
        r"\bpretend\s+to\s+be\s+(?:my|an?\s+(?:AI|unrestricted|evil|degen|trader))\b",
    ),
    signal(
        _P,
        30,
        r"\b(?:imagine|suppose|assume|let'?s\s+(?:say|imagine|pretend|assume|play))\s+(?:that\s+)?"
        r"(?:you|we(?:'re|\s+are|\s+were)?|if\s+you|a\s+scenario|an?\s+AI)\b",
        r"\bhypothetical\s+(?:story|response|scenario|world)\b",
        r"\bin\s+a\s+(?:hypothetical|fictional|parallel)\s+\w",
    ),
    signal(
        _P,
        35,
        r"\b(?:stay|remain|break(?:ing)?|out\s+of)\s+(?:in\s+)?character\b",
        r"\b(?:immersive\s+)?role-?play(?:ing)?\s+as\b",
        r"\btwo\s+(?:different\s+)?(?:separate\s+)?(?:ways|responses)\b",
        r"\bin\s+2\s+ways\b",
    ),
)

FREEDOMS: Final[tuple[Signal, ...]] = (
    signal(_F, 30, r"\b(?:unfiltered|uncensored|amoral|nonmoral|unmoderated|unhinged)\b"),
    signal(
        _F,
        30,
        r"\b(?:without|no|any|free\s+(?:of|from)|lacks?|not\s+have)\s+(?:all\s+|any\s+)?"
        r"(?:\w{1,30}\s+)?(?:restrictions?|filters?|filtering|censorship|ethic\w{0,4}"
        r"|moral\w{0,4}|warnings?|disclaimers?|guidelines?)\b",
    ),
    signal(
        _F,
        30,
        r"\bdo\s+anything\s+now\b|\bjailbr(?:eak|oken)\b|\b(?-i:DAN)\b|\banti-?gpt\b",
        r"\bnever\s+(?:refuse|say\s+no|break)|\bevil\s+\w{0,20}(?:bot|gpt|confidant)",
        r"\bunrestricted\b",
    ),
    signal(
        _F,
        25,
        r"\b(?:openai|anthropic|content|safety|ethical)(?:'s)?\s+(?:content\s+)?"
        r"(?:polic(?:y|ies)|guidelines?|protocols?)\b",
        r"\bnot\s+(?:bound|restricted)\s+(?:by|to)\b",
        r"\bchatgpt\b[^.\n]{0,60}?\bbut\b",
    ),
    signal(_F, 15, r"\b(?:immoral|unethical|illegal|racist|hate\s+humans|kill\s+all)\b"),
)
