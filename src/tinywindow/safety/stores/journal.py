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
TAIL_BYTES = 256
"""What is remembered of the end of what was read, to notice that the file was replaced."""


class Journal:
    """Append-only lines beside the database, merged into it once it is back.

    Kinds of lines: `latch` (a stop), `release` (a stop that was released, for history), and
    `audit` (a row that must follow). Each has an id, so that merging twice changes nothing.
    """

    __slots__ = ("_offset", "_path", "_read", "_tail", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._path = str(path)
        self._offset = 0
        self._tail = b""
        self._read = b""

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
            # A file that was replaced does not hold what was read before, whatever its inode.
            begin = self._offset - len(self._tail)
            if os.pread(handle, len(self._tail), begin) != self._tail:
                self._offset, self._tail = 0, b""
            data = os.pread(handle, READ_BYTES_MAX, self._offset)
        finally:
            os.close(handle)
        whole = data.rfind(b"\n") + 1
        self._read = data[:whole]
        entries = [_entry(line) for line in data[:whole].split(b"\n")]
        return self._offset + whole, tuple(entry for entry in entries if entry is not None)

    def merged(self, offset: int) -> None:
        """Say that everything before `offset`, as `pending` gave it, is in the database."""
        if offset != self._offset:
            self._offset = offset
            self._tail = self._read[-TAIL_BYTES:]


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
