"""Processes that ask for orders as fast as they can, and write down what they are answered."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from program import wait_for


@dataclass(kw_only=True)
class Crew:
    """The processes of one folder: each counts in `count-N`, and leaves its list in `answers-N`."""

    folder: Path
    number: int
    running: list[BaseProcess] = field(default_factory=list)

    def turns(self) -> list[int]:
        """How many answers each has had so far."""
        files = [self.folder / f"count-{n}" for n in range(self.number)]
        return [file.stat().st_size if file.exists() else 0 for file in files]

    def wait_for_turns(self, count: int) -> None:
        wait_for(lambda: min(self.turns()) >= count, f"{count} turns each", timeout_s=60)

    def answers(self, *, within_s: float) -> list[list[Any]]:
        """What each was answered, once all have ended in order."""
        for process in self.running:
            process.join(timeout=within_s)
            assert process.exitcode == 0
        files = [self.folder / f"answers-{n}" for n in range(self.number)]
        return [pickle.loads(file.read_bytes()) for file in files]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.running:
            if process.is_alive():
                process.kill()
            process.join()
