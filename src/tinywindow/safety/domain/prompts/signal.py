"""A signal: one general way in which text speaks to a model instead of to a reader.

One signal alone seldom says much, and therefore most are weak; `inspect` adds them up. A
trained classifier, should one come, is one more source of findings beside these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["FindingKind", "Signal", "signal"]


class FindingKind(Enum):
    """What a finding is about."""

    OVERRIDE = "override"
    """Orders to set earlier instructions aside."""
    LEAK = "leak"
    """Asks for the prompt, a password or a key."""
    REPLY = "reply"
    """Dictates what the model's answer holds."""
    EXFILTRATION = "exfiltration"
    """Sends what the model knows to somebody else."""
    ADDRESS = "address"
    """Speaks to a model, agent or bot."""
    PERSONA = "persona"
    """Gives the model another character or another world."""
    FREEDOM = "freedom"
    """Promises that rules do not hold."""
    CONTROLS = "controls"
    """Switches limits, stops or checks off."""
    TRADE = "trade"
    """Dictates a trade or a rating."""
    WORK = "work"
    """Orders work that a reader of news would not be asked for."""
    MARK = "mark"
    """Marks itself as urgent or as a boundary."""
    STRUCTURE = "structure"
    """Tags, template tokens or role turns."""
    HIDDEN = "hidden"
    """Characters that a reader cannot see."""
    ENCODED = "encoded"
    """Words in an encoding or a cipher."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A pattern, what finding it makes, and its severity from 1 to 100."""

    kind: FindingKind
    severity: int
    pattern: re.Pattern[str]


STRONG_SEVERITY_MIN: Final = 55
"""From here on a signal says enough by itself to be looked for in ciphers too."""


def signal(kind: FindingKind, severity: int, *alternatives: str) -> Signal:
    """A signal that is found where any of the alternatives matches, in either case of letters."""
    return Signal(kind, severity, re.compile("|".join(alternatives), re.IGNORECASE | re.MULTILINE))
