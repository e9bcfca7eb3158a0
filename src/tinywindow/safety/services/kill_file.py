"""The file `KILL` in the data directory: its presence stops every gate on this host."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tinywindow.safety.domain.kill import Latch
from tinywindow.safety.stores import fast_files
from tinywindow.safety.stores.latch_fields import latch_of, latch_to_fields

__all__ = ["KillFile"]


class KillFile:
    """The host's own stop. Deleting it releases nothing: whoever saw it has latched it.

    It holds the latches that stand, as JSON of ours; any other content, of any size, is a stop
    too, under an identity that follows from the file itself.
    """

    __slots__ = ("_path", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._path = str(path)

    def exists(self) -> bool:
        """Whether there is such a file; what cannot be told counts as yes. Costs one `stat`."""
        try:
            os.lstat(self._path)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def read(self) -> tuple[Latch, ...]:
        """The latches that the file names; empty only when there is none.

        Foreign content is one latch: CLOSE_POSITIONS if the text is exactly that, or JSON whose
        `mode` is; else HALT_ONLY.
        """
        return tuple(latch_of(fields) for fields in fast_files.read_kill_file(self._path))

    def write(self, latches: Iterable[Latch], *, drop: Iterable[str] = ()) -> None:
        """Name `latches` beside what the file names already, less the ids in `drop`.

        Raises:
            OSError: it could not be written; what stood there stands.
        """
        fields = [latch_to_fields(latch) for latch in latches]
        fast_files.write_kill_file(self._path, fields, drop=frozenset(drop))

    def remove(self, released_ids: Iterable[str]) -> bool:
        """Remove the file if every latch it names was released; True when there is none after.

        Newer and foreign content stays, and so does every latch that was not released.

        Raises:
            OSError: it could not be removed, so the stop stands.
        """
        return fast_files.clear_kill_file(self._path, frozenset(released_ids))
