"""The `KILL` file and the journal on disk, with the standard library only.

The command `kill` must have latched within 100 ms of its process's start, so this module imports
nothing but C modules and `json`, and works on plain mappings: `id`, `mode`, `reason`, `actor`,
`source` and `activated_ms` (milliseconds of Unix time). `KillFile` and `Journal` are built on it,
so there is one way to write each.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import stat

HALT_ONLY = "HALT_ONLY"
CLOSE_POSITIONS = "CLOSE_POSITIONS"
FILE_BYTES_MAX = 65_536
"""What is read of a `KILL` file; one that is larger was not written by us."""
LATCHES_MAX = 64
"""Latches that one `KILL` file names; each is in the database or the journal as well."""
LOCK_WAIT_MS = 100
"""How long a stop waits for the lock beside a file; then it writes without it."""
TEXT_CHARS_MAX = 500
ID_CHARS_MAX = 64
UNREADABLE = "file-unreadable-"
_MS_MAX = 4_102_444_800_000
_FIELDS = ("id", "mode", "reason", "actor", "source")

LatchFields = dict[str, object]


def canonical(value: object) -> str:
    """The canonical JSON text of plain values, the same as `domain.audit.canonical_json`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def mode_of(raw: bytes) -> str:
    """Read the mode that foreign content asks for; whatever is unclear never closes anything."""
    if len(raw) > FILE_BYTES_MAX:
        return HALT_ONLY
    if raw.strip() == CLOSE_POSITIONS.encode():
        return CLOSE_POSITIONS
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return HALT_ONLY
    if isinstance(value, dict) and value.get("mode") == CLOSE_POSITIONS:
        return CLOSE_POSITIONS
    return HALT_ONLY


def _own_latches(raw: bytes) -> list[LatchFields] | None:
    """The latches of a file that we wrote, or None when somebody else did."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("tinywindow") != 1:
        return None
    latches = value.get("latches")
    if not isinstance(latches, list) or not latches or len(latches) > LATCHES_MAX:
        return None
    return latches if all(is_latch(latch) for latch in latches) else None


def _is_text(value: object) -> bool:
    """Whether every store can hold a text: PostgreSQL takes no NUL, and none a lone surrogate."""
    if not isinstance(value, str) or "\x00" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_latch(value: object) -> bool:
    """Whether a plain value has the shape of a latch."""
    if not isinstance(value, dict):
        return False
    if not all(isinstance(value.get(name), str) and value[name] for name in _FIELDS[:2]):
        return False
    if not all(_is_text(value.get(name)) for name in _FIELDS):
        return False
    at_ms = value.get("activated_ms")
    return (
        value["mode"] in {HALT_ONLY, CLOSE_POSITIONS}
        and len(value["id"]) <= ID_CHARS_MAX
        and type(at_ms) is int
        and 0 <= at_ms <= _MS_MAX
    )


def read_kill_file(path: str) -> list[LatchFields]:
    """Read the latches that a `KILL` file names; empty only when there is no file.

    Foreign content is one latch, whose id follows from the file itself, so that every process
    that reads it finds the same one. What cannot be read is such a latch too.
    """
    try:
        info = os.stat(path)
    except FileNotFoundError as fault:
        # A link that leads nowhere is still an entry of that name, and so a stop.
        return [_unreadable(fault)] if os.path.lexists(path) else []
    except OSError as fault:
        return [_unreadable(fault)]
    raw = b""
    if stat.S_ISREG(info.st_mode):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                info = os.fstat(handle)
                raw = os.read(handle, FILE_BYTES_MAX + 1)
            finally:
                os.close(handle)
        except FileNotFoundError:
            return []
        except OSError as fault:
            return [_unreadable(fault)]
    own = _own_latches(raw)
    return [_foreign(raw, info)] if own is None else own


def _foreign(raw: bytes, info: os.stat_result) -> LatchFields:
    import hashlib  # noqa: PLC0415 - only foreign content needs it, and it costs start-up time

    identity = f"{info.st_ino}:{info.st_mtime_ns}:{info.st_size}:".encode()
    digest = hashlib.sha256(identity + raw).hexdigest()
    shown = ascii(raw[:80].decode("utf-8", "replace"))
    return {
        "id": f"file-{digest[:32]}",
        "mode": mode_of(raw),
        "reason": f"the file KILL was made by hand and holds {shown}",
        "actor": f"uid {info.st_uid}",
        "source": "FILE",
        "activated_ms": min(max(info.st_mtime_ns // 1_000_000, 0), _MS_MAX),
    }


def _unreadable(fault: OSError) -> LatchFields:
    name = errno.errorcode.get(fault.errno or 0, "EIO")
    return {
        "id": f"{UNREADABLE}{name}",
        "mode": HALT_ONLY,
        "reason": f"the file KILL cannot be read: {name}",
        "actor": "unknown",
        "source": "FILE",
        "activated_ms": 0,
    }


class Locked:
    """An exclusive `flock` beside a file, waited for at most `LOCK_WAIT_MS`.

    `flock` has no time-out of its own, and a paused process may hold it for ever. A stop goes on
    without the lock; whoever asks `required` gets a `TimeoutError` instead.
    """

    def __init__(self, path: str, *, required: bool = False) -> None:
        self._path = path + ".lock"
        self._required = required
        self._handle = -1

    def __enter__(self) -> Locked:  # noqa: PYI034 - `typing` would cost start-up time
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._handle = os.open(self._path, flags, 0o600)
        for attempt in range(LOCK_WAIT_MS + 1):
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if attempt < LOCK_WAIT_MS:
                    select.select([], [], [], 0.001)
            else:
                return self
        if self._required:
            os.close(self._handle)
            raise TimeoutError(f"the lock {self._path} was not free within {LOCK_WAIT_MS} ms")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def sync_folder(path: str) -> None:
    """Make a rename or a new name in the folder of `path` durable."""
    handle = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write every byte."""
    while data:
        data = data[os.write(handle, data) :]


