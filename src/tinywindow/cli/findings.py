"""What `doctor` looks at, one function a subject; each gives findings and changes nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.services.anchor import Anchor
from tinywindow.safety.stores.fast_files import read_kill_file
from tinywindow.safety.stores.migrate import current_revision
from tinywindow.safety.stores.schema import SCHEMA_REVISION
from tinywindow.settings import Settings

__all__ = [
    "Finding",
    "Level",
    "anchored",
    "clock",
    "configuration",
    "data_directory",
    "database",
    "stops",
]

FREE_BYTES_MIN: Final = 256 * 1024 * 1024
CLOCK_TOLERANCE: Final = timedelta(seconds=2)
OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
OTHERS_MAY_READ: Final = stat.S_IRGRP | stat.S_IROTH


class Level(StrEnum):
    """How grave a finding is: WRONG must be mended, NOTE is worth knowing."""

    OK = "OK"
    NOTE = "NOTE"
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, what was found, and how to mend it where it is wrong."""

    subject: str
    level: Level
    what: str
    mend: str = ""


def _ok(subject: str, what: str) -> Finding:
    return Finding(subject, Level.OK, what)


def _note(subject: str, what: str, mend: str = "") -> Finding:
    return Finding(subject, Level.NOTE, what, mend)


def _wrong(subject: str, what: str, mend: str) -> Finding:
    return Finding(subject, Level.WRONG, what, mend)


def configuration(settings: Settings, file: Path | None) -> Iterator[Finding]:
    """The configuration, which was read and found valid, and what in it does not fit together."""
    yield _ok("configuration", "valid; read from " + (str(file) if file else "no file"))
    limits = settings.position_limits
    for name in limits.allowed_symbols:
        quote = parse_symbol(name).quote
        if quote not in limits.quote_usd:
            yield _wrong(
                "configuration",
                f"{name} is quoted in {quote}, which has no rate: every entry would be refused",
                f"add {quote} to position_limits.quote_usd, or take {name} from allowed_symbols",
            )
    if limits.max_position_size > limits.max_total_exposure:
        yield _note(
            "configuration",
            "max_position_size is above max_total_exposure, which binds first",
            "lower position_limits.max_position_size",
        )
    for name in settings.run.symbols:
        if name not in limits.allowed_symbols:
            yield _note(
                "configuration",
                f"run.symbols has {name}, which is not on the whitelist",
                f"add {name} to position_limits.allowed_symbols, or take it from run.symbols",
            )


def data_directory(settings: Settings) -> Iterator[Finding]:
    """The data directory: there, writable, private, and with room left."""
    folder, subject = settings.data_dir, "data directory"
    if not folder.is_dir():
        yield _note(subject, f"{folder} does not exist yet", "the first run makes it")
        return
    if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield _ok(subject, f"{folder} can be read and written")
    else:
        yield _wrong(subject, f"{folder} cannot be written", f"give this user {folder}")
    if folder.stat().st_mode & OTHERS_MAY_WRITE:
        yield _wrong(
            subject,
            f"others may write in {folder}: they could remove or forge state",
            f"chmod go-w {folder}",
        )
    free = shutil.disk_usage(folder).free
    room = f"{free // 1024 // 1024} MiB are free on its disk"
    if free < FREE_BYTES_MIN:
        yield _wrong(subject, room, "make room: without it no order and no stop can be recorded")
    else:
        yield _ok(subject, room)
    tokens = folder / "tokens.json"
    if tokens.exists() and tokens.stat().st_mode & (OTHERS_MAY_READ | OTHERS_MAY_WRITE):
        yield _wrong(subject, "others may read tokens.json", f"chmod 600 {tokens}")


