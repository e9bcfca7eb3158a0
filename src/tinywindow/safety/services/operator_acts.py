"""What an operator may tell the breaker beside a reset: the clock is right, an account is gone."""

from __future__ import annotations

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.breaker_documents import (
    NAV,
    RESET_MARK,
    UNWATCHED,
    WATCHES,
    ResetMark,
    nav_point,
    reset_mark,
)
from tinywindow.safety.domain.equity_jump import watches_of, watches_text
from tinywindow.safety.domain.money import plain
from tinywindow.safety.domain.nav import retire
from tinywindow.safety.domain.nav_state import AccountMark, MarkRefused
from tinywindow.safety.domain.records import TradingState
from tinywindow.safety.errors import ResetRefused
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.breaker_core import BreakerCore
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.times import from_ms, to_ms

__all__ = ["OperatedBreaker"]

_log = get_logger(__name__)


class OperatedBreaker(BreakerCore):
    """A breaker that takes an operator's word; both acts are audited in the operator's name."""

    async def trust_clock(self, operator: str, reason: str) -> None:
        """Say that the wall clock is right as it is now; audited in the operator's name.

        Raises:
            ValueError: the operator or the reason is blank.
            StoreUnavailable: nothing was changed.
        """
        if not _named(operator, reason):
            raise ValueError("who vouches for the clock, and why, must be named")
        context = await self._open()
        now = self._clock.now()
        data = {"trusted": True, "reason": reason, "operator": operator}
        row = AuditDraft(self._new_id(), now, EventType.CLOCK_UNTRUSTED, operator, data)
        await context.store.transact(lambda tx: tx.audit(row))
        self._watch.vouch(context)

    async def retire_account(self, account: str, operator: str, reason: str) -> None:
        """Take an account that will not be marked again out of the portfolio.

        What it last showed leaves as a withdrawal, so that no metric moves; marked again, it is
        a new account. Trading must be stopped, and the account must hold nothing: no position,
        no open order, no fresh mark. It starts nothing.

        Raises:
            ResetRefused: it may not be retired now; the message says why.
            ValueError: the operator or the reason is blank.
            StoreUnavailable: nothing was changed.
        """
        if not _named(operator, reason):
            raise ValueError("who retires the account, and why, must be named")
        context = await self._open()
        now = self._moment().now
        row = AuditDraft(
            self._new_id(), now, EventType.ACCOUNT_RETIRED, operator.strip(), {"reason": reason}
        )
        max_age_ms = self._limits.nav.equity_max_age_ms
        refused = await context.store.transact(lambda tx: _retire(tx, account, row, max_age_ms))
        if refused:
            raise ResetRefused(refused)
        _log.warning("account_retired", account=account, operator=operator, reason=reason)
        self._activity.set()


def _named(operator: object, reason: object) -> bool:
    return all(isinstance(one, str) and one.strip() for one in (operator, reason))


def _retire(tx: Tx, account: str, row: AuditDraft, max_age_ms: int) -> str:
    """Retire an account under the lock; why not, as a value: nothing was changed then."""
    book = tx.book()
    point = nav_point(book.documents)
    state = retire(point.state, account)
    if isinstance(state, MarkRefused):
        return state.reason
    mark = point.state.accounts[account]
    obstacle = _obstacle(tx, account, mark, to_ms(row.time), max_age_ms)
    if obstacle:
        return obstacle
    left = {
        name: watch
        for name, watch in watches_of(book.documents.get(WATCHES)).items()
        if name != account
    }
    point = point.retired(state)
    tx.put_document(NAV, point.to_text())
    tx.put_document(WATCHES, watches_text(left))
    # Nobody may walk from before to after it: the walk knows of marks and not of retirements.
    cleared_id = reset_mark(book.documents).cleared_id
    tx.put_document(RESET_MARK, ResetMark(cleared_id, point).to_text())
    data = {
        "account": account,
        "equity": plain(mark.equity),
        "marked_at": from_ms(mark.at_ms),
        "trusted": mark.trusted,
        "counted": mark.counted,
        "portfolio": plain(state.equity),
        "nav": None if state.nav is None else plain(state.nav),
    }
    tx.audit(AuditDraft(row.id, row.time, row.event_type, row.actor, {**data, **row.data}))
    return ""


def _obstacle(tx: Tx, account: str, mark: AccountMark, now_ms: int, max_age_ms: int) -> str:
    """What keeps an account from being retired; empty where nothing does."""
    book = tx.book()
    if tx.head().trading is not TradingState.STOPPED:
        return "trading must be stopped first"
    held = [key for key, one in book.positions.items() if key.account == account and one.amount]
    if held:
        return f"account {account} holds a position in {held[0].symbol} at {held[0].venue}"
    waiting = [name for name, one in book.holds.items() if one.key.account == account]
    if waiting:
        return f"order {waiting[0]} of account {account} has not ended"
    if tx.document(UNWATCHED):
        return "equity marks were not evaluated yet; check the breaker first"
    if abs(now_ms - mark.at_ms) <= max_age_ms:
        return f"account {account} was marked within the last {max_age_ms // 1000} s"
    return ""
