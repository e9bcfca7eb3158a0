"""What a command says: calm text for people on a terminal, or one JSON document for programs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from tinywindow.safety.domain.audit import utc_text
from tinywindow.safety.domain.money import plain

__all__ = ["Output", "plain_data", "sheet", "text"]


def plain_data(value: object) -> object:
    """A value as JSON has it: decimals are text, times ISO 8601 in UTC with `Z`."""
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_data(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_data(inner) for inner in value]
    return value


def text(value: object) -> str:
    """A value for people, safe to print: no control characters, no markup."""
    shown = str(plain_data(value))
    return escape("".join(mark if mark.isprintable() else "?" for mark in shown))


def sheet(*headings: str, rows: Iterable[Iterable[object]]) -> Table:
    """A plain table; every cell is escaped."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(text(cell) for cell in row))
    return table


def _nowhere(_line: str) -> None:
    """Show nothing."""


class Output:
    """Where a command's words go: text or JSON to standard output, all else to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._out = Console(file=sys.stdout, highlight=False)
        self.progress = Console(file=sys.stderr, highlight=False)
        """Standard error, for progress on a terminal."""

    def say(self, *parts: RenderableType) -> None:
        """Print for people; silent under `--json`. A string may hold markup of ours."""
        if not self.as_json:
            for part in parts:
                self._out.print(part, soft_wrap=isinstance(part, str))

    @contextlib.contextmanager
    def moment(self) -> Iterator[Callable[[str], None]]:
        """Give a way to show a line that the next one replaces; only on a terminal."""
        if self.as_json or not self._out.is_terminal:
            yield _nowhere
            return
        with self._out.status("") as line:
            yield lambda words: line.update(text(words))

    def warn(self, line: str) -> None:
        """Print one line to standard error."""
        self.progress.print(f"tinywindow: {text(line)}", soft_wrap=True)

    def document(self, data: object) -> None:
        """Print the one JSON document; silent without `--json`."""
        if self.as_json:
            self.line(data)

    def line(self, data: object) -> None:
        """Print one JSON value on one line."""
        sys.stdout.write(json.dumps(plain_data(data), ensure_ascii=True) + "\n")
        sys.stdout.flush()
