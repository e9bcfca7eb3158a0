"""What went wrong in one round on a venue; each sentence once."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinywindow.safety.services.kill_report import LIST_MAX

__all__ = ["RoundErrors"]


@dataclass(slots=True)
class RoundErrors:
    """The errors of the round at hand, bounded."""

    sentences: list[str] = field(default_factory=list)

    def add(self, error: str) -> None:
        """Keep an error, unless it was kept before or there are too many."""
        if error not in self.sentences and len(self.sentences) < LIST_MAX:
            self.sentences.append(error)
