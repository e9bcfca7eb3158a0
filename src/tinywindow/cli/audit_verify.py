"""Verification of an audit chain: links, hashes, gaps, the head, and the anchors outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tinywindow.safety.domain.audit import AuditRow, verify_rows
from tinywindow.safety.services.anchor import AnchorPoint

__all__ = ["Verified", "verify_chain"]

FAULTS_MAX: Final = 100
"""Faults that are listed; the rest is counted."""


@dataclass(slots=True)
class Verified:
    """What was found: `faults` are (row, sentence), at most a hundred of `faults_count`."""

    rows: int = 0
    seq: int = 0
    hash: str = ""
    anchors: int = 0
    faults_count: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return self.faults_count == 0

    def add(self, seq: int, message: str) -> None:
        """Note a fault."""
        self.faults_count += 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append((seq, message))


def verify_chain(
    rows: Iterable[AuditRow],
    anchors: Iterable[AnchorPoint],
    head: tuple[int, str] | None,
) -> Verified:
    """Walk the chain once, from the first row on.

    `head` is what the store believes to be the last row; None for an export, which has none.
    """
    found = Verified()
    points = {point.seq: point.hash for point in anchors}
    found.anchors = len(points)
    missing = dict(points)

    def watched() -> Iterator[AuditRow]:
        for row in rows:
            found.rows += 1
            anchored = missing.pop(row.seq, None)
            if anchored is not None and anchored != row.hash:
                found.add(row.seq, "the row is not the one that was anchored outside")
            yield row

    found.seq, found.hash, faults = verify_rows(watched())
    for fault in faults:
        found.add(fault.seq, fault.message)
    if head is not None and head != (found.seq, found.hash) and head[0] + found.seq > 0:
        found.add(found.seq, f"the chain ends at row {found.seq}, the store's head is {head[0]}")
    if missing:
        lost = max(missing)
        found.add(lost, f"the chain ends at row {found.seq}; row {lost} was anchored outside")
    return found
