"""Unified symbols: the one spelling of a market, matched whole and read strictly.

    BTC/USDT                        spot
    BTC/USDT:USDT                   perpetual, settled in USDT
    BTC/USD:BTC-241227              dated future, settled in BTC on 27 December 2024
    BTC/USD:BTC-241227-60000-C      call option at 60,000

There is exactly one text for a market, so two symbols are the same where their texts are. A
symbol that reads well is not yet a market: whether a venue lists it is for the market rules to
say, and whether it has expired for who knows the time.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal, cast

from tinywindow.safety.domain.text import exact_text, shown

__all__ = ["STABLES", "SYMBOL_CHARS_MAX", "BadSymbol", "MarketType", "Symbol", "parse_symbol"]

SYMBOL_CHARS_MAX: Final = 92
"""Characters of the longest symbol that the pattern can match; longer text is refused unread."""
CACHED_SYMBOLS_MAX: Final = 4096

STABLES: Final = frozenset(
    {
        "BFUSD",
        "BUSD",
        "DAI",
        "FDUSD",
        "PYUSD",
        "RLUSD",
        "TUSD",
        "USD1",
        "USDC",
        "USDE",
        "USDG",
        "USDH",
        "USDP",
        "USDT",
    }
)
"""Coins that a contract may settle in without being its base or its quote."""

_SYMBOL: Final = re.compile(
    r"(?P<base>[A-Z0-9][A-Z0-9.\-]{0,24})/(?P<quote>[A-Z0-9]{2,12})"
    r"(?::(?P<settle>[A-Z0-9]{2,12})"
    r"(?:-(?P<expiry>[0-9]{6})"
    r"(?:-(?P<strike>[0-9]{1,15}(?:\.[0-9]{1,15})?)-(?P<option>[CP]))?)?)?"
)
_CANONICAL_STRIKE: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]*[1-9])?")
_CENTURY: Final = 2000
_YEAR_MAX: Final = 68
"""Two-digit years end here, as in `strptime`: 99 is 1999, when there was nothing to trade."""


class BadSymbol(ValueError):
    """The value is not a unified symbol; the message quotes it and says what is wanted."""


class MarketType(StrEnum):
    """What kind of market a symbol names."""

    SPOT = "SPOT"
    PERPETUAL = "PERPETUAL"
    FUTURE = "FUTURE"
    OPTION = "OPTION"


@dataclass(frozen=True, slots=True, order=True)
class Symbol:
    """One market. Equality, order and hash are those of `text`, the canonical spelling.

    Attributes:
        text: the unified symbol, such as ``BTC/USDT:USDT``.
        base: what is bought or sold.
        quote: what the price is in.
        settle: what profit and loss are paid in; None on a spot market.
        expiry: the UTC day on which a future or an option ends; None where it does not.
        strike: an option's strike in quote units, > 0.
        option: ``C`` for a call, ``P`` for a put.
    """

    text: str
    base: str = field(compare=False)
    quote: str = field(compare=False)
    settle: str | None = field(default=None, compare=False)
    expiry: date | None = field(default=None, compare=False)
    strike: Decimal | None = field(default=None, compare=False)
    option: Literal["C", "P"] | None = field(default=None, compare=False)

    @property
    def market(self) -> MarketType:
        """The kind of market that the symbol names."""
        if self.settle is None:
            return MarketType.SPOT
        if self.expiry is None:
            return MarketType.PERPETUAL
        return MarketType.FUTURE if self.option is None else MarketType.OPTION

    @property
    def is_spot(self) -> bool:
        """Whether the symbol names a spot market."""
        return self.settle is None


def parse_symbol(text: object) -> Symbol:
    """Read a unified symbol. Successes are cached, boundedly; nothing is corrected or guessed.

    Raises:
        BadSymbol: for whatever is not one, with a sentence that starts with the value quoted.
    """
    exact = exact_text(text)
    if exact is None:
        raise BadSymbol(f"{shown(text)} is not text; wanted a unified symbol such as BTC/USDT")
    if len(exact) > SYMBOL_CHARS_MAX:
        raise BadSymbol(
            f"{shown(exact)} has {len(exact)} characters; "
            f"wanted a unified symbol of at most {SYMBOL_CHARS_MAX}"
        )
    return _parse(exact)


@lru_cache(maxsize=CACHED_SYMBOLS_MAX)
def _parse(text: str) -> Symbol:
    match = _SYMBOL.fullmatch(text)
    if match is None:
        raise BadSymbol(
            f"{shown(text)} is not a unified symbol; "
            "wanted BASE/QUOTE or BASE/QUOTE:SETTLE in upper case, such as BTC/USDT"
        )
    base, quote, settle = match["base"], match["quote"], match["settle"]
    if base == quote:
        raise BadSymbol(f"{shown(text)} trades {base} for itself; wanted two different assets")
    if settle is not None and settle not in STABLES | {base, quote}:
        raise BadSymbol(
            f"{shown(text)} settles in {settle}; "
            f"wanted {base}, {quote} or a known stable coin after the colon"
        )
    option = cast("Literal['C', 'P'] | None", match["option"])
    return Symbol(
        text, base, quote, settle, _expiry(text, match), _strike(text, match["strike"]), option
    )


def _expiry(text: str, match: re.Match[str]) -> date | None:
    digits = match["expiry"]
    if digits is None:
        return None
    year, month, day = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    if year <= _YEAR_MAX:
        with suppress(ValueError):
            return date(_CENTURY + year, month, day)
    raise BadSymbol(
        f"{shown(text)} expires on {digits}, which is no day from 2000 to 2068; wanted YYMMDD"
    )


def _strike(text: str, digits: str | None) -> Decimal | None:
    if digits is None:
        return None
    if digits == "0" or not _CANONICAL_STRIKE.fullmatch(digits):
        raise BadSymbol(
            f"{shown(text)} has the strike {digits}; "
            "wanted a number above zero without leading or trailing zeros"
        )
    return Decimal(digits)
