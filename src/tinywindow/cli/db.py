"""`tinywindow db`: the database's schema."""

from __future__ import annotations

from pathlib import Path

import typer

from tinywindow.cli.output import text
from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.safety.errors import ConfigurationError, StoreUnavailable
from tinywindow.safety.services.location import locate
from tinywindow.safety.stores.migrate import current_revision, upgrade_sqlite
from tinywindow.safety.stores.schema import SCHEMA_REVISION

__all__ = ["app"]

app = typer.Typer(help="The database's schema: which revision it has, and its upgrade.")


@app.command()
def upgrade(ctx: typer.Context) -> int:
    """Bring the database to the newest schema; does nothing where it is there already."""
    session = session_of(ctx)
    path = _file(session)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"the folder {path.parent} cannot be made: {error}") from error
    done = upgrade_sqlite(path)
    revision = current_revision(path)
    session.out.document({"database": path, "revision": revision, "upgraded": done})
    word = "was brought to" if done else "is at"
    session.out.say(f"{text(path)} {word} revision {text(revision)}.")
    return Exit.DONE


@app.command()
def current(ctx: typer.Context) -> int:
    """Show the database's schema revision; exit code 1 when it is not the newest."""
    session = session_of(ctx)
    path = _file(session)
    revision = current_revision(path)
    newest = revision == SCHEMA_REVISION
    session.out.document(
        {"database": path, "revision": revision, "newest": SCHEMA_REVISION, "up_to_date": newest}
    )
    if revision is None:
        session.out.say(f"{text(path)} has no schema yet: tinywindow db upgrade makes it.")
    else:
        rest = "the newest" if newest else f"the newest is {SCHEMA_REVISION}"
        session.out.say(f"{text(path)} is at revision {text(revision)}, {rest}.")
    return Exit.DONE if newest else Exit.SAID_NO


def _file(session: Session) -> Path:
    location = locate(session.settings.db_connection, data_dir=session.settings.data_dir)
    if location.sqlite_path is None:
        raise ConfigurationError("database: only SQLite files are supported yet")
    return location.sqlite_path
