"""The journal: fsynced JSON lines for what the database could not take."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from tinywindow.safety.stores import fast_files

__all__ = ["Journal"]

LINE_BYTES_MAX = 65_536
READ_BYTES_MAX = 64 * 1024 * 1024


class Journal:
    """Append-only lines beside the database, merged into it once it is back.

    Kinds of lines: `latch` (a stop), `release` (a stop that was released, for history), and
    `audit` (a row that must follow). Each has an id, so that merging twice changes nothing.
    """

    __slots__ = ("_inode", "_offset", "_path", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._path = str(path)
        self._offset = 0
        self._inode = -1

    def append(self, entry: Mapping[str, object]) -> None:
        """Write one entry and wait until it is on disk.

        Raises:
            OSError: it could not be written.
        """
        fast_files.append_journal(self._path, dict(entry))

    def pending(self) -> tuple[int, tuple[dict[str, object], ...]]:
        """What this process has not merged yet: an offset for `merged`, and the entries.

        Lines that are torn or no JSON are skipped; a line that is still being written waits.

        Raises:
            OSError: the journal exists and cannot be read.
        """
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0, ()
        try:
            info = os.fstat(handle)
            if info.st_ino != self._inode or info.st_size < self._offset:
                self._inode, self._offset = info.st_ino, 0
            size = min(info.st_size - self._offset, READ_BYTES_MAX)
            data = os.pread(handle, size, self._offset) if size else b""
        finally:
            os.close(handle)
        whole = data.rfind(b"\n") + 1
        entries = [_entry(line) for line in data[:whole].split(b"\n")]
        return self._offset + whole, tuple(entry for entry in entries if entry is not None)

    def merged(self, offset: int) -> None:
        """Say that everything before `offset` is in the database."""
        self._offset = offset


def _entry(line: bytes) -> dict[str, object] | None:
    if not line or len(line) > LINE_BYTES_MAX:
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return None
    return value
