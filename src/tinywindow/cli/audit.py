"""`tinywindow audit`: verify the chain, look at its end, export it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Final

import typer

from tinywindow.cli.audit_rows import COLUMNS, Chain, read_export, write_export
from tinywindow.cli.audit_verify import Verified, verify_chain
from tinywindow.cli.output import Output, sheet, text
from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.safety.domain.audit import AuditRow
from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.services.anchor import Anchor, AnchorPoint

__all__ = ["app"]

FOLLOW_INTERVAL_S: Final = 0.5
SHOWN_FAULTS_MAX: Final = 20

app = typer.Typer(help="The audit log: verify the chain, look at its end, export it.")


@app.command()
def verify(
    ctx: typer.Context,
    *,
    export: Annotated[
        Path | None,
        typer.Argument(help="An export to verify; the database when left out.", exists=True),
    ] = None,
    anchor: Annotated[
        Path | None,
        typer.Option(
            help="The file of heads kept outside the database.", exists=True, metavar="FILE"
        ),
    ] = None,
) -> int:
    """Verify every link of the chain; exit code 1 when anything is not as it was written."""
    session = session_of(ctx, replay_allowed=True)
    if export is not None:
        points = () if anchor is None else Anchor(anchor).points()
        found = verify_chain(read_export(export), points, None)
    else:
        database = _database(session)
        chain = Chain(database)
        try:
            points = Anchor(anchor or database.with_name(database.name + ".anchor")).points()
            found = verify_chain(chain.rows(), points, chain.head())
        finally:
            chain.close()
    _show(session.out, found, points)
    return Exit.DONE if found.intact else Exit.SAID_NO


def _show(out: Output, found: Verified, points: tuple[AnchorPoint, ...]) -> None:
    out.document(
        {
            "intact": found.intact,
            "rows": found.rows,
            "seq": found.seq,
            "hash": found.hash,
            "anchors": found.anchors,
            "faults": [{"seq": seq, "message": message} for seq, message in found.faults],
            "faults_count": found.faults_count,
        }
    )
    if found.intact:
        out.say(f"The chain is intact: {found.rows} rows, {found.anchors} anchors agree.")
    else:
        out.say(f"The chain is BROKEN: {found.faults_count} faults in {found.rows} rows.")
        out.say(sheet("row", "what is wrong", rows=found.faults[:SHOWN_FAULTS_MAX]))
    if not points:
        out.say("No anchor was compared: an end that was cut off cannot be seen without one.")


@app.command()
def tail(
    ctx: typer.Context,
    *,
    count: Annotated[int, typer.Option("-n", help="How many rows.", min=1, max=10_000)] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on as rows are added, until interrupted.")
    ] = False,
) -> int:
    """Show the newest rows. With --follow and --json, one JSON object a line."""
    session = session_of(ctx, replay_allowed=True)
    chain = Chain(_database(session))
    try:
        rows = chain.tail(count)
        if session.out.as_json and not follow:
            session.out.document([_as_data(row) for row in rows])
            return Exit.DONE
        _print(session.out, rows)
        pause = threading.Event()
        last = rows[-1].seq if rows else 0
        while follow:
            pause.wait(FOLLOW_INTERVAL_S)
            rows = list(chain.rows(after=last))
            _print(session.out, rows)
            last = rows[-1].seq if rows else last
    finally:
        chain.close()
    return Exit.DONE


@app.command()
def export(
    ctx: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="Where to: a name ending in .csv or .jsonl.")],
) -> int:
    """Write the whole log to a file that `audit verify` reads again."""
    session = session_of(ctx, replay_allowed=True)
    chain = Chain(_database(session))
    try:
        count = write_export(chain.rows(), file)
    finally:
        chain.close()
    session.out.document({"file": file, "rows": count, "columns": COLUMNS})
    session.out.say(f"{count} rows were written to {text(file)}.")
    return Exit.DONE


def _database(session: Session) -> Path:
    path = session.settings.sqlite_path
    if path is None:
        raise ConfigurationError("database: only SQLite files are supported yet")
    return path


def _as_data(row: AuditRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in COLUMNS}


def _print(out: Output, rows: list[AuditRow]) -> None:
    for row in rows:
        if out.as_json:
            out.line(_as_data(row))
            continue
        about = f" {row.order_id}" if row.order_id else ""
        out.say(
            f"[bold]{row.seq:>8}[/bold]  {text(row.time)}  {text(row.event_type)}  "
            f"{text(row.actor)}{text(about)}  [dim]{text(row.data)}[/dim]"
        )
