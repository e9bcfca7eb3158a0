"""Connections of our own: bounded in time, checked when made, and fenced when lost."""

from __future__ import annotations

import contextlib
import secrets
import select
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn
from psycopg.types.numeric import Int8Dumper

from tinywindow.safety.errors import (
    ConfigurationError,
    InvariantBroken,
    LedgerBusy,
    SafetyError,
    StoreUnavailable,
)

__all__ = ["BoundedConnection", "Link", "fault_of", "hung_up", "lost", "minding", "undecided"]

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 2
"""How long one attempt to connect may take; the driver rounds it to whole seconds, at least 2."""
ANSWER_TIMEOUT_S: Final = 1.0
"""How long an answer may take on the order's way, before the connection counts as lost."""
FENCE_TIMEOUT_MS: Final = 500
"""How long a lost session is waited for to end."""
RESOLVE_TRIES: Final = 3
"""How often it is asked whether a commit stands, each time on a new connection."""
VERSION_MIN: Final = 140_000

_BUSY: Final = (
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.SerializationFailure,
    errors.DeadlockDetected,
)
_TOO_SLOW: Final = ("25P03", "25P04")
"""The server ended a session of ours that was silent, or too long, in the middle of a transaction:
nothing of it was committed."""
_OURS: Final = (psycopg.IntegrityError, psycopg.DataError)
_GUARD_STATE: Final = "TW001"
_STATE: Final = """
SELECT current_setting('server_version_num')::int, pg_is_in_recovery(),
    current_setting('transaction_read_only'), current_setting('fsync'),
    current_setting('synchronous_commit'), pg_backend_pid()
"""
_FENCE: Final = """
SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE pid = %s AND application_name = %s
"""
_FENCE_SETTINGS: Final = "SET statement_timeout = 900"
RV = TypeVar("RV")
Cursor = psycopg.Cursor[tuple[Any, ...]]


class BoundedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which no answer is waited for without end."""

    answer_timeout_s: float = ANSWER_TIMEOUT_S

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self.prepared: set[str] = set()

    def prepare(self, name: str, text: str) -> None:
        """Have the server prepare a statement, once; a transaction that fails keeps it."""
        if name not in self.prepared:
            self.execute(f"PREPARE {name} AS {text}")
            self.prepared.add(name)

    def run_prepared(self, name: str, text: str) -> Cursor:
        """Run a statement without parameters that is prepared at its first use."""
        self.prepare(name, text)
        return self.execute(f"EXECUTE {name}")

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for an answer, at most `answer_timeout_s` seconds where no bound is given."""
        return super().wait(gen, interval, self.answer_timeout_s if timeout is None else timeout)


def undecided(error: psycopg.Error, connection: BoundedConnection) -> bool:
    """Whether an answer was lost on the way, so that nobody knows yet what it was."""
    return error.sqlstate not in _TOO_SLOW and lost(error, connection)


def lost(error: psycopg.Error, connection: BoundedConnection | None) -> bool:
    """Whether nothing more can be asked on the connection."""
    if connection is None or connection.closed:
        return True
    # Without a state the driver speaks for itself: cut off, or no answer in time.
    return isinstance(error, psycopg.OperationalError) and error.sqlstate is None


def hung_up(connection: BoundedConnection) -> bool:
    """Whether the server has ended an idle connection; asks the kernel alone, in microseconds."""
    if connection.closed:
        return True
    looking = select.poll()
    # Without that flag, outside of Linux, the kernel tells of a whole end by itself.
    looking.register(connection.fileno(), getattr(select, "POLLRDHUP", 0))
    return bool(looking.poll(0))


def fault_of(error: psycopg.Error) -> SafetyError:
    """What a fault of the engine is to the caller: busy, unavailable, or a bug of ours."""
    said = " ".join(str(error).split())
    if isinstance(error, _BUSY) or error.sqlstate in _TOO_SLOW:
        return LedgerBusy(f"no turn at the database came within its bound: {said}")
    if isinstance(error, _OURS) or error.sqlstate == _GUARD_STATE:
        return InvariantBroken(f"the database refused what must not be written: {said}")
    return StoreUnavailable(f"the database failed: {said}")


