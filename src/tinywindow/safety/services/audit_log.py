"""The audit log, read back: pages of it, its verification, and exports, over any store.

A store can be read, and so can a database that is opened for reading alone: see `open_audit`.

Everything goes in batches, so that a log of millions of rows costs no more memory than one of a
thousand, and no reader of the store waits long behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

from tinywindow.safety.domain.audit import (
    GENESIS_HASH,
    AuditRow,
    ChainFault,
    EventType,
    verify_rows,
)
from tinywindow.safety.services.anchor import AnchorPoint
from tinywindow.safety.services.audit_export import ExportWriter, read_export
from tinywindow.safety.services.location import Location
from tinywindow.safety.stores.audit_reader import AuditDamaged, AuditReader, SqliteAuditReader

__all__ = ["AuditLog", "AuditSource", "Verification", "open_audit", "verify_export"]

T = TypeVar("T")

BATCH_ROWS: Final = 5_000
"""Rows that are read at once: some fifty milliseconds of the reader's time."""
CHUNK_ROWS: Final = 250
"""Rows that are verified at once."""
PAGE_ROWS_MAX: Final = 1_000
"""Rows that one page may have."""
TAIL_ROWS_MAX: Final = 10_000
"""Rows that may be asked for from the end."""
BEFORE_ANY: Final = -(2**63)
"""Below every sequence number, also those that no row of ours can have."""
FAULTS_KEPT_MAX: Final = 1_000
"""Faults that are kept with their sentences; every one is counted."""


class _End(Protocol):
    """Where a database says that the chain ends."""

    @property
    def audit_seq(self) -> int: ...

    @property
    def audit_hash(self) -> str: ...


class _View(Protocol):
    """What a reading script sees: a `Tx` of a store, or an `AuditView`."""

    def audit_rows(
        self, *, after: int = 0, limit: int = 1000, event_type: str | None = None
    ) -> tuple[AuditRow, ...]: ...

    def audit_tail(self, count: int) -> tuple[AuditRow, ...]: ...

    def head(self) -> _End: ...


class AuditSource(Protocol):
    """What a log can be read from: every `Store`, and every `AuditReader`."""

    async def read(self, script: Callable[[_View], T]) -> T:
        """Run a script that only reads, on one snapshot."""
        ...


async def open_audit(location: Location) -> AuditReader:
    """Open the log of a database for reading alone: nothing is made, upgraded or locked.

    Raises:
        StoreUnavailable: there is none, or it cannot be read.
    """
    if location.sqlite_path is not None:
        return await asyncio.to_thread(SqliteAuditReader, location.sqlite_path)
    from tinywindow.safety.stores.pg.audit_reader import (  # noqa: PLC0415 - an extra
        PostgresAuditReader,
    )

    return await asyncio.to_thread(PostgresAuditReader, location.url)


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


@dataclass(slots=True)
class _Step:
    """What the next rows are found to be: made from the walk so far, and changing nothing of it.

    A store may run a reading script a second time; a step is taken once, or not at all.
    """

    points: Mapping[int, str]
    seq: int
    hash: str
    rows: int = 0
    matched: list[int] = field(default_factory=list)
    faults: list[ChainFault] = field(default_factory=list)

    def feed(self, batch: Sequence[AuditRow]) -> None:
        """Take the next rows."""
        self.rows += len(batch)
        self.seq, self.hash, faults = verify_rows(batch, after_seq=self.seq, after_hash=self.hash)
        self.faults.extend(faults)
        for row in batch if self.points else ():
            anchored = self.points.get(row.seq)
            if anchored is not None:
                self.matched.append(row.seq)
                if anchored != row.hash:
                    fault = "the row is not the one that was anchored outside"
                    self.faults.append(ChainFault(row.seq, fault))


