"""`tinywindow db`: the database's schema, and the names of the venues that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinywindow.cli.output import text
from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.cli.who import printable
from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.errors import ConfigurationError, StoreUnavailable
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.location import Location, locate
from tinywindow.safety.services.order_validator import new_order_id
from tinywindow.safety.services.venue_adoption import give_free
from tinywindow.safety.stores.migrate import (
    current_revision,
    postgres_revision,
    upgrade_postgres,
    upgrade_sqlite,
)
from tinywindow.safety.stores.schema import SCHEMA_REVISION

__all__ = ["app"]

app = typer.Typer(help="The database: its schema, its upgrade, and whose venues it knows.")


@app.command()
def upgrade(
    ctx: typer.Context,
    grant_to: Annotated[
        str | None,
        typer.Option(help="PostgreSQL: the role that the bots use, granted what it needs."),
    ] = None,
) -> int:
    """Bring the database to the newest schema; does nothing where it is there already."""
    session = session_of(ctx)
    location = _location(session)
    if location.sqlite_path is None:
        try:
            done = upgrade_postgres(location.url, grant_to=grant_to)
        except ValueError as error:
            raise ConfigurationError(f"--grant-to: {error}") from error
    else:
        if grant_to is not None:
            raise ConfigurationError("--grant-to: an SQLite file has no roles")
        done = _upgrade_file(location.sqlite_path)
    revision = _revision(location)
    name = _name(session, location)
    session.out.document({"database": name, "revision": revision, "upgraded": done})
    word = "was brought to" if done else "is at"
    session.out.say(f"{text(name)} {word} revision {text(revision)}.")
    return Exit.DONE


@app.command()
def current(ctx: typer.Context) -> int:
    """Show the database's schema revision; exit code 1 when it is not the newest."""
    session = session_of(ctx)
    location = _location(session)
    revision = _revision(location)
    name = _name(session, location)
    newest = revision == SCHEMA_REVISION
    session.out.document(
        {"database": name, "revision": revision, "newest": SCHEMA_REVISION, "up_to_date": newest}
    )
    if revision is None:
        session.out.say(f"{text(name)} has no schema yet: tinywindow db upgrade makes it.")
    else:
        rest = "the newest" if newest else f"the newest is {SCHEMA_REVISION}"
        session.out.say(f"{text(name)} is at revision {text(revision)}, {rest}.")
    return Exit.DONE if newest else Exit.SAID_NO


@app.command("adopt-venue")
def adopt_venue(
    ctx: typer.Context,
    venue: Annotated[str, typer.Argument(help="The venue's name.", metavar="NAME")],
    *,
    by: Annotated[str, typer.Option(help="Who says so.", metavar="NAME")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the audit log.", metavar="TEXT")],
) -> int:
    """Give a venue's name free whose account is lost: the next process with it is taken on."""
    session = session_of(ctx)
    for name, value in (("--by", by), ("--reason", reason)):
        if not value.strip():
            raise typer.BadParameter("must not be blank", param_hint=name)
    who, why = printable(by).strip(), printable(reason)
    now = SystemClock().now()
    row = AuditDraft(
        new_order_id(), now, EventType.VENUE_ACCOUNT_SET, who, {"reason": why, "operator": who}
    )
    session.with_store(lambda context: give_free(context, venue, row))
    session.out.document({"venue": venue, "free": True})
    session.out.say(
        f"The name {text(venue)} is free. The next process that comes with it is taken on, and "
        "its account is reconciled anew. Trading stays off until: tinywindow start"
    )
    return Exit.DONE


def _location(session: Session) -> Location:
    return locate(session.settings.db_connection, data_dir=session.settings.data_dir)


def _upgrade_file(path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"the folder {path.parent} cannot be made: {error}") from error
    return upgrade_sqlite(path)


def _revision(location: Location) -> str | None:
    if location.sqlite_path is None:
        return postgres_revision(location.url)
    return current_revision(location.sqlite_path)


def _name(session: Session, location: Location) -> str:
    """What the database is called, without the credentials that its URL may hold."""
    if location.sqlite_path is not None:
        return str(location.sqlite_path)
    return session.settings.shown("database") or "the database"
