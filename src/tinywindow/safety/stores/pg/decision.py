"""A decision as the parameters of the one call that commits it, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, LiteralString

import psycopg

from tinywindow.safety.domain.audit import seal
from tinywindow.safety.domain.book import Book, Changes, DecisionIds, Draft
from tinywindow.safety.domain.records import Head
from tinywindow.safety.domain.windows import Execution, ExecutionKind, Outcome
from tinywindow.safety.errors import InvariantBroken
from tinywindow.safety.stores import schema
from tinywindow.safety.stores.pg.link import BoundedConnection
from tinywindow.safety.stores.sql.ledger import order_row
from tinywindow.safety.stores.sql.part import INTEGER_MAX

__all__ = [
    "ATTEMPTED_STATE",
    "Call",
    "Calls",
    "Written",
    "all_taken_on",
    "call",
    "call_all",
    "fits",
    "foreseen",
    "parameters",
    "prepare",
    "taken_on",
]

_DECIDE: Final[LiteralString] = (
    "SELECT status, seq, digest, slot FROM tinywindow_decide("
    "$1::bigint, $2::bigint, $3::text, $4::boolean, $5::text, $6::orders, $7::bigint,"
    " $8::bigint, $9::bigint, $10::bigint, $11::bigint, $12::audit_log, $13::text)"
)
_EXECUTE: Final[LiteralString] = (
    "EXECUTE tinywindow_decide(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)

_ORDER_COLUMNS: Final = tuple(column.name for column in schema.orders.columns)
_AUDIT_COLUMNS: Final = tuple(column.name for column in schema.audit_log.columns)


ATTEMPTED_STATE: Final = "TW002"
"""What the call fails with where the order has an attempt already, which must be revised."""


@dataclass(frozen=True, slots=True)
class Call:
    """A draft that one call commits, and what the call is given."""

    draft: Draft[Any]
    parameters: tuple[Any, ...]

    @property
    def row_id(self) -> str | None:
        """The audit row by which it can be told later whether it stands."""
        return self.draft.audit[0].id if self.draft.audit else None


@dataclass(slots=True)
class Calls:
    """Drafts that a transaction has left to commit, each by a call.

    `done` says after the commit which of them stand; the others wrote nothing.
    """

    calls: list[Call] = field(default_factory=list)
    done: list[bool] = field(default_factory=list)


Written = Calls | Changes
"""What a transaction has left to write at its commit, or what it has written."""
Answer = tuple[Any, ...]
"""What a call gives: its status, the sequence number and digest of its row, and its slot."""


def prepare(connection: BoundedConnection) -> None:
    """Have the server know the call; before a lock is taken, since it costs a round trip once."""
    connection.prepare("tinywindow_decide", _DECIDE)


def call(connection: BoundedConnection, one: Call) -> Answer:
    """The order's way in one round trip, in a transaction of its own."""
    return _sent(connection, [one])[0]


def call_all(connection: BoundedConnection, calls: Sequence[Call]) -> list[Answer]:
    """Call one after another, and commit, in one round trip."""
    return _sent(connection, calls, "COMMIT")


def _sent(
    connection: BoundedConnection, calls: Sequence[Call], *then: LiteralString
) -> list[Answer]:
    prepare(connection)
    cursor = psycopg.ClientCursor(connection)
    given = [value for one in calls for value in one.parameters]
    cursor.execute("; ".join([*(_EXECUTE for _ in calls), *then]), given)
    answers = []
    for number in range(len(calls)):
        cursor.set_result(number)
        answers.append(cursor.fetchone() or ("NONE",))
    return answers


def fits(ids: DecisionIds, draft: Draft[Any], *, known: bool) -> bool:
    """Whether one call can commit the draft: no trip, no document, at most one row, a new hold."""
    if draft.trip is not None or draft.documents or len(draft.audit) > 1:
        return False
    return draft.hold is None or (not known and draft.hold.decision_id == ids.decision_id)


def parameters(head: Head, ids: DecisionIds, draft: Draft[Any], *, known: bool) -> tuple[Any, ...]:
    """What the call is given, every text serialised.

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


def foreseen(book: Book, draft: Draft[Any]) -> Changes:
    """What the next draft is shown of this one before it is committed."""
    slot = book.executions.next_id if draft.take_slot and draft.hold is not None else None
    head = book.head
    return taken_on(head, draft, ("DONE", head.audit_seq, head.audit_hash, slot))


def taken_on(head: Head, draft: Draft[Any], answer: Answer) -> Changes:
    """What the cached book takes on after a call committed the draft."""
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


def all_taken_on(before: Head, written: Calls, answers: Sequence[Answer]) -> Changes:
    """The same for several, of which those count that were done."""
    changes = Changes(before)
    for one, answer, done in zip(written.calls, answers, written.done, strict=True):
        if done:
            added = taken_on(changes.head, one.draft, answer)
            changes = replace(
                added,
                holds=(*changes.holds, *added.holds),
                executions=(*changes.executions, *added.executions),
            )
    return changes


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
