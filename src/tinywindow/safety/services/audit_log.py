"""The audit log, read back: pages of it, its verification, and exports, over any store.

Everything goes in batches, so that a log of millions of rows costs no more memory than one of a
thousand, and no reader of the store waits long behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tinywindow.safety.domain.audit import (
    GENESIS_HASH,
    AuditRow,
    ChainFault,
    EventType,
    verify_rows,
)
from tinywindow.safety.domain.records import Head
from tinywindow.safety.ports import Store, Tx
from tinywindow.safety.services.anchor import AnchorPoint
from tinywindow.safety.services.audit_export import ExportWriter, read_export

__all__ = ["AuditLog", "Verification", "verify_export"]

BATCH_ROWS: Final = 5_000
"""Rows that are read at once: some fifty milliseconds of the reader's time."""
PAGE_ROWS_MAX: Final = 1_000
"""Rows that one page may have."""
BEFORE_ANY: Final = -(2**63)
"""Below every sequence number, also those that no row of ours can have."""
FAULTS_KEPT_MAX: Final = 1_000
"""Faults that are kept with their sentences; every one is counted."""


@dataclass(slots=True)
class Verification:
    """What a verification found: how far it came, and what is wrong.

    `anchors` is how many anchored heads the rows were compared with. `faults` holds the first
    thousand of `faults_count`.
    """

    rows: int = 0
    seq: int = 0
    hash: str = GENESIS_HASH
    anchors: int = 0
    faults_count: int = 0
    faults: list[ChainFault] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return self.faults_count == 0


class _Walk:
    """A verification under way: fed with batches of rows, ended once."""

    def __init__(self, anchors: Iterable[AnchorPoint], *, after: AnchorPoint | None) -> None:
        self.found = Verification()
        if after is not None:
            self.found.seq, self.found.hash = after.seq, after.hash
        self._points = {p.seq: p.hash for p in anchors if p.seq > self.found.seq}
        self._missing = set(self._points)

    def feed(self, rows: Iterable[AuditRow]) -> None:
        """Take the next rows."""
        batch = tuple(rows)
        found = self.found
        found.rows += len(batch)
        found.seq, found.hash, faults = verify_rows(
            batch, after_seq=found.seq, after_hash=found.hash
        )
        for fault in faults:
            self._add(fault.seq, fault.message)
        for row in batch:
            anchored = self._points.get(row.seq)
            if anchored is None:
                continue
            if row.seq in self._missing:
                self._missing.remove(row.seq)
                found.anchors += 1
            if anchored != row.hash:
                self._add(row.seq, "the row is not the one that was anchored outside")

    def end(self, head: Head | None) -> Verification:
        """Compare the end with the store's head, where there is a store, and with the anchors."""
        found = self.found
        if head is not None and (head.audit_seq, head.audit_hash) != (found.seq, found.hash):
            self._add(
                found.seq,
                f"the chain ends at row {found.seq}, and the store's head is row {head.audit_seq}",
            )
        for seq in sorted(self._missing):
            self._add(seq, f"row {seq} was anchored outside, and is not there")
        return found

    def _add(self, seq: int, message: str) -> None:
        self.found.faults_count += 1
        if len(self.found.faults) < FAULTS_KEPT_MAX:
            self.found.faults.append(ChainFault(seq, message))


class AuditLog:
    """The audit log of one store, for reading. Every method raises `StoreUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(
        self, *, after: int = 0, limit: int = 100, event_type: EventType | None = None
    ) -> tuple[AuditRow, ...]:
        """Rows after a sequence number, in order; at most a thousand."""
        wanted = None if event_type is None else event_type.value
        bounded = min(max(limit, 0), PAGE_ROWS_MAX)
        return await self._store.read(
            lambda tx: tx.audit_rows(after=after, limit=bounded, event_type=wanted)
        )

    async def tail(self, count: int = 20) -> tuple[AuditRow, ...]:
        """The newest rows, in order; at most a thousand."""
        bounded = min(max(count, 0), PAGE_ROWS_MAX)
        return await self._store.read(lambda tx: tx.audit_tail(bounded))

    async def verify(
        self, anchors: Iterable[AnchorPoint] = (), *, after: AnchorPoint | None = None
    ) -> Verification:
        """Verify the chain to its end as it is when the end is reached.

        From the first row on, or from the row after an anchored one that is taken on trust:
        quick at start-up, and blind to what was changed before it.
        """
        walk = _Walk(anchors, after=after)
        head: Head | None = None
        async for rows, head in self._batches(BEFORE_ANY if after is None else after.seq):  # noqa: B007 - the last one is wanted
            await asyncio.to_thread(walk.feed, rows)
        return walk.end(head)

    async def export(self, path: Path) -> int:
        """Write the whole log to a new `.csv` or `.jsonl` file, whole or not at all.

        Returns the number of rows.

        Raises:
            ConfigurationError: the name ends otherwise.
            OSError: the file cannot be written.
        """
        writer = await asyncio.to_thread(ExportWriter, path)
        try:
            async for rows, _ in self._batches(BEFORE_ANY):
                await asyncio.to_thread(writer.write, rows)
            await asyncio.to_thread(writer.finish)
        finally:
            writer.discard()
        return writer.rows

    async def _batches(self, after: int) -> AsyncIterator[tuple[tuple[AuditRow, ...], Head]]:
        """Batches of rows, each with the head of the same moment; the last one may be empty."""
        while True:
            rows, head = await self._store.read(lambda tx, after=after: _batch(tx, after))  # type: ignore[misc]
            yield rows, head
            if len(rows) < BATCH_ROWS:
                return
            after = rows[-1].seq


def _batch(tx: Tx, after: int) -> tuple[tuple[AuditRow, ...], Head]:
    return tx.audit_rows(after=after, limit=BATCH_ROWS), tx.head()


def verify_export(path: Path, anchors: Iterable[AnchorPoint] = ()) -> Verification:
    """Verify an exported file from its first row on; blocks, and needs no store.

    Without anchors an end that was cut off cannot be seen, since a file has no head.

    Raises:
        ConfigurationError: the file is no export, or a line is damaged beyond reading.
        OSError: the file cannot be read.
    """
    walk = _Walk(anchors, after=None)
    for batch in _in_batches(read_export(path)):
        walk.feed(batch)
    return walk.end(None)


def _in_batches(rows: Iterator[AuditRow]) -> Iterator[list[AuditRow]]:
    batch: list[AuditRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    yield batch
