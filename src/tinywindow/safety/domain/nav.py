"""Performance as net asset value per unit, over all accounts together.

Theory. Whoever pays in is issued units at the NAV of the moment, whoever draws out has units
redeemed at it; so a flow moves the number of units and never the NAV, and a loss measured on the
NAV ignores flows by construction. The first unit is the whole portfolio: its NAV is its equity.

What may be believed moves the NAV both ways. What may not be believed moves it down only, until
a mark that may be believed arrives; it never raises the peak or a day's baseline. An account is
counted from its first trusted mark on, which is a flow; before that the portfolio is not trusted.

At a NAV of zero or less both losses are -100 %, and flows are refused until a rebaseline, or
until the NAV has risen above zero by itself.

Equity and flows are USD, times Unix milliseconds in UTC, losses percent.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import (
    ROUND_FLOOR,
    ROUND_HALF_EVEN,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
)
from typing import Final, NamedTuple

from tinywindow.safety.domain.money import EXACT, HUNDRED, ONE, ZERO
from tinywindow.safety.domain.nav_state import (
    NO_DAY,
    AccountMark,
    DayBaseline,
    Mark,
    MarkRefused,
    NavConfig,
    NavState,
    Trust,
    all_trusted,
    is_trusted,
    sum_of,
    trust_of,
)

__all__ = [
    "AccountMark",
    "DayBaseline",
    "Mark",
    "MarkRefused",
    "NavConfig",
    "NavState",
    "Performance",
    "Trust",
    "apply_mark",
    "change_pct",
    "is_trusted",
    "open_day",
    "performance",
    "rebaseline",
    "retire",
    "trust_of",
]

ACCOUNTS_MAX: Final = 256
BASELINE_AGE_MAX_MS: Final = 3_600_000
"""A mark older than this at a day's opening is a baseline only if the day began no higher."""
TOTAL_LOSS_PCT: Final = Decimal(-100)
RATIO_MAX: Final = Decimal(10) ** 9
"""Gains are shown up to this multiple: a gain halts nothing, and its digits stay bounded."""

_NAV: Final = Context(
    prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow]
)
"""Quotients keep 60 digits: twenty more than any number that comes in."""
_NOISE: Final = Decimal("1e-30")
"""What 60-digit quotients may be off by, in percent, is far below this."""
_STEP: Final = Decimal("1e-12")


class Performance(NamedTuple):
    """Both losses in percent, None where they cannot be measured, and what they rest on."""

    daily_pnl: Decimal | None
    drawdown: Decimal | None
    trusted: bool
    estimated_baseline: bool


def apply_mark(
    state: NavState,
    mark: Mark,
    config: NavConfig,
    *,
    unexplained_jump: bool = False,
    day_may_roll: bool = True,
) -> NavState | MarkRefused:
    """Take on one mark.

    Args:
        state: what was known before.
        mark: what is reported; marks may come late and out of order.
        config: how long a mark may be believed, and when a day opens.
        unexplained_jump: see `trust_of`.
        day_may_roll: False while the wall clock is not believed.

    Returns:
        The new state, or why nothing was changed: a flow at a NAV of zero or less, a withdrawal
        that leaves less than nothing, or one account too many.
    """
    trusted = trust_of(mark, mark.received_ms, config, unexplained_jump=unexplained_jump)
    believed = trusted is Trust.TRUSTED
    at_ms = max(0, min(mark.at_ms, mark.received_ms))
    known = state.accounts.get(mark.account)
    counted = known is not None and known.counted
    if known is None and len(state.accounts) >= ACCOUNTS_MAX:
        return MarkRefused(f"there are {ACCOUNTS_MAX} accounts already")
    shown = AccountMark(mark.equity, at_ms, believed, counted or believed)
    accounts = {**state.accounts, mark.account: shown}
    if not shown.counted:
        return replace(state, accounts=accounts, fed_at_ms=mark.received_ms)
    # A newest mark that lies in our future was stamped by a clock that has been set back since.
    late = counted and known is not None and at_ms < known.at_ms <= mark.received_ms
    whole = believed and all_trusted(accounts, mark.received_ms, config)
    flow = mark.cash_flow if counted else mark.equity
    issued = _issue(state, sum_of(accounts), flow, exact=whole and not late)
    if isinstance(issued, MarkRefused):
        return issued
    units, seen_nav = issued
    nav = seen_nav
    if late:
        accounts = dict(state.accounts)
        nav = state.nav if units.is_zero() else _NAV.divide(sum_of(accounts), units)
    # A late mark that may be believed makes the newer ones, which stay, no better than they were.
    lifts = whole and (not late or all_trusted(accounts, mark.received_ms, config))
    if not lifts and nav is not None and state.nav is not None:
        nav = min(nav, state.nav)
    moved = replace(state, accounts=accounts, units=units, nav=nav, fed_at_ms=mark.received_ms)
    if day_may_roll or state.day == NO_DAY:
        moved = open_day(moved, at_ms, config)
    if not whole or seen_nav is None:
        return moved
    believed_mark = _Believed(seen_nav, at_ms, mark.received_ms, late, moved.day is not state.day)
    return _witness(moved, believed_mark, config)


