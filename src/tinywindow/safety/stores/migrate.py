"""Migrations: a database is brought to the newest schema, once, whoever comes first.

Alembic is loaded only where there is something to do, since it costs a third of a second.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Final

from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.stores.schema import SCHEMA_REVISION
from tinywindow.safety.stores.ticket import Ticket

__all__ = ["current_revision", "upgrade_sqlite"]

READ_TIMEOUT_S: Final = 2.0
"""How long a look at the revision waits for a process that is making the file."""

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
    from alembic import command  # noqa: PLC0415 - costs a third of a second
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415
    from sqlalchemy import Connection, create_engine, event  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
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

    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise StoreUnavailable(
            f"the database was made by another version of TinyWindow: {error}"
        ) from error
    except SQLAlchemyError as error:
        raise StoreUnavailable(f"the database cannot be upgraded: {error}") from error
    finally:
        engine.dispose()
