"""Migrations: a database is brought to the newest schema, once, whoever comes first.

Alembic is loaded only where there is something to do, since it costs a third of a second.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.stores.pg.address import postgres_url
from tinywindow.safety.stores.pg.ddl import MIGRATION_KEY, grants
from tinywindow.safety.stores.schema import SCHEMA_REVISION
from tinywindow.safety.stores.ticket import Ticket

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["current_revision", "postgres_revision", "upgrade_postgres", "upgrade_sqlite"]

READ_TIMEOUT_S: Final = 2.0
"""How long a look at the revision waits for a process that is making the file."""
CONNECT_TIMEOUT_S: Final = 5
"""How long connecting to a server may take."""

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_one_at_a_time: Final = threading.Lock()


def current_revision(database: Path) -> str | None:
    """The schema revision of an SQLite file; None for a file without one.

    Raises:
        StoreUnavailable: the file cannot be read, or is no database.
    """
    if not database.exists():
        return None
    try:
        connection = sqlite3.connect(database, timeout=READ_TIMEOUT_S)
        try:
            known = connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
            ).fetchone()
            if known is None:
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the database cannot be read: {error}") from error
    return None if row is None else str(row[0])


def upgrade_sqlite(database: Path) -> bool:
    """Bring an SQLite file to the newest schema; True when there was something to do.

    Safe to run twice and by two processes at once: the second waits for the first's turn.

    Raises:
        StoreUnavailable: the file cannot be written, or a newer version of TinyWindow made it.
    """
    if current_revision(database) == SCHEMA_REVISION:
        return False
    # Alembic keeps what it is doing in module globals: one migration at a time in a process.
    with _one_at_a_time:
        try:
            ticket = Ticket(database)
        except OSError as error:
            raise StoreUnavailable(f"the database cannot be made: {error}") from error
        try:
            ticket.take()
            if current_revision(database) == SCHEMA_REVISION:
                return False
            _run_alembic(database)
        finally:
            ticket.close()
    return True


def _run_alembic(database: Path) -> None:
    from sqlalchemy import create_engine, event  # noqa: PLC0415 - costs a third of a second

    engine = create_engine(f"sqlite:///{database}")

    @event.listens_for(engine, "connect")
    def durable(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def whole(connection: Connection) -> None:
        # The driver would commit before each DDL; a migration is done whole or not at all.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    _to_the_newest(engine)


def _to_the_newest(
    engine: Engine, *, first: str | None = None, grant_to: str | None = None
) -> bool:
    """Run what is missing in one transaction, after the statement `first`; then grant."""
    from alembic import command  # noqa: PLC0415 - costs a third of a second
    from alembic.config import Config  # noqa: PLC0415
    from alembic.migration import MigrationContext  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    try:
        with engine.begin() as connection:
            if first is not None:
                connection.exec_driver_sql(first)
            found = MigrationContext.configure(connection).get_current_revision()
            if found != SCHEMA_REVISION:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            for statement in () if grant_to is None else grants(grant_to):
                connection.exec_driver_sql(statement)
    except CommandError as error:
        raise StoreUnavailable(
            f"the database was made by another version of TinyWindow: {error}"
        ) from error
    except SQLAlchemyError as error:
        raise StoreUnavailable(f"the database cannot be upgraded: {error}") from error
    finally:
        engine.dispose()
    return found != SCHEMA_REVISION


def postgres_revision(url: str) -> str | None:
    """The schema revision of a PostgreSQL database; None for one without a schema of ours.

    Raises:
        StoreUnavailable: the database cannot be read.
        ConfigurationError: the URL names none, or the driver is missing.
    """
    address = postgres_url(url)
    import psycopg  # noqa: PLC0415 - an extra

    try:
        with psycopg.connect(address, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S) as one:
            known = one.execute("SELECT to_regclass('alembic_version')").fetchone()
            if known is None or known[0] is None:
                return None
            row = one.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.Error as error:
        raise StoreUnavailable(f"the database cannot be read: {error}") from error
    return None if row is None else str(row[0])


def upgrade_postgres(url: str, *, grant_to: str | None = None) -> bool:
    """Bring a PostgreSQL database to the newest schema; True when there was something to do.

    Run as the owner of the tables. Safe to run twice and by two processes at once: the second
    waits for the first. `grant_to` names the application's role, which is then granted what it
    needs, and nothing that changes an audit row.

    Raises:
        StoreUnavailable: the database cannot be written, or a newer version of TinyWindow made it.
        ConfigurationError: the URL names no database, or the driver is missing.
    """
    address = postgres_url(url)
    import psycopg  # noqa: PLC0415 - an extra
    from sqlalchemy import create_engine  # noqa: PLC0415 - costs a third of a second
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(address, connect_timeout=CONNECT_TIMEOUT_S),
        poolclass=NullPool,
    )
    with _one_at_a_time:
        turn = f"SELECT pg_advisory_xact_lock({MIGRATION_KEY})"
        return _to_the_newest(engine, first=turn, grant_to=grant_to)
