"""An operator's word that the account behind a venue's name is lost: the name is given free.

The next process that comes with the name is a first contact: it takes the name and reconciles anew.
"""

from __future__ import annotations

from typing import Final

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.breaker_documents import nav_point
from tinywindow.safety.domain.records import TradingState
from tinywindow.safety.domain.venue_account import KnownAccount, account_key, known_account
from tinywindow.safety.errors import ResetRefused
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.flatten_lease import heart_beats, lease_name
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.times import to_ms

__all__ = ["QUIET_S", "give_free"]

QUIET_S: Final = 60
"""How long nobody may have marked the account's equity: a process that trades marks each cycle."""

_log = get_logger(__name__)


async def give_free(context: SafetyContext, venue: str, row: AuditDraft) -> None:
    """Forget which account a venue's name stands for; `row` says who, when and why.

    Raises:
        ResetRefused: the name may not be given free now; the message says why.
        StoreUnavailable: nothing was changed.
    """

    def script(tx: Tx) -> str:
        known = known_account(tx.document(account_key(venue)))
        obstacle = _obstacle(tx, venue, known, to_ms(row.time))
        if obstacle:
            return obstacle
        tx.put_document(account_key(venue), KnownAccount().to_text())
        data = {"venue": venue, "account_id": None, "before": known.account_id, **row.data}
        tx.audit(AuditDraft(row.id, row.time, EventType.VENUE_ACCOUNT_SET, row.actor, data))
        return ""

    refused = await context.store.transact(script)
    if refused:
        raise ResetRefused(refused)
    _log.warning("venue_given_free", venue=venue, by=row.actor)


def _obstacle(tx: Tx, venue: str, known: KnownAccount, now_ms: int) -> str:
    """What keeps a name from being given free; empty where nothing does."""
    if known.account_id is None:
        return f"the database knows no account under the name {venue}"
    if tx.head().trading is not TradingState.STOPPED:
        return "trading must be stopped first: tinywindow stop"
    if heart_beats(tx.lease(lease_name(venue)), now_ms=now_ms):
        return f"a process is at work closing {venue}: end every process that trades on it"
    marks = nav_point(tx.book().documents).state.accounts
    names = marks if known.marked_as is None else {known.marked_as} & marks.keys()
    if any(abs(now_ms - marks[name].at_ms) <= QUIET_S * 1000 for name in names):
        return (
            f"a process marked equity on {venue} within the last {QUIET_S} s: end every process "
            "that trades on it, and wait as long"
        )
    return ""
