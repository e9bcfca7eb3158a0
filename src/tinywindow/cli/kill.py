"""The command `kill`: latch first, then talk. Standard library only, up to `--wait`.

It needs no valid configuration: where the file is broken, the environment and the defaults say
where the database is. From the process's start to the committed latch it takes under 100 ms.
"""

from __future__ import annotations

import os
import sys
import time

from tinywindow.cli.kill_request import HELP, HINT, KillRequest, WrongUsage, read_request
from tinywindow.cli.who import actor
from tinywindow.safety.stores import fast_files, fast_latch

__all__ = ["kill"]

DONE, WRONG_USAGE, NOT_REACHED = 0, 2, 3
DATABASE_FILE = "tinywindow.db"
CONFIG_FILE = "tinywindow.toml"
REPLAY_MARK = "REPLAY"
_SQLITE = ("sqlite:///", "sqlite+aiosqlite:///")


def kill(argv: list[str]) -> int:
    """Stop trading; give the exit code."""
    try:
        request = read_request(argv)
    except WrongUsage as wrong:
        _warn(f"{wrong}\n{HINT}")
        return WRONG_USAGE
    if request.help:
        sys.stdout.write(HELP)
        return DONE
    notes: list[str] = []
    data_dir, database = _places(request, notes)
    exists = database is not None and os.path.exists(database)
    now_ms = time.clock_gettime_ns(time.CLOCK_REALTIME) // 1_000_000
    result = fast_latch.stop(
        data_dir=data_dir,
        database=database if exists else None,
        mode=request.mode,
        reason=request.reason,
        actor=actor(),
        now_ms=now_ms,
        time_text=_utc_text(now_ms),
    )
    if not exists:
        place = database or "a local file"
        notes.append(f"there is no database at {place} yet: is {data_dir} right?")
    if os.path.exists(os.path.join(data_dir, REPLAY_MARK)):
        notes.append(f"{data_dir} is the data directory of a replay: nothing real trades there")
    return _finish(request, result, data_dir, notes, exists=exists)


def _finish(
    request: KillRequest,
    result: dict[str, object],
    data_dir: str,
    notes: list[str],
    *,
    exists: bool,
) -> int:
    standing = fast_files.read_kill_file(os.path.join(data_dir, fast_latch.KILL_FILE))
    in_file = any(latch["id"] == result["latch_id"] for latch in standing)
    # A stop never lowers the mode: one that stood before may be the stronger.
    closing = any(latch["mode"] == fast_files.CLOSE_POSITIONS for latch in standing)
    in_force = fast_files.CLOSE_POSITIONS if closing else request.mode
    latched = bool(result["durable"] or result["journalled"] or in_file)
    shown: dict[str, object] = {"latched": latched, "mode_in_force": in_force, **result}
    shown.update(in_file=in_file, reason=request.reason, data_dir=data_dir, notes=notes)
    if not request.json:
        _say(shown)
    code = DONE if result["durable"] or (latched and not exists) else NOT_REACHED
    if request.wait and latched:
        waited, report = _wait(request)
        shown.update(report)
        code = waited or code
    if request.json:
        sys.stdout.write(fast_files.canonical(shown) + "\n")
    return code


def _wait(request: KillRequest) -> tuple[int, dict[str, object]]:
    """See the close through; whatever goes wrong meanwhile, the stop stands."""
    try:
        from tinywindow.cli.kill_wait import wait_until_flat  # noqa: PLC0415 - heavy, and late

        return wait_until_flat(request.data_dir, request.config, as_json=request.json)
    except Exception as fault:  # noqa: BLE001 - the latch is committed and must be reported
        _warn(f"the stop stands, but waiting failed: {type(fault).__name__}: {fault}")
        return NOT_REACHED, {"flat": False, "state": "UNKNOWN", "wait_error": str(fault)}


def _say(shown: dict[str, object]) -> None:
    errors, notes = shown["errors"], shown["notes"]
    for line in (*_lines(errors), *_lines(notes)):
        _warn(line)
    if not shown["latched"]:
        _warn("NOTHING WAS LATCHED. Trading may go on: stop the process, or the API keys.")
        return
    places = [
        name
        for name, there in (
            ("the file KILL", shown["in_file"]),
            ("the database", shown["durable"]),
            ("the journal", shown["journalled"]),
        )
        if there
    ]
    sys.stdout.write(
        f"Stopped: {shown['mode']} is latched as {shown['latch_id']}\n"
        f"  reason  {shown['reason']}\n"
        f"  held by {', '.join(places)} in {shown['data_dir']}\n"
    )
    if shown["mode_in_force"] != shown["mode"]:
        sys.stdout.write(f"  in force is {shown['mode_in_force']}, by a stop that stood before\n")
    sys.stdout.flush()


def _lines(value: object) -> list[str]:
    return [str(line) for line in value] if isinstance(value, list) else []


def _warn(line: str) -> None:
    sys.stderr.write(f"tinywindow: {line}\n")


def _places(request: KillRequest, notes: list[str]) -> tuple[str, str | None]:
    """The data directory and the SQLite file; None where the database is no local file."""
    document = _document(request, notes)
    data_dir = (
        request.data_dir
        or os.environ.get("TINYWINDOW_DATA_DIR")
        or _text(document.get("data_dir"))
        or "~/.local/share/tinywindow"
    )
    folder = os.path.abspath(os.path.expanduser(data_dir))
    url = os.environ.get("TINYWINDOW_DATABASE") or _text(document.get("database"))
    if not url:
        return folder, os.path.join(folder, DATABASE_FILE)
    for prefix in _SQLITE:
        if url.startswith(prefix):
            return folder, url.removeprefix(prefix).partition("?")[0]
    return folder, None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _document(request: KillRequest, notes: list[str]) -> dict[str, object]:
    """The configuration file, as far as it can be read: a stop does not wait for its mending."""
    named = request.config or os.environ.get("TINYWINDOW_CONFIG")
    path = os.path.expanduser(named or CONFIG_FILE)
    if not os.path.exists(path):
        if named:
            notes.append(f"there is no configuration file {path}")
        return {}
    import tomllib  # noqa: PLC0415 - most often there is no such file

    try:
        with open(path, "rb") as handle:
            return tomllib.load(handle)
    except (OSError, ValueError, RecursionError) as fault:
        notes.append(f"the configuration file {path} was passed over: {fault}")
        return {}


def _utc_text(now_ms: int) -> str:
    moment = time.gmtime(now_ms // 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{now_ms % 1000:03d}000Z"
