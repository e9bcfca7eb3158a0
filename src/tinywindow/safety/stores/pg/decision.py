"""A decision as the parameters of the one call that commits it, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, LiteralString

from tinywindow.safety.domain.audit import seal
from tinywindow.safety.domain.book import Changes, DecisionIds, Draft
from tinywindow.safety.domain.records import Head
from tinywindow.safety.domain.windows import Execution, ExecutionKind, Outcome
from tinywindow.safety.errors import InvariantBroken
from tinywindow.safety.stores import schema
from tinywindow.safety.stores.sql.ledger import order_row
from tinywindow.safety.stores.sql.part import INTEGER_MAX

__all__ = [
    "ATTEMPTED_STATE",
    "DECIDE",
    "OneCall",
    "Written",
    "fits",
    "parameters",
    "taken_on",
    "writes",
]

DECIDE: Final[LiteralString] = (
    "SELECT status, seq, digest, slot FROM tinywindow_decide("
    "%s::bigint, %s::bigint, %s::text, %s::boolean, %s::text, %s::orders, %s::bigint,"
    " %s::bigint, %s::bigint, %s::bigint, %s::bigint, %s::audit_log, %s::text)"
)
"""The order's way in one round trip; a transaction of its own where none is open."""

_ORDER_COLUMNS: Final = tuple(column.name for column in schema.orders.columns)
_AUDIT_COLUMNS: Final = tuple(column.name for column in schema.audit_log.columns)


ATTEMPTED_STATE: Final = "TW002"
"""What the call fails with where the order has an attempt already, which must be revised."""


@dataclass(frozen=True, slots=True)
class OneCall:
    """A draft that one call commits, and what the call is given."""

    draft: Draft[Any]
    parameters: tuple[Any, ...]


Written = OneCall | Changes | None
"""What a transaction has left to write at its commit, or what it has written; None for nothing."""


def writes(draft: Draft[Any]) -> bool:
    """Whether a draft that one call can commit leaves anything behind."""
    return draft.hold is not None or bool(draft.audit)


def fits(ids: DecisionIds, draft: Draft[Any], *, known: bool) -> bool:
    """Whether one call can commit the draft: no trip, no document, at most one row, a new hold."""
    if draft.trip is not None or draft.documents or len(draft.audit) > 1:
        return False
    return draft.hold is None or (not known and draft.hold.decision_id == ids.decision_id)


def parameters(head: Head, ids: DecisionIds, draft: Draft[Any], *, known: bool) -> tuple[Any, ...]:
    """What the call is given; every text is serialised before the transaction begins.

    Raises:
        InvariantBroken: a sum is above its cap.
    """
    hold, row, body = None, None, None
    if draft.hold is not None:
        values = order_row(draft.hold, version=0)
        hold = _record([values[name] for name in _ORDER_COLUMNS])
    if draft.audit:
        sealed = seal(draft.audit[0])
        body = sealed.body
        row = _record([getattr(sealed, name, None) for name in _AUDIT_COLUMNS])
    worst = worst_cap = total = total_cap = None
    if draft.entry and draft.hold is not None:
        if draft.symbol_micros > draft.symbol_cap_micros:
            raise InvariantBroken(f"the exposure of {draft.hold.key.symbol} is above its cap")
        if draft.exposure_micros > draft.exposure_cap_micros:
            raise InvariantBroken("the total exposure is above its cap")
        # A cap that means "none" may be larger than what the database can hold.
        worst, worst_cap, total, total_cap = (
            min(micros, INTEGER_MAX)
            for micros in (
                draft.symbol_micros,
                draft.symbol_cap_micros,
                draft.exposure_micros,
                draft.exposure_cap_micros,
            )
        )
    slot_ms = draft.at_ms if draft.take_slot and draft.hold is not None else None
    return (
        head.version,
        head.stop_epoch,
        ids.client_order_id if draft.hold is None else draft.hold.client_order_id,
        known,
        ids.decision_id,
        hold,
        slot_ms,
        worst,
        worst_cap,
        total,
        total_cap,
        row,
        body,
    )


def taken_on(head: Head, draft: Draft[Any], answer: tuple[Any, ...]) -> Changes:
    """What the cached book takes on after the call committed the draft."""
    _, seq, digest, slot = answer
    moved = replace(head, audit_seq=seq, audit_hash=digest)
    if draft.hold is not None:
        moved = replace(moved, version=head.version + 1)
        if draft.entry:
            moved = replace(moved, exposure_micros=min(draft.exposure_micros, INTEGER_MAX))
    executions: tuple[Execution, ...] = ()
    if slot is not None:
        executions = (Execution(slot, ExecutionKind.ORDER, draft.at_ms, Outcome.PENDING, None),)
    return Changes(
        head=moved,
        holds=() if draft.hold is None else (draft.hold,),
        executions=executions,
    )


def _record(values: list[object]) -> str:
    """A row as PostgreSQL reads a composite value; an absent field is null."""
    return "(" + ",".join(_field(value) for value in values) + ")"


def _field(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    text = str(value).replace("\\", "\\\\").replace('"', '""')
    return f'"{text}"'