def replace_file(path: str, data: bytes) -> None:
    """Put `data` in place of a file: whole or not at all, and durable."""
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    sync_folder(path)


def write_kill_file(
    path: str, latches: list[LatchFields], *, drop: frozenset[str] = frozenset()
) -> None:
    """Name `latches` in the `KILL` file, beside what it names already but for `drop`.

    Raises:
        OSError: it could not be written; what stood there stands.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with Locked(path):
        joined = {str(latch["id"]): latch for latch in read_kill_file(path)}
        joined.update({str(latch["id"]): latch for latch in latches})
        kept = [latch for key, latch in joined.items() if key not in drop]
        # The strongest and the newest stay when there are more than a file holds.
        kept.sort(key=lambda latch: (latch["mode"] == CLOSE_POSITIONS, latch["activated_ms"]))
        _put_latches(path, kept[-LATCHES_MAX:])


def _put_latches(path: str, latches: list[LatchFields]) -> None:
    short = [{**latch, "reason": str(latch["reason"])[:TEXT_CHARS_MAX]} for latch in latches]
    replace_file(path, canonical({"tinywindow": 1, "latches": short}).encode() + b"\n")


def _released(latch: LatchFields, released: frozenset[str]) -> bool:
    """Whether a latch in a file may go; what could not be read may always be a newer stop."""
    return latch["id"] in released and not str(latch["id"]).startswith(UNREADABLE)


def clear_kill_file(path: str, released: frozenset[str]) -> bool:
    """Remove the `KILL` file if it names nothing but `released`; True when there is none after.

    Raises:
        OSError: it could not be removed, or its lock was not free in time.
    """
    if not read_kill_file(path):
        return True
    with Locked(path, required=True):
        latches = read_kill_file(path)
        kept = [latch for latch in latches if not _released(latch, released)]
        if kept:
            if len(kept) < len(latches):
                _put_latches(path, kept)
            return False
        # It is moved aside first and read again then: what was judged is what is removed.
        aside = f"{path}.released"
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return True
        if not all(_released(latch, released) for latch in read_kill_file(aside)):
            if not os.path.lexists(path):
                os.rename(aside, path)
            return False
        os.unlink(aside)
        sync_folder(path)
        return not os.path.lexists(path)


def append_journal(path: str, entry: dict[str, object]) -> None:
    """Append one line to the journal, durably. A line that was torn before ends first.

    Raises:
        OSError: the line could not be written.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    line = canonical(entry).encode() + b"\n"
    with Locked(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            write_all(handle, b"\n" + line if torn else line)
            os.fsync(handle)
        finally:
            os.close(handle)
        if size == 0:
            sync_folder(path)


def journal_entry(latch: LatchFields) -> dict[str, object]:
    """The journal's line for a latch that the database could not take."""
    return {"kind": "latch", **latch}
