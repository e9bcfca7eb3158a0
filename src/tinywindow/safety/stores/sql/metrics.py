"""What the breaker measures: equity marks and execution attempts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from sqlalchemy import bindparam, delete, func, or_, select

from tinywindow.safety.domain.money import plain
from tinywindow.safety.domain.records import MarkRecord
from tinywindow.safety.domain.windows import STREAK_ORDERS, Execution, ExecutionKind, Outcome
from tinywindow.safety.stores import schema
from tinywindow.safety.stores.sql.engine import Engine, Row
from tinywindow.safety.stores.sql.part import (
    Part,
    as_decimal,
    as_decimal_or_none,
    as_int,
    as_int_or_none,
    as_one_of,
    first,
)
from tinywindow.safety.stores.sql.rows import Writer

__all__ = ["MetricsPart", "read_executions"]

LOADED_SPAN_MS: Final = 25 * 3_600_000
"""How far back every kind of attempt is loaded, counted from the newest."""

_E = schema.executions.c
_M = schema.marks.c
_EXECUTIONS: Final = Writer.of(schema.executions, key=("id",), skip=("id",))
_REVISE: Final = Writer.of(schema.executions, key=("id",))
_MARKS: Final = Writer.of(schema.marks, key=("id",), skip=("id",))
_EXECUTION_COLUMNS: Final = (_E.id, _E.kind, _E.at_ms, _E.outcome, _E.resolved_ms)
_EXECUTION: Final = select(*_EXECUTION_COLUMNS).where(_E.client_order_id == bindparam("p_id"))
_EXECUTIONS_SINCE: Final = (
    select(*_EXECUTION_COLUMNS).where(_E.version > bindparam("p_since")).order_by(_E.id)
)
_NEWEST_ORDERS: Final = (
    select(_E.id)
    .where(_E.kind == ExecutionKind.ORDER.value)
    .order_by(_E.at_ms.desc(), _E.id.desc())
    .limit(STREAK_ORDERS)
)
_NEWEST_MS: Final = select(func.max(_E.at_ms)).scalar_subquery()
_EXECUTIONS_THAT_COUNT: Final = (
    select(*_EXECUTION_COLUMNS)
    .where(or_(_E.at_ms >= _NEWEST_MS - LOADED_SPAN_MS, _E.id.in_(_NEWEST_ORDERS)))
    .order_by(_E.id)
)
_MARKS_SINCE: Final = (
    select(*schema.marks.columns)
    .where(_M.id > bindparam("p_after"), _M.received_ms >= bindparam("p_since"))
    .order_by(_M.id)
    .limit(bindparam("p_limit"))
)
_NEWEST_MARK: Final = select(func.max(_M.received_ms))
_OLD_MARKS: Final = (
    select(_M.id, _M.received_ms).where(_M.received_ms < bindparam("p_before")).order_by(_M.id)
)
_DELETE_MARK: Final = delete(schema.marks).where(_M.id == bindparam("p_id"))


def read_executions(db: Engine, *, since: int | None) -> tuple[Execution, ...]:
    """Attempts that changed after version `since`; when it is None, all that may still count.

    That is the newest day, and the newest orders however old: a streak of failures with less
    than a day from each to the next may reach back for weeks.
    """
    if since is None:
        rows = db.rows(_EXECUTIONS_THAT_COUNT)
    else:
        rows = db.rows(_EXECUTIONS_SINCE, {"p_since": since})
    return tuple(_execution(row) for row in rows)


def _execution(row: Row) -> Execution:
    return Execution(
        id=as_int(row[0]),
        kind=as_one_of(ExecutionKind, row[1]),
        at_ms=as_int(row[2]),
        outcome=as_one_of(Outcome, row[3]),
        resolved_ms=as_int_or_none(row[4]),
    )


def _mark(row: Row) -> MarkRecord:
    return MarkRecord(
        id=as_int(row[0]),
        account=str(row[1]),
        equity=as_decimal(row[2]),
        cash_flow=as_decimal(row[3]),
        at_ms=as_int(row[4]),
        received_ms=as_int(row[5]),
        trusted=bool(row[6]),
        nav=as_decimal_or_none(row[7]),
    )


class MetricsPart(Part):
    """The part of a transaction that holds marks and attempts."""

    def add_mark(self, mark: MarkRecord) -> int:
        """Append an equity mark; its `id` is ignored and the store's own returned."""
        return _MARKS.number(
            self._db,
            {
                "account": mark.account,
                "equity": plain(mark.equity),
                "cash_flow": plain(mark.cash_flow),
                "at_ms": mark.at_ms,
                "received_ms": mark.received_ms,
                "trusted": int(mark.trusted),
                "nav": None if mark.nav is None else plain(mark.nav),
            },
        )

    def marks(self, *, since_ms: int, limit: int, after_id: int = 0) -> tuple[MarkRecord, ...]:
        """Marks after `after_id` that were received at or after `since_ms`, oldest first."""
        params = {"p_after": after_id, "p_since": since_ms, "p_limit": limit}
        rows = self._db.rows(_MARKS_SINCE, params)
        return tuple(_mark(row) for row in rows)

    def newest_mark_ms(self) -> int | None:
        """When the newest mark was received, or None."""
        return as_int_or_none(self._db.rows(_NEWEST_MARK)[0][0])

    def thin_marks(self, *, before_ms: int, keep_every_ms: int, keep_ids: Iterable[int]) -> int:
        """Drop marks older than `before_ms` but the first in each span; returns how many."""
        keep = set(keep_ids)
        spans: set[int] = set()
        dropped = 0
        for row in self._db.rows(_OLD_MARKS, {"p_before": before_ms}):
            mark_id, span = as_int(row[0]), as_int(row[1]) // keep_every_ms
            if span not in spans:
                spans.add(span)
            elif mark_id not in keep:
                dropped += self._db.run(_DELETE_MARK, {"p_id": mark_id})
        return dropped

    def put_execution(
        self,
        *,
        kind: str,
        at_ms: int,
        outcome: Outcome,
        resolved_ms: int | None,
        client_order_id: str | None,
    ) -> Execution:
        """Insert an attempt, or revise the one with the same client order id.

        A revision keeps kind and time; one that says nothing new writes nothing.
        """
        known = None if client_order_id is None else self.execution(client_order_id)
        if known is not None and (known.outcome, known.resolved_ms) == (outcome, resolved_ms):
            return known
        params: dict[str, object] = {
            "client_order_id": client_order_id,
            "kind": kind if known is None else known.kind.value,
            "at_ms": at_ms if known is None else known.at_ms,
            "outcome": outcome.value,
            "resolved_ms": resolved_ms,
            "version": self._touch(),
        }
        if known is None:
            row_id = _EXECUTIONS.number(self._db, params)
            row = Execution(row_id, ExecutionKind(kind), at_ms, outcome, resolved_ms)
        else:
            _REVISE.put(self._db, {**params, "id": known.id})
            row = replace(known, outcome=outcome, resolved_ms=resolved_ms)
        self._pending.executions.append(row)
        return row

    def execution(self, client_order_id: str) -> Execution | None:
        """The attempt recorded for an order, or None."""
        row = first(self._db.rows(_EXECUTION, {"p_id": client_order_id}))
        return None if row is None else _execution(row)
