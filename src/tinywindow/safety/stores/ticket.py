"""Turns at the database: a lock on a file beside it, which the kernel hands out in order."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol

__all__ = ["NoTurn", "Ticket", "Turn", "ticket_path"]


def ticket_path(database: Path) -> Path:
    """The file whose lock hands out turns at `database`."""
    return database.with_name(database.name + ".ticket")


class Turn(Protocol):
    """What must be had before a job may run."""

    def take(self) -> None:
        """Wait for the turn.

        Raises:
            OSError: there can be none.
        """
        ...

    def give_back(self) -> None:
        """Let the next one have it."""
        ...


class NoTurn:
    """For readers, who wait for nobody."""

    def take(self) -> None:
        """Go on at once."""

    def give_back(self) -> None:
        """Nobody waits."""


class Ticket:
    """A turn among all processes that write one database."""

    def __init__(self, database: Path) -> None:
        """Open the file beside the database, making it where there is none.

        Raises:
            OSError: it cannot be opened.
        """
        self._handle = os.open(ticket_path(database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> None:
        """Wait for the turn, behind everybody who asked before; the wait has no bound."""
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def give_back(self) -> None:
        """Let the next one have it."""
        fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file; what it was is never locked under its number again."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)
