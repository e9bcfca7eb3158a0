"""What the breaker keeps in the store as small JSON texts, by key; the same text is read once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tinywindow.safety.domain.audit import canonical_json
from tinywindow.safety.domain.nav_state import NavState

__all__ = [
    "NAV",
    "NAV_RULES",
    "RESET_MARK",
    "UNWATCHED",
    "WATCHES",
    "Unwatched",
    "cleared_ms",
    "nav_state",
    "nav_text",
    "reset_text",
]

NAV: Final = "nav"
"""The NAV state after the newest mark."""
RESET_MARK: Final = "breaker"
"""When the counting metrics were last cleared by a confirmed reset."""
WATCHES: Final = "equity_watch"
"""What each account's next mark is compared with; see `domain.equity_jump`."""
UNWATCHED: Final = "unwatched"
"""Where the breaker must begin to look: marks came in while nobody evaluated them."""
NAV_RULES: Final = "nav_rules"
"""When a day opens, for those who record marks without a breaker."""


@dataclass(frozen=True, slots=True)
class Unwatched:
    """The NAV state before the first mark that no breaker has evaluated yet.

    `mark_id` and `received_ms` are those of the newest mark that was.
    """

    mark_id: int
    received_ms: int
    state: NavState

    def to_text(self) -> str:
        """The canonical text."""
        return canonical_json([self.mark_id, self.received_ms, self.state.to_data()])


@lru_cache(maxsize=8)
def _nav_state(text: str) -> NavState:
    return NavState.from_data(json.loads(text))


@lru_cache(maxsize=8)
def _cleared_ms(text: str) -> int:
    return int(json.loads(text)["cleared_ms"])


def nav_state(documents: Mapping[str, str]) -> NavState:
    """The NAV state; a fresh one where there was no mark yet."""
    text = documents.get(NAV)
    return NavState() if text is None else _nav_state(text)


def nav_text(state: NavState) -> str:
    """The NAV state as the text that the store keeps."""
    return canonical_json(state.to_data())


def cleared_ms(documents: Mapping[str, str]) -> int:
    """Attempts up to this moment do not count any more; zero where nothing was ever cleared."""
    text = documents.get(RESET_MARK)
    return 0 if text is None else _cleared_ms(text)


def reset_text(at_ms: int) -> str:
    """The reset mark as the text that the store keeps."""
    return canonical_json({"cleared_ms": at_ms})


def unwatched(text: str | None) -> Unwatched | None:
    """Where the breaker must begin to look, or None where everything was evaluated."""
    if not text:
        return None
    mark_id, received_ms, state = json.loads(text)
    return Unwatched(int(mark_id), int(received_ms), NavState.from_data(state))
