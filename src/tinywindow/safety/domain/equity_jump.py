"""Jumps of equity: is a mark explained by prices, fills and flows?

Where the store knows an account's positions and their prices, the equity that a mark should
report follows from the mark before it: every position earns its size times the move of its
price. What is traded meanwhile, at prices nobody tells us, is borne as slack. A mark that is
further away than the tolerance is not believed, unless marks go on for five minutes that each
follow from the one before: then the new level is real, whatever made it.

    tolerance = max(2 % of the equity before, 1 USD)            rounding, funding, interest
              + 1 % of the larger gross value of the positions  fees, spread, prices of other times
              + sum of |traded| x |move of the price|           fills at prices unknown
              + sum of the value before of what was closed      closed at a price unknown

Without positions, or where one is not linear in USD or has no price of the last minute, nothing
is judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Final

from tinywindow.safety.domain.audit import canonical_json
from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.limits import default_quotes
from tinywindow.safety.domain.money import EXACT, ONE, ZERO, plain
from tinywindow.safety.domain.records import ReferencePrice
from tinywindow.safety.domain.symbols import parse_symbol

__all__ = [
    "EquityWatch",
    "Holding",
    "Snapshot",
    "judged",
    "passed_over",
    "snapshot",
    "watches_of",
    "watches_text",
]

PRICE_AGE_MAX_MS: Final = 60_000
"""How far a price may lie from the mark that it is to explain."""
SETTLE_MS: Final = 300_000
"""How long marks must follow from one another before an unexplained level is taken on."""
EQUITY_SHARE: Final = Decimal("0.02")
GROSS_SHARE: Final = Decimal("0.01")
FLOOR_USD: Final = ONE


@dataclass(frozen=True, slots=True)
class Holding:
    """A position as it stood at a mark: signed base units, price and entry price in USD."""

    amount: Decimal
    price: Decimal
    entry: Decimal


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An account's equity in USD at a mark, and what it held then."""

    at_ms: int
    equity: Decimal
    holdings: Mapping[str, Holding]


@dataclass(frozen=True, slots=True)
class EquityWatch:
    """What an account's next mark is compared with.

    Attributes:
        believed: the last mark that was believed.
        doubted: the last of a streak of marks that were not, but follow from one another.
        doubted_since_ms: when that streak began.
        streak: whether the account's newest mark was not trusted, for whatever reason.
    """

    believed: Snapshot | None = None
    doubted: Snapshot | None = None
    doubted_since_ms: int = 0
    streak: bool = False


def snapshot(
    book: Book,
    account: str,
    equity: Decimal,
    at_ms: int,
    *,
    prices: Mapping[str, ReferencePrice],
) -> Snapshot | None:
    """What an account holds at a mark, by the newest prices; None when that cannot be valued."""
    holdings: dict[str, Holding] = {}
    for key, position in sorted(book.positions.items()):
        if key.account != account:
            continue
        symbol = parse_symbol(key.symbol)
        rate = default_quotes().get(symbol.quote)
        price = prices.get(key.symbol) or book.prices.get(key.symbol)
        if rate is None or price is None or symbol.settle not in {None, symbol.quote}:
            return None
        if symbol.option is not None or abs(at_ms - price.at_ms) > PRICE_AGE_MAX_MS:
            return None
        holdings[f"{key.venue} {key.symbol} {key.leg}"] = Holding(
            position.amount,
            EXACT.multiply(price.price, rate),
            EXACT.multiply(position.price, rate),
        )
    return Snapshot(at_ms, equity, holdings)


def judged(
    watch: EquityWatch, now: Snapshot | None, *, cash_flow: Decimal
) -> tuple[EquityWatch, str]:
    """Compare a mark with what it should be; the note says why not, empty when it is believed."""
    believed = watch.believed
    if now is None or believed is None:
        return EquityWatch(now, streak=watch.streak), ""
    before = replace(believed, equity=EXACT.add(believed.equity, cash_flow))
    note = _unexplained(before, now)
    if not note:
        return EquityWatch(now, streak=watch.streak), ""
    since_ms = now.at_ms
    if watch.doubted is not None:
        last = replace(watch.doubted, equity=EXACT.add(watch.doubted.equity, cash_flow))
        if not _unexplained(last, now):
            since_ms = watch.doubted_since_ms
    if now.at_ms - since_ms >= SETTLE_MS:
        return EquityWatch(now, streak=watch.streak), ""
    return EquityWatch(before, now, since_ms, watch.streak), note