class _Believed(NamedTuple):
    """A NAV that may be believed, and how it came."""

    nav: Decimal
    at_ms: int
    now_ms: int
    late: bool
    opens_day: bool


def _issue(
    state: NavState, equity: Decimal, flow: Decimal, *, exact: bool
) -> tuple[Decimal, Decimal | None] | MarkRefused:
    """Issue or redeem units for a flow; `equity` is the portfolio's after it.

    What may not be believed is taken the way that cannot hide a loss: units are issued at the
    lower of the NAV that is claimed and the one that is known, and redeemed at the higher.
    """
    if not flow.is_zero():
        if state.nav is not None and state.nav <= ZERO:
            return MarkRefused("the NAV is zero or less; flows are refused until a rebaseline")
        if equity < ZERO and not state.units.is_zero():
            return MarkRefused("the flow leaves less than nothing")
    if state.units.is_zero() or state.nav is None:
        return _first_units(state.nav, equity, exact=exact)
    before = EXACT.subtract(equity, flow)
    claimed = _NAV.divide(before, state.units)
    if flow.is_zero():
        return state.units, claimed
    price = claimed
    if not exact:
        price = min(claimed, state.nav) if flow > ZERO else max(claimed, state.nav)
    if price <= ZERO:
        return MarkRefused("the NAV is zero or less; flows are refused until a rebaseline")
    if equity.is_zero():
        return ZERO, claimed
    if exact:
        return _NAV.divide(_NAV.multiply(state.units, equity), before), claimed
    units = max(ZERO, _NAV.add(state.units, _NAV.divide(flow, price)))
    return units, claimed if units.is_zero() else _NAV.divide(equity, units)


def _first_units(
    nav: Decimal | None, equity: Decimal, *, exact: bool
) -> tuple[Decimal, Decimal | None]:
    """Issue the first units, or the first after all was drawn out: all equity counts as paid in."""
    if nav is None:
        return (ONE, equity) if exact and equity > ZERO else (ZERO, None)
    if equity < ZERO:
        return ZERO, ZERO
    if exact and equity > ZERO and nav > ZERO:
        return _NAV.divide(equity, nav), nav
    return ZERO, nav


def open_day(state: NavState, at_ms: int, config: NavConfig) -> NavState:
    """Open the day of `at_ms` where it is later than the one that is open; never an earlier one."""
    day = config.day.day_of(at_ms)
    if day <= state.day.day:
        return state
    open_ms = config.day.open_ms(day)
    stands_on_ms = state.trusted_at_ms
    fresh = stands_on_ms is not None and open_ms - stands_on_ms <= BASELINE_AGE_MAX_MS
    baseline = DayBaseline(day, open_ms, state.trusted_nav, stands_on_ms, settled=fresh)
    return replace(state, day=baseline, previous=state.day)


def _witness(state: NavState, seen: _Believed, config: NavConfig) -> NavState:
    """Let a NAV that may be believed raise the peak, and be or raise the day's baseline."""
    peak, since_ms = state.peak_nav, state.peak_since_ms
    if peak is None or since_ms is None:
        peak, since_ms = seen.nav, seen.at_ms
    elif seen.nav > peak and (not seen.late or seen.at_ms >= since_ms):
        peak = seen.nav
    day, newest_ms, newest_nav = state.day, state.trusted_at_ms, state.trusted_nav
    # While an untrusted clock holds the day open, what follows it will be measured from the last
    # mark before its opening, so that mark stays the newest.
    if config.day.day_of(seen.at_ms) <= day.day:
        day = _witnessed(day, seen)
        if not seen.late:
            newest_nav = seen.nav
            if newest_ms is None or newest_ms > seen.now_ms:
                newest_ms = seen.at_ms
            newest_ms = max(newest_ms, seen.at_ms)
    return replace(
        state,
        peak_nav=peak,
        peak_since_ms=since_ms,
        day=day,
        trusted_at_ms=newest_ms,
        trusted_nav=newest_nav,
    )


