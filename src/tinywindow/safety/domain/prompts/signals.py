"""All signals by name, for the inspection to walk through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tinywindow.safety.domain.prompts.dealings import CONTROLS, MARKS, TRADES, WORKS
from tinywindow.safety.domain.prompts.orders import LEAKS, OVERRIDES
from tinywindow.safety.domain.prompts.personas import ADDRESSES, FREEDOMS, PERSONAS
from tinywindow.safety.domain.prompts.replies import EXFILTRATIONS, REPLIES
from tinywindow.safety.domain.prompts.signal import Signal
from tinywindow.safety.domain.prompts.tongues import FOREIGN

__all__ = ["SIGNALS", "TONGUES"]


def _numbered(signals: tuple[Signal, ...]) -> dict[str, Signal]:
    """Name each signal by its kind and its place among those of its kind: `override-3`."""
    seen: Counter[str] = Counter()
    named: dict[str, Signal] = {}
    for each in signals:
        seen[each.kind.value] += 1
        named[f"{each.kind.value}-{seen[each.kind.value]}"] = each
    return named


SIGNALS: Final[Mapping[str, Signal]] = MappingProxyType(
    _numbered(
        (
            *OVERRIDES,
            *LEAKS,
            *REPLIES,
            *EXFILTRATIONS,
            *ADDRESSES,
            *PERSONAS,
            *FREEDOMS,
            *CONTROLS,
            *TRADES,
            *WORKS,
            *MARKS,
        )
    )
)
"""Severities were weighed on the development texts; see `docs/prompts.md` for the figures."""

TONGUES: Final[Mapping[str, Signal]] = MappingProxyType(
    {f"tongue-{name}": rule for name, rule in _numbered(FOREIGN).items()}
)
"""Signals in other languages, matched on the text as it is."""
