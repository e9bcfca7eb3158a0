"""`tinywindow start` and `tinywindow stop`: whether an operator wants trading."""

from __future__ import annotations

from typing import Annotated

import typer

from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.cli.who import actor, printable
from tinywindow.safety.services.admitter import random_id
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.trading import start_trading, stop_trading

__all__ = ["register"]

Reason = Annotated[str, typer.Option(help="Why; it stands in the audit log.", metavar="TEXT")]


def register(app: typer.Typer) -> None:
    """Add the two commands."""
    app.command()(start)
    app.command()(stop)


def start(ctx: typer.Context, reason: Reason = "") -> int:
    """Switch trading on, once every stop is released and the breaker is reset."""
    session = session_of(ctx)
    changed = session.with_store(lambda context: _start(session, context, printable(reason)))
    session.out.document({"trading": "RUNNING", "changed": changed})
    session.out.say("Trading is on." if changed else "Trading was on already.")
    return Exit.DONE


def stop(ctx: typer.Context, reason: Reason = "") -> int:
    """Switch trading off, without a latch: `tinywindow start` switches it on again."""
    session = session_of(ctx)
    changed = session.with_store(
        lambda context: stop_trading(
            context,
            actor=actor(),
            reason=printable(reason),
            now=SystemClock().now(),
            new_id=random_id,
        )
    )
    session.out.document({"trading": "STOPPED", "changed": changed})
    session.out.say("Trading is off." if changed else "Trading was off already.")
    return Exit.DONE


async def _start(session: Session, context: SafetyContext, reason: str) -> bool:
    settings = session.settings
    async with KillSwitch(settings.redis, (), context, config=settings.kill_switch) as switch:
        status = await switch.get_status()
    # Asked before the transaction: it looks at Redis, which the transaction cannot.
    other = status.reason or "the kill switch is active" if status.active else None
    return await start_trading(
        context,
        actor=actor(),
        reason=reason,
        now=SystemClock().now(),
        new_id=random_id,
        found=lambda: other,
    )
