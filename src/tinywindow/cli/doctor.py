"""`tinywindow doctor`: what is configured, what is wrong, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from tinywindow.cli import findings
from tinywindow.cli.findings import Finding, Level
from tinywindow.cli.output import sheet, text
from tinywindow.cli.postgres_findings import postgres
from tinywindow.cli.redis_findings import redis
from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.cli.venue_findings import venue
from tinywindow.safety.config.section import Explained
from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.services.anchor import Anchor
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.location import locate

__all__ = ["register"]

MEND_DATABASE = "name an SQLite file on a local disk, or a PostgreSQL database"
_STYLE = {Level.OK: "green", Level.NOTE: "yellow", Level.WRONG: "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(ctx: typer.Context) -> int:
    """Look at configuration, stores, clock, venue, files; exit code 1 when something is wrong."""
    session = session_of(ctx)
    found = list(_look(session))
    settings = session.settings.explain(session.layers, given=session.given)
    wrong = [one for one in found if one.level is Level.WRONG]
    session.out.document({"healthy": not wrong, "findings": found, "settings": settings})
    _show_settings(session, settings)
    _show_findings(session, found)
    if wrong:
        session.out.say(f"{len(wrong)} wrong.")
        return Exit.SAID_NO
    session.out.say("Nothing is wrong.")
    return Exit.DONE


def _look(session: Session) -> Iterator[Finding]:
    settings = session.settings
    yield from findings.configuration(settings, session.layers.file)
    yield from findings.data_directory(settings)
    try:
        location = locate(settings.db_connection, data_dir=settings.data_dir)
    except ConfigurationError as error:
        yield Finding("database", Level.WRONG, str(error), MEND_DATABASE)
    else:
        now = SystemClock().now()
        if location.sqlite_path is None:
            yield from postgres(location, now)
        else:
            yield from findings.database(location.sqlite_path, Anchor(location.anchor_path), now)
    yield from findings.stops(settings)
    yield from redis(settings.redis)
    yield from venue(settings)


def _show_settings(session: Session, settings: list[Explained]) -> None:
    changed = [row for row in settings if row.origin != "default"]
    session.out.say("[bold]Settings that differ from the defaults[/bold]")
    if changed:
        session.out.say(
            sheet("name", "value", "from", rows=((r.name, r.value, r.origin) for r in changed))
        )
    else:
        session.out.say("none")
    session.out.say("")


def _show_findings(session: Session, found: list[Finding]) -> None:
    for one in found:
        style = _STYLE[one.level]
        session.out.say(
            f"[{style}]{one.level.value:<5}[/{style}]  {text(one.subject)}: {text(one.what)}"
        )
        if one.mend:
            session.out.say(f"       mend: {text(one.mend)}")
