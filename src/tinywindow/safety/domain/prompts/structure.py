"""Text that could act as structure is escaped: tags, template tokens and role turns.

A model is told where a document begins and who speaks by tokens such as `</document>`,
`<|im_start|>`, `[INST]` or a line that begins `Human:`. Untrusted text that contains one could
close its envelope or forge a turn. One character of each is replaced by another that looks alike
and means nothing: no word is lost, and because nothing is deleted nothing can close up into a
token. Each replaced character is found by itself, by what surrounds it, and its substitute
occurs in no rule; a second pass therefore finds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tinywindow.safety.domain.prompts.shadow import Shadow, cast

__all__ = ["Token", "escape", "markup_tokens", "structural_tokens", "with_acting"]

_RESERVED: Final = (
    r"(?:system(?:_prompt)?|instructions?|human|assistant|user|user_input|documents?|untrusted\w*"
    r"|data|context|news|article|tool|tool_(?:result|results|use|call|calls|response)|tools"
    r"|function_(?:calls|results|call|response)|invoke|parameters?|think|thinking|operator|admin"
    r"|developer|prompt|model|[se]os|bos|pad|s|start_of_turn|end_of_turn|im_start|im_end"
    r"|endoftext|script|style|iframe)"
)
_ANGLE: Final = re.compile(
    r"<(?=\s*/\s*[^\W\d]"  # a closing tag
    r"|\s*\|"  # <|special|>
    r"|!--|!\[CDATA\[|!doctype|\?xml"
    r"|<\s*(?:/\s*)?SYS"
    rf"|\s*(?:/\s*)?(?:[^\W\d][\w.\-]{{0,40}}:)?{_RESERVED}(?!\w))",
    re.IGNORECASE,
)
_MARKUP: Final = re.compile(
    r"<(?=[^\W\d][\w:.\-]{0,64}(?:\s*/?>|\s+[\w:@\-]{1,64}\s*=|/[^\W\d]{1,32}\s*=))"
)
"""Any other opening tag. Searched in the text itself: headings in full-width brackets stay."""
_SQUARE: Final = re.compile(
    r"\[(?=\s*(?:/\s*)?(?:INST|SYS|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT"
    r"|ARGS|THINK)\s*\]"
    r"|\s*(?:/\s*)?(?:system|assistant|user|human)\s*\])"
    r"|(?<=!)\[(?=[^\]]{0,200}\]\()"
    r"|^\[(?=//\]:)",
    re.IGNORECASE | re.MULTILINE,
)
_LEAD: Final = r"[ \t>*#\-_~\"'`|(\[]*"
_TRAIL: Final = r"[ \t*_\"'`\])]*"
_TURN: Final = re.compile(
    rf"(?:\A{_LEAD}(?:human|assistant|(?-i:SYSTEM|USER|AI|DEVELOPER|OPERATOR))"
    rf"|\n{_LEAD}(?:human|assistant|system|user|ai|bot|model|developer|operator|tool|function"
    r"|claude|chatgpt|gpt|grok|gemini))"
    rf"{_TRAIL}(?P<act>:)",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(
    r"#{2,8}\s*(?:instruction|response|system|input|user|assistant|human)s?\s*(?P<act>:)",
    re.IGNORECASE,
)
_ROLE_KEY: Final = re.compile(
    r"\"role\"\s*(?P<act>:)(?=\s*\"(?:system|assistant|developer|tool|user|function|model)\")"
    r"|\"system\"\s*(?P<act2>:)(?=\s*[\"\[])",
    re.IGNORECASE,
)
_CLOSER: Final = re.compile(r"(?:(?<=--)|(?<=\]\]))>")

_ANGLE_SUBSTITUTE: Final = "\u2039"
_RULES: Final = (
    ("tag", _ANGLE, _ANGLE_SUBSTITUTE),
    ("token", _SQUARE, "\u27e6"),
    ("turn", _TURN, "\ua789"),
    ("header", _HEADER, "\ua789"),
    ("role", _ROLE_KEY, "\ua789"),
    ("closer", _CLOSER, "\u203a"),
)
"""Name, what is searched in the shadow, and what takes its place in the original."""

_ACTING: Final = str.maketrans("\u2039\u27e6\ua789\u203a", "<[:>")


@dataclass(frozen=True, slots=True)
class Token:
    """One place that could act: which rule found it, where in the shadow, what replaces it."""

    name: str
    index: int
    substitute: str


def structural_tokens(shadow: Shadow) -> Iterator[Token]:
    """Every place in the shadow that could act as a prompt's structure, by rule and position."""
    for name, rule, substitute in _RULES:
        groups = rule.groupindex
        for found in rule.finditer(shadow.text):
            index = max((found.start(group) for group in groups), default=found.start())
            yield Token(name, index, substitute)


def markup_tokens(text: str) -> Iterator[Token]:
    """Every place in the text itself that opens a tag of whatever name."""
    for found in _MARKUP.finditer(text):
        yield Token("tag", found.start(), _ANGLE_SUBSTITUTE)


def with_acting(shadow: Shadow) -> Shadow:
    """The shadow as if nothing had been escaped, for those who look for what was there."""
    return Shadow(shadow.text.translate(_ACTING), shadow.spans)


def escape(text: str) -> str:
    """Replace one character of everything that could act; the result is a fixed point.

    The text is expected without hidden characters. It never grows.
    """
    shadow = cast(text)
    acting = {shadow.span(token.index): token for token in structural_tokens(shadow)}
    acting |= {(token.index, token.index + 1): token for token in markup_tokens(text)}
    if not acting:
        return text
    pieces: list[str] = []
    position = 0
    for start, end in sorted(acting):
        pieces += (text[position:start], acting[start, end].substitute)
        position = end
    pieces.append(text[position:])
    return "".join(pieces)
