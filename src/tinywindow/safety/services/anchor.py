"""The anchor: heads of the audit chain, kept outside the database.

A line is appended now and then, and at every close: sequence number, hash, time, and the chain
that it belongs to, which is named by the hash of its first row. A database that is behind its
anchor, or whose row there has another hash, was removed, restored or rolled back, or is another
one; entries are refused until an operator says otherwise.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from tinywindow.safety.domain.audit import utc_text
from tinywindow.safety.ports import Tx

__all__ = ["Anchor", "AnchorPoint", "chain_of"]

TAIL_BYTES: Final = 4096
SEQ_MAX: Final = 2**63 - 1
"""The largest number that a database gives a row; a line that names another is none of ours."""


@dataclass(frozen=True, slots=True)
class AnchorPoint:
    """One head of the chain: its sequence number and hash.

    `chain` is the hash of the chain's first row, which no other database shares; empty in lines
    that were written before anchors named it.
    """

    seq: int
    hash: str
    chain: str = ""


class Anchor:
    """An append-only file of heads; the newest whole line counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: int | None = None

    def points(self) -> tuple[AnchorPoint, ...]:
        """Every head that the file holds, oldest first; a torn last line is passed over."""
        try:
            text = self.path.read_text("utf-8", "replace")
        except FileNotFoundError:
            return ()
        return tuple(point for line in text.splitlines() if (point := _point(line)) is not None)

    def last(self) -> AnchorPoint | None:
        """The newest head, or None where there is no anchor yet."""
        try:
            with self.path.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(file.tell() - TAIL_BYTES, 0))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return None
        for line in reversed(lines):
            point = _point(line)
            if point is not None:
                return point
        return None

    def has_content(self) -> bool:
        """Whether anything was ever written to the file, readable or not."""
        try:
            return self.path.stat().st_size > 0
        except FileNotFoundError:
            return False

    def append(self, seq: int, digest: str, now: datetime, *, chain: str = "") -> None:
        """Add a head and sync it to disk; the same head is not written twice.

        `chain` names the database, as `chain_of` does.

        Raises:
            OSError: it could not be written.
        """
        if seq in {0, self._written}:
            return
        fields = {"seq": seq, "hash": digest, "time": utc_text(now)}
        line = json.dumps({**fields, "chain": chain} if chain else fields) + "\n"
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                # A line that a crash tore may not swallow this one.
                line = "\n" + line
            os.write(handle, line.encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        self._written = seq

    def fault(self, tx: Tx, point: AnchorPoint | None) -> str | None:
        """Say what is wrong when the database does not hold an anchored head, as `last` gave it."""
        if point is None:
            return None
        rows = tx.audit_rows(after=point.seq - 1, limit=1)
        if rows and (rows[0].seq, rows[0].hash) == (point.seq, point.hash):
            return None
        own = chain_of(tx)
        if point.chain and own and own != point.chain:
            return (
                f"{self.path.name} in the data directory was written for another database: give "
                "each database a data directory of its own, or, where this one is meant to take "
                "the other's place, move the anchor away"
            )
        if not rows or rows[0].seq != point.seq:
            return (
                f"the audit log ends at {tx.head().audit_seq}, before the anchored row "
                f"{point.seq}: the database is new, restored or rolled back"
            )
        return f"row {point.seq} of the audit log is not the anchored one"


def chain_of(tx: Tx) -> str:
    """The name of a database's chain: the hash of its first row, empty before there is one."""
    first = tx.audit_rows(limit=1)
    return first[0].hash if first else ""


def _point(line: str) -> AnchorPoint | None:
    try:
        data = json.loads(line)
        chain = data.get("chain", "")
        point = AnchorPoint(int(data["seq"]), str(data["hash"]), str(chain))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return point if 0 < point.seq <= SEQ_MAX else None
