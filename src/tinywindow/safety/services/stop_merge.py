"""Bringing stops into the database that came in another way: file, Redis, journal, own flag.

As transaction scripts, so that however many processes see one stop, it is latched once. A
released latch is a tombstone: it never stands again, and what names it can at most halt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.ring_notes import Sighting
from tinywindow.safety.services.times import to_ms
from tinywindow.safety.stores.fast_files import is_latch
from tinywindow.safety.stores.latch_fields import activation_draft, latch_of
from tinywindow.safety.stores.ring_value import enveloped

__all__ = [
    "RELEASE_GRACE_S",
    "SEEN",
    "Arrivals",
    "merge_journal",
    "merge_stops",
    "ring_digest",
]

RELEASE_GRACE_S: Final = 2.0
"""How long a released latch's envelope may still stand: its release may just be under way."""
SEEN: Final = "seen-"
"""How the name of a stop begins that was seen in Redis while the database could not be asked."""

GENERATIONS_MAX: Final = 10_000

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Stops that were seen outside the database, and what it said just before.

    `last_release_ms` is compared inside the transaction: after a release in between, everything
    is looked at again, so that a process that slept cannot bring a released stop back.
    """

    latches: tuple[Latch, ...]
    rings: tuple[Sighting, ...]
    last_release_ms: int | None
    now: datetime


def ring_digest(raw: bytes) -> str:
    """What makes two foreign values the same."""
    return hashlib.sha256(raw).hexdigest()[:24]


def merge_stops(tx: Tx, arrivals: Arrivals) -> tuple[Latch, ...] | None:
    """Latch what the database does not know; gives what was added, None to look again."""
    if tx.last_release_ms() != arrivals.last_release_ms:
        return None
    added = [_add(tx, latch) for latch in arrivals.latches]
    added.extend(_merge_ring(tx, sighting, arrivals.now) for sighting in arrivals.rings)
    return tuple(latch for latch in added if latch is not None)


def _add(tx: Tx, latch: Latch) -> Latch | None:
    """Add a latch under its own id; None when the id was known, standing or released."""
    if tx.latch(latch.id) is not None:
        return None
    if _covered(tx, latch):
        latch = _history(latch, "the stop that was seen is known under its own name")
    last_ms = tx.last_release_ms()
    foreign = latch.id.startswith("file-")
    if (
        latch.standing
        and not foreign
        and last_ms is not None
        and to_ms(latch.activated_at) <= last_ms
    ):
        latch = _halting(latch, "older than the last release")
    tx.add_latch(latch)
    tx.outbox(activation_draft(latch))
    return latch if latch.standing else None


def _covered(tx: Tx, latch: Latch) -> bool:
    """Whether a stop that was seen without the database stands there, or was released since."""
    name = latch.id.removeprefix(SEEN)
    if name == latch.id:
        return False
    if not name.startswith("redis-"):
        known = tx.latch(name)
        since = latch.activated_at - timedelta(seconds=RELEASE_GRACE_S)
        return known is not None and _stands_since(known, since)
    stem = name.rpartition("-")[0]
    for number in range(GENERATIONS_MAX):
        known = tx.latch(f"{stem}-{number}")
        if known is None:
            return False
        if _stands_since(known, latch.activated_at):
            return True
    return False


def _stands_since(latch: Latch, at: datetime) -> bool:
    return latch.released_at is None or to_ms(latch.released_at) > to_ms(at)


def _history(latch: Latch, why: str) -> Latch:
    return replace(latch, released_at=latch.activated_at, released_by="merge", release_reason=why)


def _halting(latch: Latch, why: str) -> Latch:
    reason = f"{latch.reason} ({latch.mode.value}, {why})"
    return replace(latch, mode=KillSwitchMode.HALT_ONLY, reason=reason)


def _merge_ring(tx: Tx, sighting: Sighting, now: datetime) -> Latch | None:
    ring = sighting.ring
    latch = enveloped(ring.raw)
    if latch is not None:
        known = tx.latch(latch.id)
        if known is None:
            return _add(tx, latch)
        if known.standing:
            return None
        reason = f"the envelope of the released stop {latch.id} is back in Redis"
        again = Latch(
            "", KillSwitchMode.HALT_ONLY, reason, "unknown", LatchSource.REDIS, activated_at=now
        )
        return _next_generation(tx, f"again-{latch.id}"[:56], again, sighting.at)
    shown = ascii(ring.raw[:80].decode("utf-8", "replace"))
    reason = f"the Redis key was set by hand to {shown}"
    foreign = Latch("", ring.mode, reason, "unknown", LatchSource.REDIS, activated_at=now)
    last_ms = tx.last_release_ms()
    if last_ms is not None and to_ms(sighting.at) < last_ms:
        foreign = _halting(foreign, "seen before the last release")
    return _next_generation(tx, f"redis-{ring_digest(ring.raw)}", foreign, sighting.at)


def _next_generation(tx: Tx, stem: str, latch: Latch, seen_at: datetime) -> Latch | None:
    """Add a latch under the first id of its stem that was never released.

    None if one stands, or was released after this was seen: then it was released with it. What
    still stands on the key will be seen again.
    """
    for number in range(GENERATIONS_MAX):
        known = tx.latch(f"{stem}-{number}")
        if known is None:
            latch = replace(latch, id=f"{stem}-{number}")
            tx.add_latch(latch)
            tx.outbox(activation_draft(latch))
            return latch
        if known.released_at is None or to_ms(known.released_at) > to_ms(seen_at):
            return None
    return None


def merge_journal(tx: Tx, entries: Iterable[Mapping[str, object]]) -> int:
    """Merge journal entries, each exactly once by its id; gives how many latches were added."""
    known = tuple(entries)
    released = {str(entry.get("id")) for entry in known if entry["kind"] == "release"}
    added = 0
    for entry in known:
        if entry["kind"] == "latch":
            added += _merge_latch(tx, entry, released)
        elif entry["kind"] == "audit":
            _merge_row(tx, entry)
    return added


def _merge_latch(tx: Tx, entry: Mapping[str, object], released: set[str]) -> int:
    fields = {name: value for name, value in entry.items() if name != "kind"}
    if not is_latch(fields):
        _log.warning("journal_line_skipped", entry=repr(entry)[:200])
        return 0
    latch = latch_of(fields)
    if latch.id not in released:
        return 0 if _add(tx, latch) is None else 1
    if tx.latch(latch.id) is None:
        # Released before the database ever knew it: history only.
        gone = _history(latch, "released before it was merged")
        tx.add_latch(gone)
        tx.outbox(activation_draft(latch))
    return 0


def _merge_row(tx: Tx, entry: Mapping[str, object]) -> None:
    try:
        fields = json.loads(str(entry.get("body")))
        row_id, time, event, actor, agent_id, order_id, decision_id, data = fields
        draft = AuditDraft(
            str(row_id),
            datetime.fromisoformat(str(time)),
            EventType(str(event)),
            str(actor),
            json.loads(str(data)),
            agent_id,
            order_id,
            decision_id,
        )
    except (TypeError, ValueError, RecursionError) as fault:
        _log.warning("journal_line_skipped", error=str(fault), entry=repr(entry)[:200])
        return
    tx.outbox(draft)
