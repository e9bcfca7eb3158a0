"""The command `kill`: latch first, then talk. Standard library only, until the host has latched.

It needs no valid configuration. From the process's start to the committed latch on this host it
takes under 100 ms; PostgreSQL and Redis, where one is configured, are told right afterwards.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from tinywindow.cli import closing_look, kill_words
from tinywindow.cli.kill_places import Places, places_of
from tinywindow.cli.kill_request import HELP, HINT, KillRequest, WrongUsage, read_request
from tinywindow.cli.kill_words import warn
from tinywindow.cli.who import actor
from tinywindow.safety.stores import fast_files, fast_latch

__all__ = ["kill"]

DONE, SAID_NO, WRONG_USAGE, NOT_REACHED = 0, 1, 2, 3
REPLAY_MARK = "REPLAY"
SOURCE = "CLI"


def kill(argv: list[str]) -> int:
    """Stop trading; give the exit code."""
    try:
        request = read_request(argv)
    except WrongUsage as wrong:
        warn(f"{wrong}\n{HINT}")
        return WRONG_USAGE
    if request.help:
        sys.stdout.write(HELP)
        return DONE
    notes: list[str] = []
    places = places_of(request, notes)
    exists = places.sqlite is not None and os.path.exists(places.sqlite)
    now_ms = time.clock_gettime_ns(time.CLOCK_REALTIME) // 1_000_000
    who = actor()
    result = fast_latch.stop(
        data_dir=places.data_dir,
        database=places.sqlite if exists else None,
        mode=request.mode,
        reason=request.reason,
        actor=who,
        now_ms=now_ms,
        time_text=_utc_text(now_ms),
        source=SOURCE,
    )
    latch: dict[str, object] = {
        "id": result["latch_id"],
        "mode": request.mode,
        "reason": request.reason,
        "actor": who,
        "source": SOURCE,
        "activated_ms": now_ms,
    }
    if places.unknown_database:
        notes.append("the configured database is neither SQLite nor PostgreSQL")
    if places.sqlite is not None and not exists:
        place = places.sqlite
        notes.append(f"there is no database at {place} yet: is {places.data_dir} right?")
    if os.path.exists(os.path.join(places.data_dir, REPLAY_MARK)):
        notes.append(
            f"{places.data_dir} is the data directory of a replay: nothing real trades there"
        )
    return _Report(request, places, latch, result, notes, exists=exists).finish()


class _Report:
    """What became of one stop, from the host's latch to the exit code."""

    def __init__(
        self,
        request: KillRequest,
        places: Places,
        latch: dict[str, object],
        result: dict[str, object],
        notes: list[str],
        *,
        exists: bool,
    ) -> None:
        self.request, self.places, self.latch = request, places, latch
        self.exists = exists
        self.redis_failed = False
        standing = fast_files.read_kill_file(os.path.join(places.data_dir, fast_latch.KILL_FILE))
        # A stop never lowers the mode: one that stood before may be the stronger.
        closing = any(latch["mode"] == fast_files.CLOSE_POSITIONS for latch in standing)
        in_file = any(known["id"] == latch["id"] for known in standing)
        self.shown: dict[str, object] = {
            "latched": bool(result["durable"] or result["journalled"] or in_file),
            "mode_in_force": fast_files.CLOSE_POSITIONS if closing else request.mode,
            **result,
            "in_file": in_file,
            "in_redis": None,
            "closing": None,
            "reason": request.reason,
            "data_dir": places.data_dir,
            "notes": notes,
        }
        self.close: Callable[[], None] = lambda: None
        self.query: closing_look.Query | None = None
        if exists and result["durable"]:
            self.query = closing_look.file_query(str(places.sqlite))

    def finish(self) -> int:
        """Tell whoever is left to be told, report, wait where asked; give the exit code."""
        request, shown = self.request, self.shown
        elsewhere = self.places.postgres is not None or self.places.redis is not None
        if not request.json:
            kill_words.say(shown, more=elsewhere)
        if elsewhere:
            said, here = kill_words.counted(shown), bool(shown["latched"])
            self._tell_elsewhere()
            if not request.json:
                on_server = self.places.postgres is not None
                kill_words.say_elsewhere(shown, database=on_server, here=here, before=said)
        if request.wait and shown["latched"]:
            waited, report = _wait(request)
            shown.update(report)
        else:
            waited = 0
            self._look_for_a_close()
        code = waited or self._code()
        self.close()
        if request.json:
            sys.stdout.write(fast_files.canonical(shown) + "\n")
        return code

    def _tell_elsewhere(self) -> None:
        shown, places = self.shown, self.places
        errors, notes = shown["errors"], shown["notes"]
        try:
            from tinywindow.cli.kill_elsewhere import Elsewhere  # noqa: PLC0415 - heavy, and late

            time_text = _utc_text(int(str(self.latch["activated_ms"])))
            told = Elsewhere(self.latch, time_text, places.postgres, places.redis, self.query)
            told.tell()
        except Exception as fault:  # noqa: BLE001 - the host has latched, which must be reported
            shown["in_redis"] = None if places.redis is None else False
            self.redis_failed = places.redis is not None
            kill_words.add(errors, f"database and Redis: {type(fault).__name__}: {fault}")
            return
        if told.in_database is not None:
            shown["durable"] = told.in_database
        self.query, self.close = told.query, told.close
        shown["in_redis"], self.redis_failed = told.in_redis, told.redis_failed
        shown["latched"] = bool(shown["latched"] or told.in_database or told.in_redis)
        for line in told.errors:
            kill_words.add(errors, line)
        for line in told.notes:
            kill_words.add(notes, line)

    def _code(self) -> int:
        """0 when every configured place that is there holds the stop, or one as strong.

        An SQLite file that is not there yet is no place: file and journal stand in for it. 1 when
        a close was asked for and nobody closes.
        """
        shown = self.shown
        if not shown["latched"] or self.places.unknown_database:
            return NOT_REACHED
        if not shown["durable"] and (self.exists or self.places.postgres is not None):
            return NOT_REACHED
        if self.redis_failed:
            return NOT_REACHED
        return SAID_NO if shown["closing"] is False else DONE

    def _look_for_a_close(self) -> None:
        """Say so where a close was asked for and nobody takes it up."""
        shown = self.shown
        if shown["mode_in_force"] != fast_files.CLOSE_POSITIONS or self.query is None:
            return
        shown["closing"] = closing_look.somebody_closes(
            self.query,
            latch_id=str(self.latch["id"]),
            since_ms=int(str(self.latch["activated_ms"])),
        )
        if shown["closing"] is False:
            advice = "start a process that can close, or add --wait: then this command closes"
            warn(f"{closing_look.NOBODY}: no process took the close up; {advice}")


def _wait(request: KillRequest) -> tuple[int, dict[str, object]]:
    """See the close through; whatever goes wrong meanwhile, the stop stands."""
    try:
        from tinywindow.cli.kill_wait import wait_until_flat  # noqa: PLC0415 - heavy, and late

        return wait_until_flat(request.data_dir, request.config, as_json=request.json)
    except Exception as fault:  # noqa: BLE001 - the latch is committed and must be reported
        warn(f"the stop stands, but waiting failed: {type(fault).__name__}: {fault}")
        return NOT_REACHED, {"flat": False, "state": "UNKNOWN", "wait_error": str(fault)}


def _utc_text(now_ms: int) -> str:
    moment = time.gmtime(now_ms // 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{now_ms % 1000:03d}000Z"