class Link:
    """One connection, made at its first use and again after it was lost.

    Each connection has a name that no other ever had, by which a later one makes sure that the
    session has ended and can commit nothing any more.
    """

    def __init__(self, url: str, purpose: str, *, settings: str, require_durable: bool) -> None:
        self._url = url
        self._purpose = purpose
        self._settings = settings
        self._require_durable = require_durable
        self._connection: BoundedConnection | None = None
        self._name = ""
        self._pid = 0
        self.answer_timeout_s = ANSWER_TIMEOUT_S

    @property
    def current(self) -> BoundedConnection | None:
        """The connection if there is one; it may have been lost unnoticed."""
        return self._connection

    def get(self) -> BoundedConnection:
        """The connection, made anew where there is none.

        Raises:
            StoreUnavailable: the database cannot be reached.
            ConfigurationError: it can, and is no place for a safety system's state; for the first
            connection only.
        """
        if self._connection is None or self._connection.closed:
            try:
                self._connection = self._made()
            except ConfigurationError as error:
                if not self._name:
                    raise
                # It was a fit place when this process started: no reason to end it now.
                raise StoreUnavailable(str(error)) from error
        return self._connection

    def _made(self) -> BoundedConnection:
        name = f"tinywindow-{self._purpose}-{secrets.token_hex(8)}"
        try:
            connection = BoundedConnection.connect(
                self._url,
                autocommit=True,
                application_name=name,
                connect_timeout=CONNECT_TIMEOUT_S,
                # The driver's own bookkeeping of prepared statements is not in step with the
                # server's where a transaction is rolled back; what is worth it we prepare.
                prepare_threshold=None,
                keepalives_idle=2,
                keepalives_interval=1,
                keepalives_count=2,
                tcp_user_timeout=2_000,
            )
        except psycopg.Error as error:
            raise StoreUnavailable(f"the database cannot be reached: {_words(error)}") from error
        try:
            connection.answer_timeout_s = self.answer_timeout_s
            # One width for every integer, as the columns have.
            connection.adapters.register_dumper(int, Int8Dumper)
            self._check(connection)
            connection.execute(self._settings)
        except psycopg.Error as error:
            connection.close()
            raise StoreUnavailable(f"the database cannot be used: {_words(error)}") from error
        except SafetyError:
            connection.close()
            raise
        self._name = name
        return connection

    def _check(self, connection: BoundedConnection) -> None:
        row = connection.execute(_STATE).fetchone()
        if row is None:
            raise StoreUnavailable("the database says nothing about itself")
        version, recovering, read_only, fsync, synchronous, self._pid = row
        if version < VERSION_MIN:
            raise ConfigurationError("PostgreSQL 14 or newer is needed")
        if recovering or read_only == "on":
            raise StoreUnavailable("the database is read-only, a standby perhaps")
        if not self._require_durable:
            return
        if fsync == "off":
            raise ConfigurationError(
                "PostgreSQL runs with fsync=off: a stop that was committed would not survive a "
                "power cut; set fsync=on and restart the server"
            )
        if synchronous == "off":
            raise ConfigurationError(
                "PostgreSQL commits with synchronous_commit=off: a stop that was answered for "
                "could be lost in a crash; set it on for this server, database and role"
            )

    def drop(self) -> None:
        """Give the connection up; whatever it had not committed is undone by the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def after_loss(self, ask: Callable[[BoundedConnection], T]) -> T | None:
        """Ask on a new connection, once the lost session has ended; None when nobody can say.

        The lost session might still commit: it is ended first, and seen to be gone.
        """
        pid, name = self._pid, self._name
        for _ in range(RESOLVE_TRIES):
            self.drop()
            try:
                connection = self.get()
                connection.answer_timeout_s = ANSWER_TIMEOUT_S
                if not _ended(connection, pid, name):
                    continue
                connection.execute(self._settings)
                return ask(connection)
            except (psycopg.Error, StoreUnavailable) as error:
                import structlog  # noqa: PLC0415 - slow to load, and a stop waits for this module

                structlog.get_logger(__name__).warning("commit_not_resolved", error=_words(error))
        self.drop()
        return None


@contextlib.contextmanager
def minding(link: Link, forget: Callable[[], None]) -> Iterator[None]:
    """Use a link: the driver's faults become ours, and what is doubtful after one is let go.

    `forget` lets go of the book that was read through it.
    """
    idle = link.current
    if idle is not None and hung_up(idle):
        # The server was restarted meanwhile: nothing is under way, and a new one will do.
        forget()
        link.drop()
    try:
        yield
    except errors.LockNotAvailable as error:
        # Its turn did not come: nothing was read or written, and the book is as good as before.
        raise fault_of(error) from error
    except psycopg.Error as error:
        forget()
        if lost(error, link.current):
            link.drop()
        raise fault_of(error) from error
    except BaseException:  # what is known of the book is doubtful, whatever broke
        forget()
        raise


def _ended(connection: BoundedConnection, pid: int, name: str) -> bool:
    """End a session by its number and its name; True once it is gone."""
    connection.execute(_FENCE_SETTINGS)
    # A session that is no longer there gives no row.
    rows = connection.execute(_FENCE, (FENCE_TIMEOUT_MS, pid, name)).fetchall()
    return all(row[0] for row in rows)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())
