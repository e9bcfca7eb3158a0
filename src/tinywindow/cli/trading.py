"""`tinywindow start` and `tinywindow stop`: whether an operator wants trading."""

from __future__ import annotations

from typing import Annotated

import typer

from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.cli.who import actor, printable
from tinywindow.safety.domain.records import TradingState
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.kill_switch import KillSwitch

__all__ = ["register"]

Reason = Annotated[str, typer.Option(help="Why; it stands in the audit log.", metavar="TEXT")]


def register(app: typer.Typer) -> None:
    """Add the two commands."""
    app.command()(start)
    app.command()(stop)


def start(ctx: typer.Context, reason: Reason = "") -> int:
    """Switch trading on, once every stop is released and the breaker is reset."""
    session = session_of(ctx)

    async def work(context: SafetyContext) -> bool:
        async with _switch(session, context) as switch:
            return await switch.start_trading(actor=actor(), reason=printable(reason))

    changed = session.with_store(work)
    session.out.document({"trading": TradingState.RUNNING, "changed": changed})
    session.out.say("Trading is on." if changed else "Trading was on already.")
    return Exit.DONE


def stop(ctx: typer.Context, reason: Reason = "") -> int:
    """Switch trading off, without a latch: `tinywindow start` switches it on again."""
    session = session_of(ctx)

    async def work(context: SafetyContext) -> bool:
        async with _switch(session, context) as switch:
            return await switch.stop_trading(actor=actor(), reason=printable(reason))

    changed = session.with_store(work)
    session.out.document({"trading": TradingState.STOPPED, "changed": changed})
    session.out.say("Trading is off." if changed else "Trading was off already.")
    return Exit.DONE


def _switch(session: Session, context: SafetyContext) -> KillSwitch:
    settings = session.settings
    return KillSwitch(settings.redis, (), context, config=settings.kill_switch)
