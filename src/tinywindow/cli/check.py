"""`tinywindow check`: would this order pass? Nothing is reserved and nothing is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Final

import typer

from tinywindow.cli.output import text
from tinywindow.cli.session import Exit, Session, session_of
from tinywindow.safety.domain.admission import Admission, AdmissionRequest, admit
from tinywindow.safety.domain.book import DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.domain.limits import LimitSet
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.domain.watch import equity_view
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.limits_in_force import LIMITS_DOCUMENT
from tinywindow.safety.services.order_validator import OrderValidator
from tinywindow.safety.services.times import to_ms

__all__ = ["register"]

VENUE: Final = "paper"
"""The venue of an order that names none."""
ORDER_CHARS_MAX: Final = 1_000_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(check)


def check(
    ctx: typer.Context,
    order_json: Annotated[
        str, typer.Argument(help="The order as JSON, or - to read it from standard input.")
    ],
    venue: Annotated[str, typer.Option(help="The venue of an order that names none.")] = VENUE,
) -> int:
    """Say whether the gate would let an order pass now; exit code 1 when it would not."""
    session = session_of(ctx)
    raw = sys.stdin.read(ORDER_CHARS_MAX + 1) if order_json == "-" else order_json
    validated = OrderValidator(default_venue=venue).validate_order(_read(raw))
    if validated.checked is None:
        breaches = [Breach(Reason.VALIDATION_FAILED, error) for error in validated.errors]
        return _answer(session, None, breaches)
    order = validated.checked
    breaches = session.with_store(lambda context: _peek(session, context, order))
    return _answer(session, order, breaches)


def _read(raw: str) -> object:
    if len(raw) > ORDER_CHARS_MAX:
        raise typer.BadParameter(f"the order has more than {ORDER_CHARS_MAX} characters")
    try:
        return json.loads(raw, parse_float=Decimal, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"the order is no JSON: {error}") from None


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a key stands twice")
    return dict(pairs)


async def _peek(session: Session, context: SafetyContext, order: CheckedOrder) -> list[Breach]:
    settings = session.settings
    async with KillSwitch(settings.redis, (), context, config=settings.kill_switch) as switch:
        found = await switch.found()
    now = SystemClock().now()
    now_ms = to_ms(now)

    standing = await context.store.read(lambda tx: tx.document(LIMITS_DOCUMENT))
    limits = (
        settings.position_limits.to_limit_set()
        if standing is None
        else LimitSet.from_text(standing)
    )
    request = AdmissionRequest(
        order=order,
        now=now,
        now_ms=now_ms,
        limits=limits,
        equity_of=lambda documents: equity_view(documents, now_ms, limits.equity_max_age_ms),
        price_source=None,
        stop_probe=context.stop_probe,
        stops_beside=context.stops_beside,
        ids=("peek-1", "peek-2", "peek-3"),
        actor="cli",
        breaker=settings.circuit_breaker.to_limits(),
        with_intent=True,
        found=(*found, *context.found()),
    )

    def decide(view: DecisionView) -> Draft[Admission]:
        # The verdict alone: without a hold and rows, nothing is written.
        return Draft(admit(request, view).result)

    ids = DecisionIds(order.client_order_id, order.decision_id)
    verdict = await context.store.decide(ids, decide)
    return list(verdict.breaches) if isinstance(verdict, Refusal) else []


def _answer(session: Session, order: CheckedOrder | None, breaches: Sequence[Breach]) -> int:
    out = session.out
    out.document(
        {
            "allowed": not breaches,
            "reason_code": breaches[0].code if breaches else None,
            "rejection_reason": breaches[0].sentence if breaches else None,
            "breaches": [breach.to_data() for breach in breaches],
            "client_order_id": None if order is None else order.client_order_id,
        }
    )
    if not breaches:
        out.say("The order would pass now. Nothing was reserved.")
        return Exit.DONE
    out.say("The order would be refused:")
    for breach in breaches:
        out.say(f"  {text(breach.sentence)}")
    return Exit.SAID_NO
