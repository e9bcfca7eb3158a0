"""`tinywindow audit`: verify the chain, look at its end, export it.

The database is read and nothing more: it is not made, not upgraded, and no writer waits. So a
log of another revision, or a damaged one, is still verified as far as it can be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from tinywindow.cli.audit_watch import Watched
from tinywindow.cli.output import Output, sheet, text
from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.safety.domain.audit import AuditRow
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.services.anchor import Anchor, AnchorPoint
from tinywindow.safety.services.audit_export import COLUMNS
from tinywindow.safety.services.audit_log import AuditLog, Verification, open_audit, verify_export
from tinywindow.safety.services.location import locate
from tinywindow.safety.stores.audit_reader import AuditReader

__all__ = ["app"]

T = TypeVar("T")

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
        try:
            with session.out.moment() as show:
                show(f"verifying {export}")
                found = verify_export(export, points)
        except OSError as error:
            raise StoreUnavailable(f"{export} cannot be read: {error.strerror}") from error
        _show(session.out, found, points, None)
        return Exit.DONE if found.intact else Exit.SAID_NO
    # Read before the rows: a head that is anchored meanwhile belongs to a row that is read later.
    kept = (
        anchor
        or locate(session.settings.db_connection, data_dir=session.settings.data_dir).anchor_path
    )
    points = Anchor(kept).points()

    with session.out.moment() as show:

        async def work(reader: AuditReader) -> tuple[Verification, int | None]:
            watched = Watched(reader, "verifying", show)
            return await AuditLog(watched).verify(points), await _waiting(reader)

        found, waiting = _read(session, work)
    _show(session.out, found, points, waiting)
    return Exit.DONE if found.intact else Exit.SAID_NO


async def _waiting(reader: AuditReader) -> int | None:
    """How many rows of stops are still to follow; None where that cannot be read."""
    try:
        return await reader.read(lambda view: view.waiting())
    except StoreUnavailable:
        return None


def _show(
    out: Output, found: Verification, points: tuple[AnchorPoint, ...], waiting: int | None
) -> None:
    out.document(
        {
            "intact": found.intact,
            "rows": found.rows,
            "seq": found.seq,
            "hash": found.hash,
            "anchors": found.anchors,
            "waiting": waiting,
            "faults": [{"seq": fault.seq, "message": fault.message} for fault in found.faults],
            "faults_count": found.faults_count,
        }
    )
    if found.intact:
        out.say(f"The chain is intact: {found.rows} rows, {found.anchors} anchors agree.")
    else:
        out.say(f"The chain is BROKEN: {found.faults_count} faults in {found.rows} rows.")
        shown = found.faults[:SHOWN_FAULTS_MAX]
        rows = ((fault.seq, fault.message) for fault in shown)
        out.say(sheet("row", "what is wrong", rows=rows))
    if waiting:
        out.say(f"{waiting} rows of stops wait in the outbox; the next process appends them.")
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
    out = session.out

    async def work(reader: AuditReader) -> None:
        log = AuditLog(reader)
        rows = await log.tail(count)
        if out.as_json and not follow:
            out.document([_as_data(row) for row in rows])
            return
        last = 0
        while True:
            _print(out, rows)
            last = rows[-1].seq if rows else last
            if not follow:
                return
            await asyncio.sleep(FOLLOW_INTERVAL_S)
            rows = await log.page(after=last, limit=1000)

    _read(session, work)
    return Exit.DONE


@app.command()
def export(
    ctx: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="Where to: a name ending in .csv or .jsonl.")],
) -> int:
    """Write the whole log to a file that `audit verify` reads again."""
    session = session_of(ctx, replay_allowed=True)
    try:
        with session.out.moment() as show:
            count = _read(
                session, lambda reader: AuditLog(Watched(reader, "writing", show)).export(file)
            )
    except OSError as error:
        raise StoreUnavailable(f"{file} cannot be written: {error.strerror}") from error
    session.out.document({"file": file, "rows": count, "columns": COLUMNS})
    session.out.say(f"{count} rows were written to {text(file)}.")
    return Exit.DONE


def _read(session: Session, work: Callable[[AuditReader], Awaitable[T]]) -> T:
    """Run `work` on the log of the configured database, in an event loop of its own."""

    async def run() -> T:
        location = locate(session.settings.db_connection, data_dir=session.settings.data_dir)
        reader = await open_audit(location)
        try:
            return await work(reader)
        finally:
            await reader.close()

    return asyncio.run(run())


def _as_data(row: AuditRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in COLUMNS}


def _print(out: Output, rows: Iterable[AuditRow]) -> None:
    for row in rows:
        if out.as_json:
            out.line(_as_data(row))
            continue
        about = f" {row.order_id}" if row.order_id else ""
        out.say(
            f"[bold]{row.seq:>8}[/bold]  {text(row.time)}  {text(row.event_type)}  "
            f"{text(row.actor)}{text(about)}  [dim]{text(row.data)}[/dim]"
        )
