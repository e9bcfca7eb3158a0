"""Intents that the database could not take, as lines of the journal.

Whoever closes next reads them before it sends anything: an order that was sent while the
database was away must be looked up, and not sent a second time, even if its sender is dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation

from tinywindow.safety.domain.money import plain
from tinywindow.safety.domain.order import OrderType, PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.stores.journal import Journal

__all__ = ["INTENT", "entry_of", "hold_of", "take_on"]

INTENT = "intent"
"""The kind of such a line."""

_log = get_logger(__name__)


def entry_of(hold: Hold) -> dict[str, object]:
    """The journal's line of an intent to send a close order."""
    return {
        "kind": INTENT,
        "id": hold.client_order_id,
        "venue": hold.key.venue,
        "account": hold.key.account,
        "symbol": hold.key.symbol,
        "leg": hold.key.leg,
        "side": hold.side.value,
        "amount": plain(hold.amount),
        "reduce_only": hold.reduce_only,
        "created_ms": hold.created_ms,
    }


def hold_of(entry: Mapping[str, object]) -> Hold | None:
    """Read an intent back; None for a line of another kind, or one that cannot be read."""
    if entry.get("kind") != INTENT:
        return None
    try:
        amount = Decimal(str(entry["amount"]))
        created_ms = int(str(entry["created_ms"]))
        hold = Hold(
            client_order_id=str(entry["id"]),
            key=PositionKey(*(str(entry[name]) for name in ("venue", "account", "symbol", "leg"))),
            side=Side(str(entry["side"])),
            type=OrderType.MARKET,
            amount=amount,
            price=None,
            state=HoldState.INTENDED,
            created_ms=created_ms,
            intent_ms=created_ms,
            reduces=True,
            reduce_only=bool(entry["reduce_only"]),
            flatten=True,
        )
    except (KeyError, ValueError, InvalidOperation) as fault:
        _log.warning("journal_line_skipped", error=repr(fault), entry=repr(entry)[:200])
        return None
    if not (amount.is_finite() and amount > 0):
        _log.warning("journal_line_skipped", error="no amount", entry=repr(entry)[:200])
        return None
    return hold


async def take_on(context: SafetyContext, venue: str) -> None:
    """Give the database the closes on `venue` that it never heard of, as UNKNOWN, to be looked up.

    At the start of a process: their sender is dead, and the stop that it served may be released,
    so that no flattener would read the journal any more. What the database knows stays as it is.

    Raises:
        StoreUnavailable: the database cannot be written.
    """
    journal = Journal(context.journal.path)
    holds: list[Hold] = []
    try:
        offset, entries = journal.pending()
        while entries:
            holds.extend(hold for hold in map(hold_of, entries) if hold is not None)
            journal.merged(offset)
            offset, entries = journal.pending()
    except OSError as fault:
        _log.error("journal_not_read", error=str(fault))
    found = [hold for hold in holds if hold.key.venue == venue]

    def script(tx: Tx) -> None:
        for hold in found:
            if tx.hold(hold.client_order_id) is None:
                tx.put_hold(replace(hold, state=HoldState.UNKNOWN))

    if found:
        await context.store.transact(script)
