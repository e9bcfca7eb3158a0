"""Audit rows: canonical bytes, and the link that chains each row to the one before.

A row's hash is SHA-256 over three lines: the previous hash in hex, the sequence number in
decimal, and the row's canonical body. The body holds everything but the sequence, so that it
can be serialised before the transaction that appends it. The text that was hashed is the text
that is stored; nothing is ever re-serialised to verify it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from tinywindow.safety.domain.money import plain

__all__ = [
    "GENESIS_HASH",
    "AuditDraft",
    "AuditRow",
    "ChainFault",
    "EventType",
    "canonical_json",
    "link",
    "seal",
    "utc_text",
    "verify_rows",
]

GENESIS_HASH: Final = "0" * 64
"""The hash before the first row."""


class EventType(StrEnum):
    """Every kind of audit row: a closed set, part of the API."""

    CIRCUIT_BREAKER_TRIP = "CIRCUIT_BREAKER_TRIP"
    CIRCUIT_BREAKER_RESET = "CIRCUIT_BREAKER_RESET"
    KILL_SWITCH_ACTIVATE = "KILL_SWITCH_ACTIVATE"
    KILL_SWITCH_DEACTIVATE = "KILL_SWITCH_DEACTIVATE"
    ORDER_REJECTED_LIMITS = "ORDER_REJECTED_LIMITS"
    ORDER_VALIDATION_FAILED = "ORDER_VALIDATION_FAILED"
    ORDER_APPROVED = "ORDER_APPROVED"
    ORDER_REJECTED_HALTED = "ORDER_REJECTED_HALTED"
    ORDER_OUTCOME = "ORDER_OUTCOME"
    ORDER_RELEASED = "ORDER_RELEASED"
    ORDER_LAPSED = "ORDER_LAPSED"
    POSITION_SET = "POSITION_SET"
    KILL_STEP = "KILL_STEP"
    KILL_INCOMPLETE = "KILL_INCOMPLETE"
    TRADING_STARTED = "TRADING_STARTED"
    TRADING_STOPPED = "TRADING_STOPPED"
    RECOVERY = "RECOVERY"
    RECONCILIATION_MISMATCH = "RECONCILIATION_MISMATCH"
    CONFIG_CHANGED = "CONFIG_CHANGED"
    MARK_UNTRUSTED = "MARK_UNTRUSTED"
    CLOCK_UNTRUSTED = "CLOCK_UNTRUSTED"
    ACCOUNT_RETIRED = "ACCOUNT_RETIRED"
    VENUE_ACCOUNT_SET = "VENUE_ACCOUNT_SET"
    MONITOR_FAILED = "MONITOR_FAILED"
    INTERNAL_ERROR = "INTERNAL_ERROR"


def utc_text(moment: datetime) -> str:
    """Write an aware datetime as ISO 8601 in UTC with microseconds and `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _plain_value(value: object) -> object:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return utc_text(value)
    raise TypeError(f"{type(value).__name__} has no canonical form in an audit row")


# Made once: `json.dumps` makes one for every row.
_CANONICAL: Final = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    ensure_ascii=True,
    allow_nan=False,
    default=_plain_value,
)


def canonical_json(value: object) -> str:
    """Serialise to the one text that is hashed: sorted keys, no blanks, ASCII, decimals as text.

    Raises:
        TypeError: for a value that has no canonical form (floats that are not finite, sets, …).
        ValueError: for NaN and infinities.
    """
    return _CANONICAL.encode(value)


@dataclass(frozen=True, slots=True)
class AuditDraft:
    """An audit row before it has its place in the chain."""

    id: str
    time: datetime
    event_type: EventType
    actor: str
    data: Mapping[str, object]
    agent_id: str | None = None
    order_id: str | None = None
    decision_id: str | None = None


@dataclass(frozen=True, slots=True)
class SealedDraft:
    """A draft with its canonical texts, ready to be appended inside a transaction."""

    id: str
    time: str
    event_type: str
    actor: str
    agent_id: str | None
    order_id: str | None
    decision_id: str | None
    data: str
    body: str


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row as it stands in `audit_log`; every field is the text that was hashed."""

    seq: int
    id: str
    time: str
    event_type: str
    actor: str
    agent_id: str | None
    order_id: str | None
    decision_id: str | None
    data: str
    prev_hash: str
    hash: str

    def body(self) -> str:
        """The canonical body, built from the stored texts."""
        return _body(
            self.id,
            self.time,
            self.event_type,
            self.actor,
            self.agent_id,
            self.order_id,
            self.decision_id,
            self.data,
        )


@dataclass(frozen=True, slots=True)
class ChainFault:
    """What is wrong with a chain, and at which row."""

    seq: int
    message: str


def _body(*fields: str | None) -> str:
    return canonical_json(list(fields))


def seal(draft: AuditDraft) -> SealedDraft:
    """Serialise a draft; done before the transaction, since it does not depend on the chain."""
    time = utc_text(draft.time)
    data = canonical_json(dict(draft.data))
    event = draft.event_type.value
    body = _body(
        draft.id,
        time,
        event,
        draft.actor,
        draft.agent_id,
        draft.order_id,
        draft.decision_id,
        data,
    )
    return SealedDraft(
        draft.id,
        time,
        event,
        draft.actor,
        draft.agent_id,
        draft.order_id,
        draft.decision_id,
        data,
        body,
    )


def link(prev_hash: str, seq: int, body: str) -> str:
    """Hash one row: SHA-256 of previous hash, sequence and body, one a line, in hex."""
    return hashlib.sha256(f"{prev_hash}\n{seq}\n{body}".encode()).hexdigest()


def verify_rows(
    rows: Iterable[AuditRow], *, after_seq: int = 0, after_hash: str = GENESIS_HASH
) -> tuple[int, str, tuple[ChainFault, ...]]:
    """Walk a chain and report every fault.

    Returns the last sequence number, the last hash, and the faults found: a gap in the
    sequence, a broken link to the row before, or a row whose content is not what was hashed.
    """
    faults: list[ChainFault] = []
    seq, head = after_seq, after_hash
    for row in rows:
        if row.seq != seq + 1:
            faults.append(ChainFault(row.seq, f"the sequence jumps from {seq} to {row.seq}"))
        if row.prev_hash != head:
            faults.append(ChainFault(row.seq, "the link to the row before is broken"))
        if link(row.prev_hash, row.seq, row.body()) != row.hash:
            faults.append(ChainFault(row.seq, "the content is not what was hashed"))
        seq, head = row.seq, row.hash
    return seq, head, tuple(faults)
