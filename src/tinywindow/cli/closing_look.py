"""Whether anybody took a close up, asked right after the latch. Standard library only.

A process that can close takes the lease of its venue within moments of the stop. So the question
has an answer a little later, and none before.
"""

from __future__ import annotations

import select
import sqlite3
from collections.abc import Callable

__all__ = ["NOBODY", "file_query", "somebody_closes"]

NOBODY = "NOBODY IS CLOSING"
LOOK_FOR_S = 2.0
"""How long a sign of a close is looked for."""
LOOK_INTERVAL_S = 0.1
LEASES = "SELECT heartbeat_ms FROM leases WHERE name LIKE 'flatten/%'"
REPORTS = "SELECT report FROM close_progress"

Query = Callable[[str], list[tuple[object, ...]]]


def file_query(database: str) -> Query:
    """A way to read an SQLite file, without a lock on it between two statements."""

    def query(statement: str) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(f"file:{_quoted(database)}?mode=ro", uri=True, timeout=0.2)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    return query


def _quoted(path: str) -> str:
    return "".join(f"%{ord(mark):02x}" if mark in "%?#" else mark for mark in path)


def somebody_closes(query: Query, *, latch_id: str, since_ms: int) -> bool | None:
    """Whether a flattener's heart beat after the stop, or a report tells of it.

    None where the database cannot be asked.
    """
    for _ in range(round(LOOK_FOR_S / LOOK_INTERVAL_S)):
        try:
            beats = [row[0] for row in query(LEASES)]
            told = any(latch_id in str(row[0]) for row in query(REPORTS))
        except Exception:  # noqa: BLE001 - the stop stands; whoever cannot be asked says nothing
            return None
        if told or any(isinstance(at, int) and at >= since_ms for at in beats):
            return True
        select.select([], [], [], LOOK_INTERVAL_S)
    return False
