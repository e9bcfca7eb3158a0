"""One finding: what, where, and how much it says."""

from __future__ import annotations

from dataclasses import dataclass

from tinywindow.safety.domain.prompts.signal import FindingKind

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at `start` to `end`, by which rule, with a severity from 1 to 100."""

    kind: FindingKind
    start: int
    end: int
    severity: int
    rule: str

    @property
    def span(self) -> tuple[int, int]:
        """Where it stands in the text as it was given, in characters."""
        return (self.start, self.end)
