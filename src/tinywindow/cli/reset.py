"""`tinywindow reset`: clear the circuit breaker's trip, after seeing what it would do."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tinywindow.cli.output import text
from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.cli.who import printable
from tinywindow.safety.services.context import SafetyContext

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reset)


def reset(
    ctx: typer.Context,
    *,
    operator: Annotated[str, typer.Option(help="Who resets.", metavar="NAME")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the audit log.", metavar="TEXT")],
    rebaseline: Annotated[
        bool,
        typer.Option(
            "--rebaseline", help="Measure losses from today's equity on, where they still breach."
        ),
    ] = False,
    retire_account: Annotated[
        str | None,
        typer.Option(
            help="Reset nothing: take an account that is marked no more out of the portfolio.",
            metavar="ACCOUNT",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Reset the circuit breaker. It permits trading and does not start it."""
    session = session_of(ctx)
    for name, value in (("--operator", operator), ("--reason", reason)):
        if not value.strip():
            raise typer.BadParameter("must not be blank", param_hint=name)
    operator, reason = printable(operator), printable(reason)
    if retire_account is not None:
        if rebaseline:
            raise typer.BadParameter("resets nothing beside it", param_hint="--retire-account")
        return session.with_store(
            lambda context: _retire(session, context, retire_account, operator, reason, yes=yes)
        )
    return session.with_store(
        lambda context: _reset(session, context, operator, reason, rebaseline=rebaseline, yes=yes)
    )


async def _reset(
    session: Session,
    context: SafetyContext,
    operator: str,
    reason: str,
    *,
    rebaseline: bool,
    yes: bool,
) -> int:
    from tinywindow.safety.services.circuit_breaker import (  # noqa: PLC0415 - for this one only
        CircuitBreaker,
    )

    settings, out = session.settings, session.out
    async with CircuitBreaker(settings.redis, context, settings.circuit_breaker) as breaker:
        await breaker.check_all_metrics()
        if not breaker.is_tripped:
            out.document({"reset": False, "is_halted": False, "still_breached": []})
            out.say("The circuit breaker is not tripped; there is nothing to reset.")
            return Exit.DONE
        pending = breaker.reset()
        still = [str(getattr(one, "sentence", one)) for one in pending.still_breached]
        out.say(f"Halted: {text(breaker.halt_reason)}")
        _show_breached(session, still, rebaseline=rebaseline)
        if not yes and not _agreed(session):
            out.document({"reset": False, "is_halted": True, "still_breached": still})
            out.say("Nothing was changed.")
            return Exit.SAID_NO
        await pending.confirm(operator, reason, rebaseline=rebaseline)
    out.document({"reset": True, "is_halted": False, "still_breached": still})
    out.say("The circuit breaker is reset. Trading stays off until: tinywindow start")
    return Exit.DONE


async def _retire(
    session: Session,
    context: SafetyContext,
    account: str,
    operator: str,
    reason: str,
    *,
    yes: bool,
) -> int:
    from tinywindow.safety.services.circuit_breaker import (  # noqa: PLC0415 - for this one only
        CircuitBreaker,
    )

    settings, out = session.settings, session.out
    name = text(account)
    if not yes and not _agreed(session, f"Take account {name} out of the portfolio?"):
        out.document({"retired": None})
        out.say("Nothing was changed.")
        return Exit.SAID_NO
    async with CircuitBreaker(settings.redis, context, settings.circuit_breaker) as breaker:
        await breaker.retire_account(account, operator, reason)
    out.document({"retired": account})
    out.say(f"Account {name} is retired. Marked again, it is a new account.")
    return Exit.DONE


def _show_breached(session: Session, still: list[str], *, rebaseline: bool) -> None:
    if not still:
        session.out.say("No metric would trip again at once.")
        return
    session.out.say("Would trip again at once:")
    for sentence in still:
        session.out.say(f"  {text(sentence)}")
    if not rebaseline:
        session.out.say("A loss that is still breached needs --rebaseline.")


def _agreed(session: Session, question: str = "Reset?") -> bool:
    if session.out.as_json or not sys.stdin.isatty():
        session.out.warn("nobody can be asked here; add --yes to confirm")
        return False
    return typer.confirm(question, default=False, err=True)
