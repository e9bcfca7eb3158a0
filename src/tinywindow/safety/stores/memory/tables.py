"""Tables in plain Python, and an undo log that takes a failed transaction back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar, cast

from tinywindow.safety.domain.audit import GENESIS_HASH, AuditRow, SealedDraft
from tinywindow.safety.domain.kill import Latch
from tinywindow.safety.domain.order import PositionKey
from tinywindow.safety.domain.records import (
    CloseRecord,
    Head,
    Hold,
    Lease,
    MarkRecord,
    Position,
    ReferencePrice,
    TradingState,
    Trip,
)
from tinywindow.safety.domain.windows import Execution

__all__ = ["Table", "Tables", "Undo"]

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Final = object()


class Undo:
    """What must be done to take back what a transaction did, newest last."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, step: Callable[[], object]) -> None:
        """Remember how one change is taken back."""
        self._steps.append(step)

    def begin(self) -> None:
        """Forget what came before: it is committed."""
        self._steps.clear()

    def roll_back(self) -> None:
        """Take everything back that happened since `begin`."""
        while self._steps:
            self._steps.pop()()

    def __len__(self) -> int:
        return len(self._steps)


class Table(Generic[K, V]):
    """A mapping whose every change can be taken back."""

    def __init__(self, undo: Undo) -> None:
        self.rows: dict[K, V] = {}
        self._undo = undo

    def put(self, key: K, row: V) -> None:
        """Insert or replace a row."""
        before = self.rows.get(key, _ABSENT)
        self.rows[key] = row
        if before is _ABSENT:
            self._undo.add(lambda: self.rows.pop(key))
        else:
            self._undo.add(lambda: self.rows.__setitem__(key, cast("V", before)))

    def drop(self, keys: Iterable[K]) -> None:
        """Remove rows that are there; the way back keeps where they stood among the others."""
        gone = set(keys)
        if not gone:
            return
        before = self.rows
        self.rows = {key: row for key, row in before.items() if key not in gone}
        self._undo.add(lambda: self._restore(before))

    def _restore(self, rows: dict[K, V]) -> None:
        self.rows = rows


class Tables:
    """Everything that a store keeps."""

    def __init__(self) -> None:
        self.undo = Undo()
        self.head = Head(0, 0, TradingState.RUNNING, 0, GENESIS_HASH, 0)
        self.latches: Table[str, Latch] = Table(self.undo)
        self.trips: Table[str, Trip] = Table(self.undo)
        self.holds: Table[str, Hold] = Table(self.undo)
        self.decisions: Table[str, str] = Table(self.undo)
        self.fills: Table[int, tuple[Hold, int]] = Table(self.undo)
        self.positions: Table[PositionKey, Position] = Table(self.undo)
        self.prices: Table[str, ReferencePrice] = Table(self.undo)
        self.marks: Table[int, MarkRecord] = Table(self.undo)
        self.executions: Table[int, Execution] = Table(self.undo)
        self.attempts: Table[str, int] = Table(self.undo)
        self.audit: Table[int, AuditRow] = Table(self.undo)
        self.audit_ids: Table[str, int] = Table(self.undo)
        self.outbox: Table[str, SealedDraft] = Table(self.undo)
        self.leases: Table[str, Lease] = Table(self.undo)
        self.closes: Table[str, CloseRecord] = Table(self.undo)
        self.documents: Table[str, str] = Table(self.undo)