def passed_over(watch: EquityWatch, *, cash_flow: Decimal) -> EquityWatch:
    """A mark that is not believed for another reason: only its cash flow counts."""
    if watch.believed is None:
        return watch
    equity = EXACT.add(watch.believed.equity, cash_flow)
    return EquityWatch(replace(watch.believed, equity=equity), streak=watch.streak)


def _unexplained(before: Snapshot, now: Snapshot) -> str:
    """How far equity is from what it should be, as a sentence; empty when within tolerance."""
    if not before.holdings and not now.holdings:
        return ""
    expected, slack, gross_before, gross_now = before.equity, ZERO, ZERO, ZERO
    for name in sorted({*before.holdings, *now.holdings}):
        old, new = before.holdings.get(name), now.holdings.get(name)
        if new is None:
            worth = ZERO if old is None else EXACT.multiply(abs(old.amount), old.price)
            gross_before, slack = EXACT.add(gross_before, worth), EXACT.add(slack, worth)
            continue
        move = EXACT.subtract(new.price, new.entry if old is None else old.price)
        held = ZERO if old is None else old.amount
        traded = abs(EXACT.subtract(new.amount, held))
        expected = EXACT.add(expected, EXACT.multiply(held, move))
        slack = EXACT.add(slack, EXACT.multiply(traded, abs(move)))
        gross_now = EXACT.add(gross_now, EXACT.multiply(abs(new.amount), new.price))
        if old is not None:
            gross_before = EXACT.add(gross_before, EXACT.multiply(abs(held), old.price))
    own = max(EXACT.multiply(abs(before.equity), EQUITY_SHARE), FLOOR_USD)
    gross = EXACT.multiply(max(gross_before, gross_now), GROSS_SHARE)
    tolerance = EXACT.add(EXACT.add(own, gross), slack)
    off = abs(EXACT.subtract(now.equity, expected))
    if off <= tolerance:
        return ""
    return (
        f"equity is {_usd(now.equity)} where prices, fills and flows explain {_usd(expected)}, "
        f"give or take {_usd(tolerance)}"
    )


def _usd(amount: Decimal) -> str:
    return f"{plain(amount.quantize(Decimal('0.01'), context=EXACT))} USD"


def watches_text(watches: Mapping[str, EquityWatch]) -> str:
    """Every account's watch as the text that the store keeps."""
    return canonical_json(
        {
            account: [
                _packed(watch.believed),
                _packed(watch.doubted),
                watch.doubted_since_ms,
                watch.streak,
            ]
            for account, watch in watches.items()
        }
    )


@lru_cache(maxsize=4)
def watches_of(text: str | None) -> Mapping[str, EquityWatch]:
    """Read every account's watch back; the same text is read once."""
    if text is None:
        return {}
    return {
        account: EquityWatch(_unpacked(believed), _unpacked(doubted), int(since), bool(streak))
        for account, (believed, doubted, since, streak) in json.loads(text).items()
    }


def _packed(one: Snapshot | None) -> list[object] | None:
    if one is None:
        return None
    holdings = {
        name: [plain(holding.amount), plain(holding.price), plain(holding.entry)]
        for name, holding in one.holdings.items()
    }
    return [one.at_ms, plain(one.equity), holdings]


def _unpacked(packed: list[object] | None) -> Snapshot | None:
    if packed is None:
        return None
    at_ms, equity, holdings = packed
    if not isinstance(at_ms, int) or not isinstance(holdings, dict):
        raise TypeError("the equity watch in the store has another shape")
    return Snapshot(
        at_ms,
        Decimal(str(equity)),
        {name: Holding(*(Decimal(part) for part in parts)) for name, parts in holdings.items()},
    )
