"""The anchor: heads of the audit chain, kept outside the database.

A line is appended now and then, and at every close: sequence number, hash and time. A database
that is behind its anchor, or whose row there has another hash, was removed, restored or rolled
back; entries are refused until an operator says otherwise.
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

__all__ = ["Anchor", "AnchorPoint"]

TAIL_BYTES: Final = 4096
SEQ_MAX: Final = 2**63 - 1
"""The largest number that a database gives a row; a line that names another is none of ours."""


@dataclass(frozen=True, slots=True)
class AnchorPoint:
    """One head of the chain: its sequence number and hash."""

    seq: int
    hash: str


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

    def append(self, seq: int, digest: str, now: datetime) -> None:
        """Add a head and sync it to disk; the same head is not written twice.

        Raises:
            OSError: it could not be written.
        """
        if seq in {0, self._written}:
            return
        line = json.dumps({"seq": seq, "hash": digest, "time": utc_text(now)}) + "\n"
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
        if not rows or rows[0].seq != point.seq:
            return (
                f"the audit log ends at {tx.head().audit_seq}, before the anchored row "
                f"{point.seq}: the database is new, restored or rolled back"
            )
        if rows[0].hash != point.hash:
            return f"row {point.seq} of the audit log is not the anchored one"
        return None


def _point(line: str) -> AnchorPoint | None:
    try:
        data = json.loads(line)
        point = AnchorPoint(int(data["seq"]), str(data["hash"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return point if 0 < point.seq <= SEQ_MAX else None
