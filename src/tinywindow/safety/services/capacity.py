"""Capacity: how much more could be bought and sold of a symbol, and which rule binds."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal, localcontext
from typing import Final

from tinywindow.safety.domain.book import Book, OpenSums
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.domain.limits import (
    EquityView,
    LimitSet,
    PriceOf,
    exposure_of,
    fresh_price,
)
from tinywindow.safety.domain.money import EXACT, ZERO
from tinywindow.safety.domain.order import PositionKey, Side
from tinywindow.safety.domain.positions import reducible, worst_amount
from tinywindow.safety.domain.sectors import sector_of
from tinywindow.safety.domain.symbols import Symbol

__all__ = ["Capacity", "capacity_of"]

_STEP: Final = Decimal(1).scaleb(-12)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What could still be bought and sold at the reference price, in base units.

    `rule` is the code of the rule that binds the buy; None when nothing is known to bind.
    """

    symbol: str
    buy: Decimal
    sell: Decimal
    rule: Reason | None


def capacity_of(
    book: Book,
    limits: LimitSet,
    equity: EquityView,
    price_of: PriceOf,
    now_ms: int,
    symbol: Symbol,
    venue: str,
    account: str = "default",
) -> Capacity:
    """Work out the largest market orders that the limits would let pass now."""
    with localcontext(EXACT):
        key = PositionKey(venue, account, symbol.text)
        exit_only = reducible(book, key, Side.SELL)
        if symbol.text not in limits.allowed_symbols:
            return Capacity(symbol.text, ZERO, exit_only, Reason.SYMBOL_NOT_ALLOWED)
        exposure = exposure_of(book, limits, price_of, now_ms)
        price = fresh_price(price_of, limits, symbol, now_ms)
        if price is None or exposure.unpriced:
            return Capacity(symbol.text, ZERO, exit_only, Reason.PRICE_UNAVAILABLE)
        if not equity.known or equity.equity is None or equity.equity <= ZERO:
            return Capacity(symbol.text, ZERO, exit_only, Reason.LEVERAGE)
        own = exposure.symbols.get(symbol.text, ZERO)
        sector = exposure.sectors.get(sector_of(symbol.base, limits.sectors), ZERO)
        rooms = {
            Reason.POSITION_SIZE: limits.max_position_size - own,
            Reason.TOTAL_EXPOSURE: limits.max_total_exposure - exposure.total,
            Reason.LEVERAGE: limits.max_leverage * equity.equity - exposure.total,
            Reason.SECTOR_EXPOSURE: limits.max_sector_exposure - sector,
        }
        rule = min(rooms, key=lambda code: rooms[code])
        room = rooms[rule]
        if room < ZERO:
            return Capacity(symbol.text, ZERO, exit_only, rule)
        sums = book.sums.get(key, OpenSums())
        position = book.position_amount(key)
        # As the limits value it: at the dearest limit price of the symbol, at any venue.
        dearest = [one.price_max for held, one in book.sums.items() if held.symbol == symbol.text]
        rate = limits.quote_usd[symbol.quote]
        valuation = max([price, *(known * rate for known in dearest if known is not None)])
        cap = worst_amount(position, sums.buys, sums.sells) + room / valuation
        buy = max(cap - position - sums.buys, ZERO)
        sell = exit_only if symbol.is_spot else max(cap + position - sums.sells, ZERO)
        return Capacity(symbol.text, _down(buy), _down(sell), rule)


def _down(amount: Decimal) -> Decimal:
    return amount.quantize(_STEP, rounding=ROUND_DOWN, context=EXACT)
