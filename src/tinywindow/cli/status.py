"""`tinywindow status`: kill switch, breaker, limits, venues and the newest audit rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from tinywindow.cli.close_words import close_words
from tinywindow.cli.closing_look import NOBODY
from tinywindow.cli.output import Output, plain_data, sheet, text
from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.cli.snapshot import snapshot_of, snapshot_without_store
from tinywindow.cli.status_away import host_data, show_host
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.times import to_ms

__all__ = ["register"]

_STATE_STYLE = {"OK": "green", "UNKNOWN": "yellow", "BREACHED": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(ctx: typer.Context) -> int:
    """Show whether trading is allowed, and if not, what stands in its way."""
    session = session_of(ctx, replay_allowed=True)
    now_ms = to_ms(SystemClock().now())
    if session.has_store:
        try:
            snapshot = session.with_store(lambda context: snapshot_of(session, context, now_ms))
        except StoreUnavailable as error:
            return _away(session, error)
    else:
        snapshot = snapshot_without_store(session, now_ms)
        session.out.say(f"There is no database in {text(session.settings.data_dir)} yet.")
    data: Any = plain_data(snapshot)
    data.update(data_dir=str(session.settings.data_dir), replay=session.replay)
    session.out.document(data)
    _show(session.out, data)
    return Exit.DONE


def _away(session: Session, error: StoreUnavailable) -> int:
    """Say what the data directory alone tells; what only the database knows is unknown."""
    data = host_data(session, str(error))
    data.update(data_dir=str(session.settings.data_dir), replay=session.replay)
    session.out.document({**data, "violations": [], "exit_code": Exit.NOT_REACHED})
    show_host(session, session.out)
    session.out.warn(str(error))
    return Exit.NOT_REACHED


def _show(out: Output, data: Mapping[str, Any]) -> None:
    if data["replay"]:
        out.say("[yellow]This is a replay: nothing real trades here.[/yellow]")
    _show_stops(out, data)
    metrics = data["circuit_breaker"]["metrics"]
    rows = ((n, _figure(m["value"]), m["limit"], m["state"], m["note"]) for n, m in metrics.items())
    out.say("", sheet("metric", "value", "limit", "state", "", rows=rows))
    _show_limits(out, data["limits"])
    for name, venue in data["venues"].items():
        out.say("", f"[bold]venue {text(name)}[/bold]  {venue['open_orders']} open orders")
        positions = [(p["symbol"], p["amount"], p["price"]) for p in venue["positions"]]
        if positions:
            out.say(sheet("position", "amount", "price", rows=positions))
        if data["kill_switch"]["active"] and venue["close"] is not None:
            for line in close_words("the stop", venue["close"]):
                out.say(text(line))
    if data["audit"]:
        newest = ((r["seq"], r["time"], r["event_type"], r["actor"]) for r in data["audit"])
        out.say("", sheet("row", "time", "event", "actor", rows=newest))


def _show_stops(out: Output, data: Mapping[str, Any]) -> None:
    kill, breaker = data["kill_switch"], data["circuit_breaker"]
    running = data["trading"] == "RUNNING"
    out.say(
        f"trading          {'[green]RUNNING[/green]' if running else '[yellow]STOPPED[/yellow]'}"
    )
    if kill["active"]:
        out.say(
            f"kill switch      [bold red]{text(kill['mode'])}[/bold red]  {text(kill['state'])}"
        )
        out.say(f"                 {text(kill['reason'])}")
        if kill["closing"] is False:
            out.say(
                f"                 [bold red]{NOBODY}[/bold red]: start a process that can, or "
                "tinywindow kill --mode CLOSE_POSITIONS --reason TEXT --wait"
            )
    else:
        out.say("kill switch      [green]not active[/green]")
    if breaker["is_halted"]:
        out.say(f"circuit breaker  [bold red]TRIPPED[/bold red]  {text(breaker['halt_reason'])}")
    else:
        out.say("circuit breaker  [green]armed[/green]")


def _show_limits(out: Output, limits: Mapping[str, Any]) -> None:
    used = limits.get("used")
    if used is None:
        return
    leverage = used["leverage"] or "unknown"
    rows = [
        ("total exposure, USD", used["total_exposure"], limits["max_total_exposure"]),
        ("leverage", leverage, limits["max_leverage"]),
        *((f"{n}, USD", usd, limits["max_position_size"]) for n, usd in used["symbols"].items()),
        *((f"{n}, USD", usd, limits["max_sector_exposure"]) for n, usd in used["sectors"].items()),
    ]
    out.say("", sheet("limit", "used", "at most", rows=rows))
    if used["unpriced"]:
        out.say(f"without a fresh price: {text(', '.join(used['unpriced']))}")


def _figure(value: str | None) -> str:
    """A number for people: at most four decimals."""
    if value is None:
        return "-"
    whole, _, decimals = value.partition(".")
    return f"{whole}.{decimals[:4]}" if decimals else whole
