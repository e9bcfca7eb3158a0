"""The fast way to a stop: file, journal and database in one process start, standard library only.

What the command `kill` needs and nothing else: no SQLAlchemy, no asyncio, no dataclasses. The
statements are those of `stores.sql` in raw SQL; a test compares what both leave behind.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3

from tinywindow.safety.stores.fast_files import (
    LatchFields,
    append_journal,
    canonical,
    journal_entry,
    write_kill_file,
)

TURN_TIMEOUT_S = 0.25
"""How long a stop waits for its turn at the database; then the journal takes it."""
KILL_FILE = "KILL"
JOURNAL_FILE = "journal.jsonl"

_LATCH = """
INSERT INTO latches (id, mode, reason, actor, source, activated_ms)
VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
_EPOCH = """
UPDATE head SET version = version + 1, stop_epoch = stop_epoch + 1, trading = 'STOPPED'
WHERE id = 1
"""
_OUTBOX = "INSERT INTO outbox (id, draft) VALUES (?, ?) ON CONFLICT DO NOTHING"


def new_latch_id() -> str:
    """Make a latch id: 80 random bits, so that nobody can guess or repeat one."""
    return "K" + os.urandom(10).hex()


def activation_body(latch: LatchFields, time_text: str) -> str:
    """The canonical body of the audit row that follows a latch; see `domain.audit.seal`."""
    data = {name: latch[name] for name in ("mode", "reason", "source")}
    data["latch_id"] = latch["id"]
    row_id = f"activate-{latch['id']}"
    fields = [row_id, time_text, "KILL_SWITCH_ACTIVATE", latch["actor"], None, None, None]
    return canonical([*fields, canonical(data)])


class _TurnTimeout(Exception):
    """The turn did not come in time."""


def _ring(_number: int, _frame: object) -> None:
    raise _TurnTimeout


def _wait_for_turn(ticket: int) -> None:
    """Wait in the kernel's own order for the database's turn, at most `TURN_TIMEOUT_S`.

    Only a signal can bound `flock`, so this is for a process's main thread.
    """
    before = signal.signal(signal.SIGALRM, _ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, TURN_TIMEOUT_S)
        fcntl.flock(ticket, fcntl.LOCK_EX)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except _TurnTimeout:
        raise TimeoutError(f"no turn at the database within {TURN_TIMEOUT_S} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def latch_in_database(database: str, latch: LatchFields, time_text: str) -> bool:
    """Commit a latch: new epoch, trading stopped, audit row in the outbox.

    True when it stands by this call, False when its id was known.

    Raises:
        OSError: there is no database, or no turn came in time.
        sqlite3.Error: the database cannot be written.
    """
    if not os.path.exists(database):
        raise FileNotFoundError(f"there is no database at {database}")
    ticket = os.open(f"{database}.ticket", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for_turn(ticket)
        connection = sqlite3.connect(database, timeout=TURN_TIMEOUT_S, isolation_level=None)
        try:
            return _commit(connection, latch, time_text)
        finally:
            connection.close()
    finally:
        os.close(ticket)


def _commit(connection: sqlite3.Connection, latch: LatchFields, time_text: str) -> bool:
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    values = [latch[k] for k in ("id", "mode", "reason", "actor", "source", "activated_ms")]
    added = connection.execute(_LATCH, values).rowcount == 1
    if added:
        if connection.execute(_EPOCH).rowcount != 1:
            raise sqlite3.DatabaseError("the database has no head row")
        row_id = f"activate-{latch['id']}"
        connection.execute(_OUTBOX, (row_id, activation_body(latch, time_text)))
    connection.execute("COMMIT")
    return added


def stop(
    *,
    data_dir: str,
    database: str | None,
    mode: str,
    reason: str,
    actor: str,
    now_ms: int,
    time_text: str,
    source: str = "CLI",
) -> dict[str, object]:
    """Stop this host's trading: the `KILL` file, then the database, else the journal.

    Never raises for what is broken: the answer has the latch's `latch_id` and `mode`, says
    whether it is `durable` in the database, and lists the `errors`. `time_text` is `now_ms` as
    the audit log writes times; `database` is the SQLite file, None where there is none.
    """
    latch: LatchFields = {
        "id": new_latch_id(),
        "mode": mode,
        "reason": reason,
        "actor": actor,
        "source": source,
        "activated_ms": now_ms,
    }
    errors: list[str] = []
    try:
        write_kill_file(os.path.join(data_dir, KILL_FILE), [latch])
    except OSError as fault:
        errors.append(f"the file KILL could not be written: {fault}")
    durable = journalled = False
    if database is not None:
        try:
            latch_in_database(database, latch, time_text)
            durable = True
        except (OSError, sqlite3.Error) as fault:
            errors.append(f"the database could not take the latch: {fault}")
    if not durable:
        try:
            append_journal(os.path.join(data_dir, JOURNAL_FILE), journal_entry(latch))
            journalled = True
        except OSError as fault:
            errors.append(f"the journal could not take the latch: {fault}")
    return {
        "latch_id": latch["id"],
        "mode": mode,
        "durable": durable,
        "journalled": journalled,
        "errors": errors,
    }
