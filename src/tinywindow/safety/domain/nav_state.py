"""What performance is measured from: the marks, the NAV, its peak, and the day's baseline.

`domain.nav` says what it all means. Here are the nouns, which marks may be believed, and the form
in which the state is stored: plain JSON data, with every decimal as text.

Equity and flows are USD, times Unix milliseconds in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple

from tinywindow.safety.domain.money import EXACT, ZERO, plain
from tinywindow.safety.domain.trading_day import DayRule

__all__ = [
    "NO_DAY",
    "AccountMark",
    "DayBaseline",
    "Mark",
    "MarkRefused",
    "NavConfig",
    "NavState",
    "Trust",
    "all_trusted",
    "is_trusted",
    "sum_of",
    "trust_of",
]

FUTURE_TOLERANCE_MS: Final = 2_000
"""A mark further ahead of our clock than this is not believed."""


class Trust(StrEnum):
    """Whether a mark may be believed, and why not."""

    TRUSTED = "TRUSTED"
    ESTIMATED = "ESTIMATED"
    TOO_OLD = "TOO_OLD"
    IN_THE_FUTURE = "IN_THE_FUTURE"
    UNEXPLAINED_JUMP = "UNEXPLAINED_JUMP"


@dataclass(frozen=True, slots=True)
class NavConfig:
    """How long a mark may be believed, in milliseconds, and when a day opens."""

    equity_max_age_ms: int = 60_000
    day: DayRule = field(default_factory=DayRule)


@dataclass(frozen=True, slots=True)
class Mark:
    """One account's equity at one moment.

    Attributes:
        account: whose equity.
        equity: cash and open positions at market value, in USD, after `cash_flow`.
        cash_flow: what was paid in (drawn out: negative) since the account's mark before, in USD.
        at_ms: when it was true.
        estimated: whether some position had no fresh price.
        received_ms: when it came in, by our clock.
    """

    account: str
    equity: Decimal
    cash_flow: Decimal
    at_ms: int
    estimated: bool
    received_ms: int


@dataclass(frozen=True, slots=True)
class MarkRefused:
    """Nothing was changed; `reason` is a sentence."""

    reason: str


class AccountMark(NamedTuple):
    """The newest mark of one account; not `counted` before its first trusted mark."""

    equity: Decimal
    at_ms: int
    trusted: bool
    counted: bool


@dataclass(frozen=True, slots=True)
class DayBaseline:
    """What a day's profit and loss is measured from.

    Attributes:
        day: the day's ordinal.
        open_ms: when it opened.
        nav: the NAV at its opening; None while no trusted mark tells it.
        stands_on_ms: the time of the newest mark, not after the opening, that went into it.
        estimated: it is the day's first trusted mark, since there was none before.
        settled: it no longer waits for the day's first trusted mark; it may only rise now.
    """

    day: int
    open_ms: int
    nav: Decimal | None
    stands_on_ms: int | None
    estimated: bool = False
    settled: bool = False

    def to_data(self) -> list[object]:
        """The baseline as JSON-ready data."""
        stands_on_ms, flags = self.stands_on_ms, (self.estimated, self.settled)
        return [self.day, self.open_ms, _text(self.nav), stands_on_ms, *flags]

    @classmethod
    def from_data(cls, data: list[Any]) -> DayBaseline:
        """Read back what `to_data` wrote."""
        day, open_ms, nav, stands_on_ms, estimated, settled = data
        return cls(day, open_ms, _decimal(nav), stands_on_ms, estimated, settled)


NO_DAY: Final = DayBaseline(day=0, open_ms=0, nav=None, stands_on_ms=None)
"""Before the first day."""


@dataclass(frozen=True, slots=True)
class NavState:
    """All that the two loss metrics need, whatever the length of history.

    Attributes:
        accounts: the newest mark of each account.
        units: units outstanding; zero before the first mark and while all is drawn out.
        nav: NAV per unit, not better than what may be believed; None before the first mark.
        peak_nav: the highest trusted NAV since `peak_since_ms`.
        peak_since_ms: inception, or the last rebaseline of the drawdown.
        trusted_at_ms: when the portfolio was last marked in a way that may be believed.
        trusted_nav: the NAV of that mark.
        day: the day that is open, and what it is measured from.
        previous: the day before it, for a clock that is set back into it.
        fed_at_ms: when the last mark came in, by our clock.
    """

    accounts: Mapping[str, AccountMark] = field(default_factory=dict)
    units: Decimal = ZERO
    nav: Decimal | None = None
    peak_nav: Decimal | None = None
    peak_since_ms: int | None = None
    trusted_at_ms: int | None = None
    trusted_nav: Decimal | None = None
    day: DayBaseline = NO_DAY
    previous: DayBaseline = NO_DAY
    fed_at_ms: int | None = None

    @property
    def equity(self) -> Decimal:
        """Portfolio equity in USD: the sum of the counted accounts' newest marks."""
        return sum_of(self.accounts)

    def to_data(self) -> dict[str, object]:
        """The state as JSON-ready data."""
        return {
            "accounts": {
                name: [plain(mark.equity), mark.at_ms, mark.trusted, mark.counted]
                for name, mark in self.accounts.items()
            },
            "units": plain(self.units),
            "nav": _text(self.nav),
            "peak_nav": _text(self.peak_nav),
            "peak_since_ms": self.peak_since_ms,
            "trusted_at_ms": self.trusted_at_ms,
            "trusted_nav": _text(self.trusted_nav),
            "day": self.day.to_data(),
            "previous": self.previous.to_data(),
            "fed_at_ms": self.fed_at_ms,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> NavState:
        """Read back what `to_data` wrote.

        Raises:
            KeyError, ValueError, TypeError, ArithmeticError: it is not what `to_data` writes.
        """
        return cls(
            accounts={
                name: AccountMark(Decimal(equity), at_ms, trusted, counted)
                for name, (equity, at_ms, trusted, counted) in data["accounts"].items()
            },
            units=Decimal(data["units"]),
            nav=_decimal(data["nav"]),
            peak_nav=_decimal(data["peak_nav"]),
            peak_since_ms=data["peak_since_ms"],
            trusted_at_ms=data["trusted_at_ms"],
            trusted_nav=_decimal(data["trusted_nav"]),
            day=DayBaseline.from_data(data["day"]),
            previous=DayBaseline.from_data(data["previous"]),
            fed_at_ms=data["fed_at_ms"],
        )


def _text(number: Decimal | None) -> str | None:
    return None if number is None else plain(number)


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def trust_of(
    mark: Mark, now_ms: int, config: NavConfig, *, unexplained_jump: bool = False
) -> Trust:
    """Say whether a mark may be believed at `now_ms`.

    Args:
        mark: the mark.
        now_ms: our clock.
        config: how long a mark may be believed.
        unexplained_jump: prices, fills and flows that the caller knows do not explain it.
    """
    if mark.estimated:
        return Trust.ESTIMATED
    if now_ms - mark.at_ms > config.equity_max_age_ms:
        return Trust.TOO_OLD
    if mark.at_ms - now_ms > FUTURE_TOLERANCE_MS:
        return Trust.IN_THE_FUTURE
    if unexplained_jump:
        return Trust.UNEXPLAINED_JUMP
    return Trust.TRUSTED


def is_trusted(state: NavState, now_ms: int, config: NavConfig) -> bool:
    """Say whether the newest marks of all accounts may be believed at `now_ms`."""
    return bool(state.accounts) and all_trusted(state.accounts, now_ms, config)


def sum_of(accounts: Mapping[str, AccountMark]) -> Decimal:
    """Add the equity of the accounts that are counted, in USD."""
    total = ZERO
    for mark in accounts.values():
        if mark.counted:
            total = EXACT.add(total, mark.equity)
    return total


def all_trusted(accounts: Mapping[str, AccountMark], now_ms: int, config: NavConfig) -> bool:
    """Say whether every account's mark may be believed at `now_ms`."""
    oldest_ms, newest_ms = now_ms - config.equity_max_age_ms, now_ms + FUTURE_TOLERANCE_MS
    return all(
        mark.trusted and mark.counted and oldest_ms <= mark.at_ms <= newest_ms
        for mark in accounts.values()
    )
