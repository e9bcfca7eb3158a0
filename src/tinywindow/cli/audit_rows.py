"""Audit rows read straight from where they are kept: the SQLite file, or an export of it.

The database is read without the store that wrote it, so that what verifies shares nothing with
what is verified but the hash.
"""

from __future__ import annotations

import contextlib
import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tinywindow.safety.domain.audit import AuditRow
from tinywindow.safety.errors import ConfigurationError, StoreUnavailable

__all__ = ["COLUMNS", "Chain", "read_export", "write_export"]

COLUMNS: Final = (
    "seq",
    "id",
    "time",
    "event_type",
    "actor",
    "agent_id",
    "order_id",
    "decision_id",
    "data",
    "prev_hash",
    "hash",
)
FIELD_CHARS_MAX: Final = 16 * 1024 * 1024
_NULLABLE: Final = frozenset({"agent_id", "order_id", "decision_id"})
_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM audit_log"  # noqa: S608 - our own names


class Chain:
    """The audit log of one SQLite file, opened for reading only."""

    def __init__(self, database: Path) -> None:
        """Open the file.

        Raises:
            StoreUnavailable: there is no such file, or it cannot be read.
        """
        if not database.exists():
            raise StoreUnavailable(f"there is no database at {database}")
        with _faults():
            self._connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)

    def rows(self, *, after: int = 0) -> Iterator[AuditRow]:
        """Every row after a sequence number, in order."""
        with _faults():
            for row in self._connection.execute(f"{_SELECT} WHERE seq > ? ORDER BY seq", (after,)):
                yield AuditRow(*row)

    def tail(self, count: int) -> list[AuditRow]:
        """The newest rows, in order."""
        with _faults():
            found = self._connection.execute(
                f"{_SELECT} ORDER BY seq DESC LIMIT ?", (count,)
            ).fetchall()
        return [AuditRow(*row) for row in reversed(found)]

    def head(self) -> tuple[int, str]:
        """The sequence number and hash that the store believes to be the chain's last."""
        with _faults():
            row = self._connection.execute("SELECT audit_seq, audit_hash FROM head").fetchone()
        return (0, "") if row is None else (int(row[0]), str(row[1]))

    def waiting(self) -> int:
        """How many rows wait in the outbox: a stop's row follows it."""
        with _faults():
            return int(self._connection.execute("SELECT COUNT(*) FROM outbox").fetchone()[0])

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the database cannot be read: {error}") from error


def _is_csv(path: Path) -> bool:
    if path.suffix not in {".csv", ".jsonl"}:
        raise ConfigurationError(f"{path}: an export ends in .csv or .jsonl")
    return path.suffix == ".csv"


def write_export(rows: Iterable[AuditRow], path: Path) -> int:
    """Write rows to a new CSV or JSON-lines file, whole or not at all; give their number.

    Raises:
        ConfigurationError: the name ends in neither `.csv` nor `.jsonl`.
        StoreUnavailable: the file cannot be written.
    """
    as_csv = _is_csv(path)
    partial = path.with_name(path.name + ".partial")
    count = 0
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if as_csv:
                writer.writerow(COLUMNS)
            for row in rows:
                values = [getattr(row, name) for name in COLUMNS]
                if as_csv:
                    writer.writerow(values)
                else:
                    file.write(json.dumps(dict(zip(COLUMNS, values, strict=True))) + "\n")
                count += 1
        partial.replace(path)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def read_export(path: Path) -> Iterator[AuditRow]:
    """Read an export back. An empty field that may be absent counts as absent.

    Raises:
        ConfigurationError: it is no export of ours, or a line of it is damaged beyond reading.
        StoreUnavailable: the file cannot be read.
    """
    as_csv = _is_csv(path)
    csv.field_size_limit(FIELD_CHARS_MAX)
    number = 0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines: Iterable[object] = csv.DictReader(file) if as_csv else map(json.loads, file)
            for number, line in enumerate(lines, 1):  # noqa: B007 - said where a line is damaged
                yield _row(line)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, csv.Error, RecursionError) as error:
        raise ConfigurationError(
            f"{path}: entry {number + 1} is no audit row: {type(error).__name__}"
        ) from error


def _row(line: object) -> AuditRow:
    if not isinstance(line, dict) or set(line) != set(COLUMNS):
        raise TypeError
    texts: dict[str, str | None] = {}
    for name in COLUMNS[1:]:
        value = line[name]
        if value is None or (value == "" and name in _NULLABLE):
            if name not in _NULLABLE:
                raise TypeError
            texts[name] = None
        elif isinstance(value, str):
            texts[name] = value
        else:
            raise TypeError
    return AuditRow(int(str(line["seq"])), **texts)  # type: ignore[arg-type]
