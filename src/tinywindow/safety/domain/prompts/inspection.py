"""Looks for what speaks to a model, and says how sure it is; a signal, never a defence.

The text is matched as its shadow (folded, with hidden characters gone), in what it decodes to,
and in a few ciphers. Findings add up where they stand close together, because an article of
twenty thousand characters collects weak ones by chance. A trained classifier may join later: its
verdict would be one more finding in `_findings`, and nothing else would change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from tinywindow.safety.domain.prompts.decoding import ciphers, payloads
from tinywindow.safety.domain.prompts.disguise import hidden_findings, structural_findings
from tinywindow.safety.domain.prompts.finding import Finding
from tinywindow.safety.domain.prompts.reading import as_text
from tinywindow.safety.domain.prompts.shadow import Shadow, cast
from tinywindow.safety.domain.prompts.signal import STRONG_SEVERITY_MIN, FindingKind, Signal
from tinywindow.safety.domain.prompts.signals import SIGNALS, TONGUES

__all__ = ["FLAGGED_SCORE_MIN", "Inspection", "inspected"]

FLAGGED_SCORE_MIN: Final = 50
"""From this score on a text is flagged."""
SCORE_MAX: Final = 100
WINDOW_CHARS: Final = 600
"""Findings add up within this distance."""
MATCHES_MAX: Final = 8
"""Matches of one signal that are kept."""
DEPTH_MAX: Final = 2
"""Encodings inside encodings that are opened."""
ENCODED_SEVERITY: Final = 50
CIPHER_SEVERITY: Final = 60
CIPHER_CHARS_MAX: Final = 4_000
"""Only so much of a text is read in ciphers; the rest is read as it is."""

_STRONG: Final = tuple(rule for rule in SIGNALS.values() if rule.severity >= STRONG_SEVERITY_MIN)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in a text; true where it is flagged. Flagging never changes the text.

    Attributes:
        score: 0 to 100, how much speaks for an instruction to a model.
        findings: each with kind, span in the text as it was given (after the cap), severity.
    """

    score: int
    findings: tuple[Finding, ...]

    @property
    def flagged(self) -> bool:
        """Whether the score reached the threshold."""
        return self.score >= FLAGGED_SCORE_MIN

    def __bool__(self) -> bool:
        return self.flagged


def inspected(value: object, *, chars_max: int) -> Inspection:
    """Inspect any value's text; total, bounded and linear as `sanitized` is."""
    text = as_text(value, chars_max)
    findings = sorted(set(_findings(text)), key=lambda found: (found.start, found.end, found.rule))
    return Inspection(_score(findings), tuple(findings))


def _findings(text: str) -> Iterator[Finding]:
    shadow = cast(text)
    yield from hidden_findings(text)
    yield from structural_findings(shadow)
    yield from _matches(SIGNALS, shadow)
    yield from _matches(TONGUES, Shadow(text, None))
    yield from _decoded(shadow, DEPTH_MAX)
    yield from _ciphered(shadow)


def _matches(signals: Mapping[str, Signal], shadow: Shadow) -> Iterator[Finding]:
    for name, rule in signals.items():
        for found in islice(rule.pattern.finditer(shadow.text), MATCHES_MAX):
            start, end = shadow.between(found.start(), found.end())
            yield Finding(rule.kind, start, end, rule.severity, name)


def _decoded(shadow: Shadow, depth: int) -> Iterator[Finding]:
    for payload in payloads(shadow.text):
        start, end = shadow.between(payload.start, payload.end)
        yield Finding(FindingKind.ENCODED, start, end, ENCODED_SEVERITY, "words in an encoding")
        inner = cast(payload.text)
        for found in (
            *_matches(SIGNALS, inner),
            *(_decoded(inner, depth - 1) if depth > 1 else ()),
        ):
            yield Finding(found.kind, start, end, found.severity, found.rule)


def _ciphered(shadow: Shadow) -> Iterator[Finding]:
    head = shadow.text[:CIPHER_CHARS_MAX]
    for reading in ciphers(head):
        plain = (rule for rule in _STRONG if not rule.pattern.search(head))
        if any(rule.pattern.search(reading) for rule in plain):
            start, end = shadow.between(0, len(head))
            yield Finding(FindingKind.ENCODED, start, end, CIPHER_SEVERITY, "orders in a cipher")


def _score(findings: list[Finding]) -> int:
    """The highest sum of severities within one window, each rule counted once in it."""
    best = total = 0
    inside: dict[str, int] = {}
    tail = 0
    for found in findings:
        while found.start - findings[tail].start > WINDOW_CHARS:
            leaving = findings[tail]
            inside[leaving.rule] -= 1
            total -= leaving.severity if inside[leaving.rule] == 0 else 0
            tail += 1
        inside[found.rule] = inside.get(found.rule, 0) + 1
        total += found.severity if inside[found.rule] == 1 else 0
        best = max(best, total)
    return min(best, SCORE_MAX)
