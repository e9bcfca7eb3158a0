"""The audit log: rows appended to the chain, and the outbox of rows that follow."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from tinywindow.safety.domain.audit import (
    AuditDraft,
    AuditRow,
    SealedDraft,
    canonical_json,
    link,
    seal,
)
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.ports import Clock
from tinywindow.safety.stores import schema
from tinywindow.safety.stores.sql.engine import Row
from tinywindow.safety.stores.sql.part import Part, as_int, as_text_or_none, first
from tinywindow.safety.stores.sql.rows import Writer
from tinywindow.safety.stores.wall_time import stamped

__all__ = ["AuditPart"]

_A = schema.audit_log.c
_B = schema.outbox.c
_AUDIT: Final = Writer.of(schema.audit_log, key=("seq",))
_KNOWN: Final = select(_A.seq).where(_A.id == bindparam("p_id"))
_AFTER: Final = (
    select(*schema.audit_log.columns)
    .where(_A.seq > bindparam("p_after"))
    .order_by(_A.seq)
    .limit(bindparam("p_limit"))
)
_AFTER_TYPE: Final = (
    select(*schema.audit_log.columns)
    .where(_A.seq > bindparam("p_after"), _A.event_type == bindparam("p_type"))
    .order_by(_A.seq)
    .limit(bindparam("p_limit"))
)
_TAIL: Final = select(*schema.audit_log.columns).order_by(_A.seq.desc()).limit(bindparam("p_limit"))
_OUTBOX: Final = select(_B.id, _B.draft).order_by(_B.position)
_OUTBOX_KNOWN: Final = select(_B.id).where(_B.id == bindparam("p_id"))
_OUTBOX_ADD: Final = insert(schema.outbox).values(id=bindparam("p_id"), draft=bindparam("p_draft"))
_OUTBOX_DROP: Final = delete(schema.outbox).where(_B.id == bindparam("p_id"))

_SEALED_FIELDS: Final = 8
"""How many texts a waiting row has: those of the body that is hashed, in its order."""


def _row(row: Row) -> AuditRow:
    return AuditRow(
        seq=as_int(row[0]),
        id=str(row[1]),
        time=str(row[2]),
        event_type=str(row[3]),
        actor=str(row[4]),
        agent_id=as_text_or_none(row[5]),
        order_id=as_text_or_none(row[6]),
        decision_id=as_text_or_none(row[7]),
        data=str(row[8]),
        prev_hash=str(row[9]),
        hash=str(row[10]),
    )


def sealed_from_outbox(text: str) -> SealedDraft:
    """Read a draft back from the outbox; its texts are hashed as they stand."""
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, list) or len(fields) != _SEALED_FIELDS:
        raise StoreUnavailable("the outbox holds a row of another shape")
    return SealedDraft(
        id=str(fields[0]),
        time=str(fields[1]),
        event_type=str(fields[2]),
        actor=str(fields[3]),
        agent_id=as_text_or_none(fields[4]),
        order_id=as_text_or_none(fields[5]),
        decision_id=as_text_or_none(fields[6]),
        data=str(fields[7]),
        body=canonical_json(fields),
    )


class AuditPart(Part):
    """The part of a transaction that appends to the audit log.

    `wall` is set where rows tell the wall's time beside the market's.
    """

    wall: Clock | None = None

    def audit(self, draft: AuditDraft) -> None:
        """Append a row to the chain, in this transaction."""
        self._append(seal(stamped(draft, self.wall)))

    def _append(self, sealed: SealedDraft) -> None:
        seq = self._head.audit_seq + 1
        prev_hash = self._head.audit_hash
        digest = link(prev_hash, seq, sealed.body)
        _AUDIT.add(
            self._db,
            {
                "seq": seq,
                "id": sealed.id,
                "time": sealed.time,
                "event_type": sealed.event_type,
                "actor": sealed.actor,
                "agent_id": sealed.agent_id,
                "order_id": sealed.order_id,
                "decision_id": sealed.decision_id,
                "data": sealed.data,
                "prev_hash": prev_hash,
                "hash": digest,
            },
        )
        self._head = replace(self._head, audit_seq=seq, audit_hash=digest)

    def outbox(self, draft: AuditDraft) -> None:
        """Leave a row to follow, exactly once by its id: what a stop uses."""
        sealed = seal(stamped(draft, self.wall))
        if self._known(sealed.id):
            return
        self._db.leave(_OUTBOX_ADD, {"p_id": sealed.id, "p_draft": sealed.body})

    def _known(self, row_id: str) -> bool:
        params = {"p_id": row_id}
        return bool(self._db.rows(_KNOWN, params) or self._db.rows(_OUTBOX_KNOWN, params))

    def drain_outbox(self) -> int:
        """Append what waits in the outbox to the chain; returns how many rows."""
        waiting = self._db.rows(_OUTBOX)
        for row_id, text in waiting:
            if first(self._db.rows(_KNOWN, {"p_id": row_id})) is None:
                self._append(sealed_from_outbox(str(text)))
            self._db.leave(_OUTBOX_DROP, {"p_id": row_id})
        return len(waiting)

    def audit_rows(
        self, *, after: int = 0, limit: int = 1000, event_type: str | None = None
    ) -> tuple[AuditRow, ...]:
        """Rows after sequence number `after`, in order."""
        if event_type is None:
            rows = self._db.rows(_AFTER, {"p_after": after, "p_limit": limit})
        else:
            rows = self._db.rows(
                _AFTER_TYPE, {"p_after": after, "p_limit": limit, "p_type": event_type}
            )
        return tuple(_row(row) for row in rows)

    def audit_tail(self, count: int) -> tuple[AuditRow, ...]:
        """The newest rows, in order."""
        rows = self._db.rows(_TAIL, {"p_limit": count})
        return tuple(_row(row) for row in reversed(rows))
