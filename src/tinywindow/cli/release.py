"""`tinywindow release`: clear the stops that stand, and nothing that comes later."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from tinywindow.cli.output import sheet, text
from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.cli.who import actor, printable
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.kill_report import KillSwitchStatus
from tinywindow.safety.services.kill_switch import KillSwitch

__all__ = ["register"]

TWO_PERSON: Final = (
    "Nothing was released: with kill_switch.two_person, a release is asked for and confirmed "
    "by two operators through the API of the running process."
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(release)


def release(
    ctx: typer.Context,
    *,
    reason: Annotated[str, typer.Option(help="Why; it stands in the audit log.", metavar="TEXT")],
    force: Annotated[
        bool, typer.Option("--force", help="Release although a close is still running.")
    ] = False,
) -> int:
    """Release the kill switch. It sends nothing and starts nothing: that is `start`."""
    session = session_of(ctx)
    if not reason.strip():
        raise typer.BadParameter("a release needs a reason", param_hint="--reason")
    return session.with_store(lambda context: _release(session, context, reason, force=force))


async def _release(session: Session, context: SafetyContext, reason: str, *, force: bool) -> int:
    settings, out = session.settings, session.out
    async with KillSwitch(settings.redis, (), context, config=settings.kill_switch) as switch:
        before = await switch.get_status()
        if not before.active:
            out.document({"released": [], "active": False})
            out.say("The kill switch is not active; there is nothing to release.")
            return Exit.DONE
        after = await switch.deactivate(
            reason=printable(reason), actor=actor(), force=force, seen=before
        )
    if not isinstance(after, KillSwitchStatus):
        out.document({"released": [], "active": True, "error": TWO_PERSON})
        out.say(TWO_PERSON)
        return Exit.SAID_NO
    out.document({"released": before.latch_ids, "active": after.active, "reason": after.reason})
    rows = [(latch.id, latch.mode.value, latch.reason) for latch in before.latches]
    out.say(sheet("released", "mode", "reason", rows=rows))
    if after.active:
        out.say(f"The kill switch is still active: {text(after.reason)}")
        return Exit.SAID_NO
    out.say("The kill switch is released. Trading stays off until: tinywindow start")
    return Exit.DONE
