"""What a session is set to, and how its transactions begin.

Every wait at the server is bounded: for the lock, for a statement, for a client that is silent
in the middle of a transaction, and for one that has vanished.
"""

from __future__ import annotations

from typing import Final, LiteralString

from tinywindow.safety.stores.pg.ddl import TURN_KEY

__all__ = ["HEAD", "ORDER", "READER", "READING", "SCRIPT", "STOP", "WRITER"]

HEAD: Final[LiteralString] = (
    "SELECT version, stop_epoch, trading, audit_seq, audit_hash, exposure_micros"
    " FROM head WHERE id = 1"
)
"""The head by itself, as it stands at this moment."""
_TURN: Final[LiteralString] = f"SELECT pg_advisory_xact_lock({TURN_KEY})"
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"


def _lasting(ms: LiteralString, local: LiteralString) -> LiteralString:
    # PostgreSQL 17 and later: bounds a client, too, that vanishes in the middle of a message.
    known: LiteralString = "WHERE current_setting('transaction_timeout', true) IS NOT NULL"
    # A transaction's clock that runs already is not set anew, unless it is taken away first.
    return (
        f"SELECT set_config('transaction_timeout', '0', {local}) {known};"
        f" SELECT set_config('transaction_timeout', '{ms}', {local}) {known}"
    )


def _patient(lock_ms: LiteralString, statement_ms: LiteralString) -> LiteralString:
    return (
        f"{_BEGIN}; SELECT set_config('lock_timeout', '{lock_ms}', true),"
        f" set_config('statement_timeout', '{statement_ms}', true),"
        " set_config('idle_in_transaction_session_timeout', '1000', true);"
        f" {_lasting('10000', 'true')}; {_TURN}; {HEAD} FOR UPDATE"
    )


ORDER: Final[LiteralString] = f"{_BEGIN}; {_TURN}; {HEAD} FOR UPDATE"
"""Begins a transaction, takes the turn and then the head row, and gives the head.

Both are held until the transaction ends. What is read afterwards is read by new statements, which
see everything that was committed while these waited. The bounds are the session's: whoever stops
in the middle of an order holds up the others for a quarter of a second.
"""
SCRIPT: Final[LiteralString] = _patient("1000", "2000")
"""The same for what is no order."""
STOP: Final[LiteralString] = _patient("5000", "6000")
"""The same for a stop, which outwaits any number of frozen processes rather than being refused."""
READING: Final[LiteralString] = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {HEAD}"
"""Begins a transaction that only reads, on one snapshot, and gives its head."""

# What changed since a version is asked for with a parameter, of which the planner knows nothing:
# it would guess a third of the table, and read all of it for every order.
_BY_INDEX: Final = "SET enable_seqscan = off; SET jit = off;"

WRITER: Final[LiteralString] = (
    f"{_BY_INDEX} SET lock_timeout = 240; SET statement_timeout = 250;"
    " SET idle_in_transaction_session_timeout = 250;"
    " SET default_transaction_isolation = 'read committed';"
    " SET tcp_keepalives_idle = 1; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 2;"
    f" {_lasting('1000', 'false')}"
)
"""A writer's session; times are in milliseconds, those of TCP in seconds."""
READER: Final[LiteralString] = (
    f"{_BY_INDEX} SET statement_timeout = 9000; SET idle_in_transaction_session_timeout = 30000"
)
"""A reader's session: it blocks nobody, and may read long."""
