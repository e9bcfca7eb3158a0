"""`tinywindow run`: trade, on the paper venue unless told otherwise."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tinywindow.cli.logs import logs_to_stderr
from tinywindow.cli.output import text
from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.data_folder import default_folder
from tinywindow.safety.config.layers import using
from tinywindow.safety.domain.money import NotANumber, to_decimal
from tinywindow.settings import PORT_MAX, RunOptions, Settings

__all__ = ["register"]


Balance = Annotated[
    str | None, typer.Option(help="What a new paper account starts with, USD.", metavar="USD")
]
Port = Annotated[
    int | None,
    typer.Option(
        help="The API's port; no effect yet: this version has no API.", min=0, max=PORT_MAX
    ),
]
NoApi = Annotated[
    bool, typer.Option("--no-api", help="Serve no API; no effect yet: this version has none.")
]


class StrategyName(StrEnum):
    """The strategies that ship."""

    MOMENTUM = "momentum"
    CLAUDE = "claude"
    HOLD = "hold"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    ctx: typer.Context,
    *,
    strategy: Annotated[StrategyName | None, typer.Option(help="Who decides.")] = None,
    replay: Annotated[
        list[Path] | None,
        typer.Option(
            help="A candle file to replay; may be given more than once.",
            exists=True,
            dir_okay=False,
            metavar="FILE",
        ),
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(help="The simulated market's scenario.", metavar="NAME")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The number that the simulated market follows from.", min=0)
    ] = None,
    balance: Balance = None,
    symbol: Annotated[
        str | None, typer.Option(help="The symbol of a replayed file whose name hides it.")
    ] = None,
    speed: Annotated[
        str, typer.Option(help="How many times faster than real time; max is at once.")
    ] = "1",
    exit_at_end: Annotated[
        bool, typer.Option("--exit-at-end", help="End when the replay ends.")
    ] = False,
    port: Port = None,
    no_api: NoApi = False,
    live: Annotated[
        str | None, typer.Option(help="Trade for real at this venue.", metavar="VENUE")
    ] = None,
    adopt_limits: Annotated[
        bool, typer.Option("--adopt-limits", help="Use the store's limits where they differ.")
    ] = False,
    change_limits: Annotated[
        bool, typer.Option("--change-limits", help="Put these limits in force; audited.")
    ] = False,
) -> int:
    """Trade: a simulated market, a replay of candles, or a live venue."""
    if adopt_limits and change_limits:
        raise typer.BadParameter("take one of --adopt-limits and --change-limits, not both")
    if live is not None and replay:
        raise typer.BadParameter("a replay is never live; leave out --live or --replay")
    chosen = RunOptions(
        strategy=None if strategy is None else strategy.value,
        replay=tuple(replay or ()),
        symbol=symbol,
        speed=_speed(speed),
        exit_at_end=exit_at_end,
        port=port,
        api=not no_api,
        live=live,
        adopt_limits=adopt_limits,
        change_limits=change_limits,
    )
    session = session_of(ctx, replay_allowed=bool(replay))
    over: dict[str, object] = {
        "scenario": scenario,
        "seed": seed,
        "balance": balance,
        "port": port,
    }
    named = {name: value for name, value in over.items() if value is not None}
    return _run(session, _settings(session, chosen, named), chosen)


def _settings(session: Session, options: RunOptions, named: dict[str, object]) -> Settings:
    """The settings with what the command line says of the run; a replay has its own folder."""
    settings = session.settings
    update: dict[str, object] = {}
    if options.replay and not settings.named("data_dir"):
        update["data_dir"] = default_folder(settings.data_dir)
    with using(session.layers):
        update["run"] = settings.run.model_copy(update=named)
        return settings.model_copy(update=update)


def _run(session: Session, settings: Settings, options: RunOptions) -> int:
    """Run until the end, telling what happens as it does."""
    # Venues, strategies and the whole graph: no other command pays for them.
    from tinywindow.run_report import RunReport  # noqa: PLC0415
    from tinywindow.runtime import build, run_until_end  # noqa: PLC0415

    logging, out = settings.logging, session.out
    logs_to_stderr(logging.level, as_json=out.as_json or logging.format == "json")
    with out.moment() as show:
        report = RunReport(say=lambda line: out.say(text(line)), show=show)
        started = build(settings, options, report)
        report.say(f"data directory {settings.data_dir}")
        asyncio.run(run_until_end(started))
    out.document(report.summary())
    return Exit.DONE


def _speed(word: str) -> Decimal | None:
    if word == "max":
        return None
    try:
        speed = to_decimal(word)
    except NotANumber as error:
        raise typer.BadParameter(f"{error}; wanted a number above 0, or max") from None
    if speed <= 0:
        raise typer.BadParameter("must be above 0, or max")
    return speed