def database(path: Path, anchor: Anchor, now: datetime) -> Iterator[Finding]:
    """The SQLite file: schema, journal mode, integrity, and the anchor that belongs to it."""
    subject = "database"
    if not path.exists():
        yield _note(subject, f"{path} does not exist yet", "the first run makes it")
        return
    try:
        revision = current_revision(path)
        if revision == SCHEMA_REVISION:
            yield _ok(subject, f"{path} is at schema revision {revision}, the newest")
        else:
            yield _wrong(
                subject,
                f"{path} is at schema revision {revision}, the newest is {SCHEMA_REVISION}",
                "tinywindow db upgrade, or a newer TinyWindow where the revision is newer",
            )
            return
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            yield from _inside(connection, path, anchor, now)
        finally:
            connection.close()
    except (sqlite3.Error, StoreUnavailable) as error:
        yield _wrong(
            subject,
            f"{path} cannot be read: {error}",
            "stop every process, keep a copy, and restore the newest backup",
        )


def _inside(
    connection: sqlite3.Connection, path: Path, anchor: Anchor, now: datetime
) -> Iterator[Finding]:
    subject = "database"
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode == "wal":
        yield _ok(subject, "in WAL mode; TinyWindow's connections sync every commit in full")
    else:
        yield _wrong(subject, f"in mode {mode}, not WAL", "start TinyWindow once: it sets WAL")
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict == "ok":
        yield _ok(subject, "SQLite's quick check finds no damage")
    else:
        yield _wrong(subject, f"damaged: {verdict}", "restore the newest backup")
    if path.stat().st_mode & OTHERS_MAY_WRITE:
        yield _wrong(subject, f"others may write {path}", f"chmod go-w {path}")
    by_seq = "SELECT hash FROM audit_log WHERE seq = ?"

    def row_at(seq: int) -> str | None:
        row = connection.execute(by_seq, (seq,)).fetchone()
        return None if row is None else str(row[0])

    yield from anchored(row_at, anchor)
    yield from _newest(connection, now)


def anchored(hash_at: Callable[[int], str | None], anchor: Anchor) -> Iterator[Finding]:
    """The newest head that was kept outside, against the row that the database has there."""
    point = anchor.last()
    if point is None:
        yield _note("anchor", f"{anchor.path.name} holds nothing yet", "the first run writes it")
        return
    if hash_at(point.seq) == point.hash:
        yield _ok("anchor", f"row {point.seq} of the audit log is the one anchored outside")
    else:
        yield _wrong(
            "anchor",
            f"the audit log does not hold the anchored row {point.seq}: the database was "
            "replaced, restored or rolled back, and entries are refused",
            "tinywindow audit verify; then restore the newer database, or move the anchor away",
        )


def _newest(connection: sqlite3.Connection, now: datetime) -> Iterator[Finding]:
    row = connection.execute("SELECT time FROM audit_log ORDER BY seq DESC LIMIT 1").fetchone()
    if row is not None:
        yield from clock(datetime.fromisoformat(row[0]), now)


def clock(newest: datetime, now: datetime) -> Iterator[Finding]:
    """The wall clock against the newest row: it must not stand before it."""
    if newest - now > CLOCK_TOLERANCE:
        yield _wrong(
            "clock",
            f"the clock stands {newest - now} before the newest row: it was set back",
            "set the clock right, with chrony or systemd-timesyncd",
        )
    else:
        yield _ok("clock", "not before the newest row")


def stops(settings: Settings) -> Iterator[Finding]:
    """The file `KILL`, and what the journal still has for the database."""
    path = settings.data_dir / "KILL"
    latches = read_kill_file(str(path))
    if latches:
        modes = ", ".join(sorted({str(latch["mode"]) for latch in latches}))
        yield _note(
            "kill switch",
            f"the file KILL stands ({modes}: {latches[-1]['reason']}): no entry is sent",
            "once all is clear: tinywindow release --reason TEXT, then tinywindow start",
        )
    else:
        yield _ok("kill switch", "no file KILL")
    journal = settings.data_dir / "journal.jsonl"
    try:
        size = journal.stat().st_size
    except FileNotFoundError:
        yield _ok("journal", "empty: the database took everything")
    except OSError as error:
        yield _wrong("journal", f"cannot be read: {error.strerror}", f"give this user {journal}")
    else:
        yield _note(
            "journal",
            f"{size} bytes: what the database could not take once; merged at the next start",
        )
