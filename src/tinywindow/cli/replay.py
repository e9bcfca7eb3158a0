"""`tinywindow replay`: what the circuit breaker would have done over candle files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from tinywindow.cli.output import Output, sheet, text
from tinywindow.cli.session import Exit, session_of
from tinywindow.market.whatif import ReplayReport, replay_file
from tinywindow.safety.config import CircuitBreakerConfig
from tinywindow.safety.config.layers import using
from tinywindow.safety.domain.whatif import LossFinding
from tinywindow.safety.services.times import from_ms

__all__ = ["register"]

Limit = Annotated[str | None, typer.Option(help="Percent, below 0.", metavar="PERCENT")]
NEVER: Final = "never"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay")(replay)


def replay(
    ctx: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(help="Candle files: CSV, optionally gzip.", exists=True, dir_okay=False),
    ],
    daily_loss_limit: Limit = None,
    drawdown_limit: Limit = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw a picture into this file.", metavar="OUT.png")
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(help="The symbol of a file whose name hides it.")
    ] = None,
) -> int:
    """Buy one unit at the first close, hold it, and see when the breaker would have tripped."""
    session = session_of(ctx, replay_allowed=True)
    over = {"daily_loss_limit": daily_loss_limit, "drawdown_limit": drawdown_limit}
    given = {name: value for name, value in over.items() if value is not None}
    with using(session.layers):
        config: CircuitBreakerConfig = session.settings.circuit_breaker.model_copy(update=given)
    limits = config.to_limits()
    reports = []
    with session.out.moment() as show:
        for file in files:
            show(f"reading {file}")
            reports.append(
                replay_file(
                    file,
                    symbol,
                    daily_loss_limit=limits.daily_loss_limit,
                    drawdown_limit=limits.drawdown_limit,
                    config=limits.nav,
                    with_curve=plot is not None,
                )
            )
        if plot is not None:
            from tinywindow.market.whatif_plot import plot as draw  # noqa: PLC0415 - an extra

            show(f"drawing {plot}")
            draw(reports, plot)
    session.out.document([report.to_data() for report in reports])
    _show(session.out, reports)
    if plot is not None:
        session.out.say(f"The picture is in {text(plot)}.")
    return Exit.DONE


def _show(out: Output, reports: list[ReplayReport]) -> None:
    for report in reports:
        first, last = _day(report.first_ms), _day(report.last_ms)
        out.say(f"[bold]{text(report.symbol)}[/bold]  {report.rows} bars, {first} to {last}")
        found = (("daily P&L", report.found.daily_pnl), ("drawdown", report.found.drawdown))
        rows = (_row(name, loss) for name, loss in found)
        out.say(sheet("metric", "limit", "first breach (UTC)", "worst", "at", rows=rows))
        out.say("")


def _row(name: str, loss: LossFinding) -> tuple[object, ...]:
    breach = NEVER if loss.first_breach_ms is None else _day(loss.first_breach_ms)
    return name, f"{loss.limit} %", breach, f"{loss.worst:.4f} %", _day(loss.worst_ms)


def _day(at_ms: int) -> str:
    return from_ms(at_ms).strftime("%Y-%m-%d %H:%M")
