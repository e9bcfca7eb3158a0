"""Exports of the audit log: `.jsonl`, which is exact, and `.csv`, for spreadsheets.

Both carry the columns of `audit_log` by their names. In CSV an empty field stands for an absent
one; no row of ours has an empty agent, order or decision.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from tinywindow.safety.domain.audit import AuditRow
from tinywindow.safety.errors import ConfigurationError

__all__ = ["COLUMNS", "ExportWriter", "read_export"]

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
"""The columns of the log and of every export, in order."""

UNDECODED: Final = "surrogateescape"
"""Bytes that are no UTF-8 stand for themselves: a damaged row is exported, and found, as it is."""
_MAY_BE_ABSENT: Final = frozenset({"agent_id", "order_id", "decision_id"})
FIELD_CHARS_MAX: Final = 16 * 1024 * 1024
"""Characters of the longest field that is read back."""


def _is_csv(path: Path) -> bool:
    if path.suffix not in {".csv", ".jsonl"}:
        raise ConfigurationError(f"{path}: an export ends in .csv or .jsonl")
    return path.suffix == ".csv"


class ExportWriter:
    """Writes rows beside the file's place, and puts it there once it is whole."""

    def __init__(self, path: Path) -> None:
        """Begin an export.

        Raises:
            ConfigurationError: the name ends in neither `.csv` nor `.jsonl`.
            OSError: the file cannot be written.
        """
        self._csv = _is_csv(path)
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._file: IO[str] = self._partial.open(
            "w", encoding="utf-8", errors=UNDECODED, newline=""
        )
        self._table = csv.writer(self._file, lineterminator="\n")
        self.rows = 0
        if self._csv:
            self._table.writerow(COLUMNS)

    def write(self, rows: Iterable[AuditRow]) -> None:
        """Add rows."""
        for row in rows:
            values = [getattr(row, name) for name in COLUMNS]
            if self._csv:
                self._table.writerow(values)
            else:
                self._file.write(json.dumps(dict(zip(COLUMNS, values, strict=True))) + "\n")
            self.rows += 1

    def finish(self) -> None:
        """Sync what was written, and give it its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)

    def discard(self) -> None:
        """Remove what was not finished; after `finish` there is nothing to remove."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


def read_export(path: Path) -> Iterator[AuditRow]:
    """Read an export back, row by row.

    Raises:
        ConfigurationError: it is no export of ours, or a line of it is damaged beyond reading.
        OSError: it cannot be read.
    """
    as_csv = _is_csv(path)
    csv.field_size_limit(FIELD_CHARS_MAX)
    number = 0
    with path.open(encoding="utf-8", errors=UNDECODED, newline="") as file:
        try:
            lines: Iterable[object] = csv.DictReader(file) if as_csv else map(_parsed, file)
            for line in lines:
                number += 1
                yield _row(line, as_csv=as_csv)
        except (ValueError, KeyError, TypeError, csv.Error, RecursionError) as error:
            raise ConfigurationError(
                f"{path}: entry {max(number, 1)} is no audit row ({type(error).__name__})"
            ) from error


def _parsed(line: str) -> object:
    """One JSON object; a name that comes twice would show different readers different rows."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError("a name comes twice")
        return dict(pairs)

    return json.loads(line, object_pairs_hook=once)


def _row(line: object, *, as_csv: bool) -> AuditRow:
    if not isinstance(line, dict) or set(line) != set(COLUMNS):
        raise TypeError("not the columns of an audit row")
    texts = {name: line[name] for name in COLUMNS if name != "seq"}
    if as_csv:
        texts |= {name: None for name in _MAY_BE_ABSENT if not texts[name]}
    for name, value in texts.items():
        if not isinstance(value, str) and not (value is None and name in _MAY_BE_ABSENT):
            raise TypeError(name)
    seq = int(line["seq"]) if as_csv else line["seq"]
    # Only one spelling of a number counts: `1_0` and `+10` are not what was written.
    if isinstance(seq, bool) or not isinstance(seq, int) or str(seq) != str(line["seq"]):
        raise TypeError("seq")
    return AuditRow(seq=seq, **texts)