def _witnessed(day: DayBaseline, seen: _Believed) -> DayBaseline:
    if seen.at_ms > day.open_ms:
        if day.settled:
            return day
        nav = seen.nav if day.nav is None else max(day.nav, seen.nav)
        return replace(day, nav=nav, estimated=day.nav is None, settled=True)
    if day.stands_on_ms is not None and seen.at_ms < day.stands_on_ms:
        return day
    nav = seen.nav if day.nav is None or seen.opens_day else max(day.nav, seen.nav)
    settled = day.settled or day.open_ms - seen.at_ms <= BASELINE_AGE_MAX_MS
    estimated = day.estimated and nav == day.nav
    return replace(day, nav=nav, stands_on_ms=seen.at_ms, estimated=estimated, settled=settled)


def performance(
    state: NavState, now_ms: int, config: NavConfig, *, day_may_roll: bool = True
) -> Performance:
    """Measure both losses at `now_ms`; their cost does not depend on the length of history.

    A clock that stands in a day before the one that is open measures from the higher baseline
    of both: setting it forward and back again erases no loss.
    """
    trusted = is_trusted(state, now_ms, config)
    if day_may_roll:
        state = open_day(state, now_ms, config)
    day, nav = state.day, state.nav
    if nav is None or state.peak_nav is None:
        return Performance(None, None, trusted=False, estimated_baseline=False)
    if nav <= ZERO:
        return Performance(TOTAL_LOSS_PCT, TOTAL_LOSS_PCT, trusted, day.estimated)
    baseline, before = day.nav, state.previous.nav
    if baseline is not None and before is not None and config.day.day_of(now_ms) < day.day:
        baseline = max(baseline, before)
    return Performance(
        None if baseline is None else change_pct(nav, baseline),
        change_pct(nav, state.peak_nav),
        trusted,
        day.estimated,
    )


def change_pct(now: Decimal, base: Decimal) -> Decimal:
    """The change from `base` to `now` in percent, at 12 decimals, rounded toward the loss.

    The last digits of a quotient are cleared first, so that what is exactly at a limit, or
    exactly unchanged, stays so after any number of flows. Nothing left is a change of -100 %.
    """
    if now <= ZERO:
        return TOTAL_LOSS_PCT
    ratio = RATIO_MAX if base <= ZERO else min(RATIO_MAX, _NAV.divide(now, base))
    change = EXACT.multiply(HUNDRED, EXACT.subtract(ratio, ONE))
    change = change.quantize(_NOISE, ROUND_HALF_EVEN, EXACT)
    return change.quantize(_STEP, ROUND_FLOOR, EXACT)


def rebaseline(
    state: NavState, now_ms: int, config: NavConfig, *, daily_pnl: bool, drawdown: bool
) -> NavState | MarkRefused:
    """Measure one loss, or both, from the current NAV on; an operator has confirmed it.

    At a NAV of zero or less there is nothing to measure from: performance then begins anew
    with the next trusted mark of an equity above zero.
    """
    if state.nav is None or not is_trusted(state, now_ms, config):
        return MarkRefused("a rebaseline needs a trusted mark")
    if state.nav <= ZERO:
        return NavState(accounts=state.accounts, fed_at_ms=state.fed_at_ms)
    if daily_pnl:
        day = replace(state.day, nav=state.nav, stands_on_ms=now_ms, estimated=False, settled=True)
        # Where the day is held open or about to end, the next one is measured from here too.
        state = replace(
            state, day=day, previous=NO_DAY, trusted_at_ms=now_ms, trusted_nav=state.nav
        )
    if drawdown:
        state = replace(state, peak_nav=state.nav, peak_since_ms=now_ms)
    return state


def retire(state: NavState, account: str) -> NavState | MarkRefused:
    """Take an account out of the portfolio; what it last showed leaves as a withdrawal.

    Neither the NAV nor its peak nor a baseline moves, and so no loss does; the account's first
    mark after this one is that of a new account.

    Returns:
        The new state, or why nothing was changed: the account is not known, or what it shows
        cannot leave, as no flow could.
    """
    mark = state.accounts.get(account)
    if mark is None:
        return MarkRefused(f"there is no account {account!r} in the portfolio")
    accounts = {name: one for name, one in state.accounts.items() if name != account}
    units = state.units
    if mark.counted and not mark.equity.is_zero() and not units.is_zero():
        before, left = sum_of(state.accounts), sum_of(accounts)
        if before <= ZERO or state.nav is None or state.nav <= ZERO:
            return MarkRefused("the NAV is zero or less; flows are refused until a rebaseline")
        if left < ZERO:
            return MarkRefused("without the account the portfolio would be less than nothing")
        units = _NAV.divide(_NAV.multiply(units, left), before)
    return replace(state, accounts=accounts, units=units)
