"""The audit log read through, with a word of how far the reading has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tinywindow.safety.domain.audit import AuditRow
from tinywindow.safety.stores.audit_reader import AuditReader, AuditView, ChainEnd

__all__ = ["Watched"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Followed:
    """One snapshot of the log; `rows` takes the last row's number of each batch."""

    view: AuditView
    rows: list[int]

    def audit_rows(
        self, *, after: int = 0, limit: int = 1000, event_type: str | None = None
    ) -> tuple[AuditRow, ...]:
        found = self.view.audit_rows(after=after, limit=limit, event_type=event_type)
        self.rows.extend(row.seq for row in found[-1:])
        return found

    def audit_tail(self, count: int) -> tuple[AuditRow, ...]:
        return self.view.audit_tail(count)

    def head(self) -> ChainEnd:
        return self.view.head()


@dataclass(slots=True)
class Watched:
    """An `AuditSource` that shows the number of the row it came to, after each read.

    `doing` says in a word what is done to the rows; `show` shows the line of the moment.
    """

    reader: AuditReader
    doing: str
    show: Callable[[str], None]

    async def read(self, script: Callable[[_Followed], T]) -> T:
        """Run a script that only reads, on one snapshot.

        Raises:
            StoreUnavailable: the log cannot be read.
        """
        # Shown from here: the script runs on a thread of the reader's, and may run twice.
        rows: list[int] = []
        found = await self.reader.read(lambda view: script(_Followed(view, rows)))
        if rows:
            self.show(f"{self.doing}: row {rows[-1]}")
        return found