class _Walk:
    """A verification under way: fed with batches of rows, ended once."""

    def __init__(self, anchors: Iterable[AnchorPoint], *, after: AnchorPoint | None) -> None:
        self.found = Verification()
        if after is not None:
            self.found.seq, self.found.hash = after.seq, after.hash
        self._points = {p.seq: p.hash for p in anchors if p.seq > self.found.seq}
        self._missing = set(self._points)

    def step(self) -> _Step:
        """A step from where the walk is."""
        return _Step(self._points, self.found.seq, self.found.hash)

    def take(self, step: _Step) -> None:
        """Go that step."""
        found = self.found
        found.rows += step.rows
        found.seq, found.hash = step.seq, step.hash
        found.anchors += len(self._missing.intersection(step.matched))
        self._missing.difference_update(step.matched)
        for fault in step.faults:
            self._add(fault.seq, fault.message)

    def damaged(self, error: AuditDamaged) -> Verification:
        """Say how far the log could be read; nothing is known of what follows."""
        self._add(self.found.seq, f"what follows row {self.found.seq} cannot be read: {error}")
        return self.found

    def end(self, head: _End | None) -> Verification:
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
    """One audit log, for reading. Every method raises `StoreUnavailable`."""

    def __init__(self, store: AuditSource) -> None:
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
        """The newest rows, in order; at most ten thousand."""
        bounded = min(max(count, 0), TAIL_ROWS_MAX)
        return await self._store.read(lambda tx: tx.audit_tail(bounded))

    async def verify(
        self, anchors: Iterable[AnchorPoint] = (), *, after: AnchorPoint | None = None
    ) -> Verification:
        """Verify the chain to its end as it is when the end is reached.

        From the first row on, or from the row after an anchored one that is taken on trust:
        quick at start-up, and blind to what was changed before it. Damage to the database itself
        is a fault of the log, too, as far as it could be read.
        """
        walk = _Walk(anchors, after=after)
        last = BEFORE_ANY if after is None else after.seq
        try:
            while True:
                step, end, head = await self._store.read(
                    lambda tx, last=last: _verified(walk.step(), tx, last)  # type: ignore[misc]  # mypy infers no type for a lambda with a default
                )
                walk.take(step)
                if end is None:
                    return walk.end(head)
                last = end
        except AuditDamaged as error:
            return walk.damaged(error)

    async def export(self, path: Path) -> int:
        """Write the whole log to a new `.csv` or `.jsonl` file, whole or not at all.

        Returns the number of rows.

        Raises:
            ConfigurationError: the name ends otherwise.
            OSError: the file cannot be written.
        """
        writer = await asyncio.to_thread(ExportWriter, path)
        try:
            async for rows in self._batches(BEFORE_ANY):
                await asyncio.to_thread(writer.write, rows)
            await asyncio.to_thread(writer.finish)
        finally:
            writer.discard()
        return writer.rows

    async def _batches(self, after: int) -> AsyncIterator[tuple[AuditRow, ...]]:
        """Batches of rows; the last one may be empty."""
        while True:
            rows = await self._store.read(
                lambda tx, after=after: tx.audit_rows(after=after, limit=BATCH_ROWS)  # type: ignore[misc]  # as above
            )
            yield rows
            if len(rows) < BATCH_ROWS:
                return
            after = _onwards(rows, after)


def _verified(step: _Step, tx: _View, after: int) -> tuple[_Step, int | None, _End]:
    """Verify the next rows on one snapshot.

    Gives the step, the last row's number where more may follow, and the head of that moment.
    Few rows at a time, so that what was just read is still in the processor's cache.
    """
    last: int | None = after
    while last is not None and step.rows < BATCH_ROWS:
        rows = tx.audit_rows(after=last, limit=CHUNK_ROWS)
        step.feed(rows)
        last = _onwards(rows, last) if len(rows) == CHUNK_ROWS else None
    return step, last, tx.head()


def _onwards(rows: Sequence[AuditRow], after: int) -> int:
    """The number of the last row, after which the next are read."""
    if rows[-1].seq <= after:
        # Without this a damaged order of the rows would be walked without end.
        raise AuditDamaged("the database is damaged: its rows are out of order")
    return rows[-1].seq


def verify_export(path: Path, anchors: Iterable[AnchorPoint] = ()) -> Verification:
    """Verify an exported file from its first row on; blocks, and needs no store.

    Without anchors an end that was cut off cannot be seen, since a file has no head.

    Raises:
        ConfigurationError: the file is no export, or a line is damaged beyond reading.
        OSError: the file cannot be read.
    """
    walk = _Walk(anchors, after=None)
    for batch in _in_batches(read_export(path)):
        step = walk.step()
        step.feed(batch)
        walk.take(step)
    return walk.end(None)


def _in_batches(rows: Iterator[AuditRow]) -> Iterator[list[AuditRow]]:
    batch: list[AuditRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == CHUNK_ROWS:
            yield batch
            batch = []
    yield batch
