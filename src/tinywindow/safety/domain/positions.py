"""Positions: how fills move them, and what an order does to one."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from tinywindow.safety.domain.book import Book, OpenSums
from tinywindow.safety.domain.money import EXACT, ZERO
from tinywindow.safety.domain.order import PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState, Position

__all__ = ["apply_fill", "filled", "reducible", "worst_amount"]


def reducible(book: Book, key: PositionKey, side: Side) -> Decimal:
    """How much an order on `side` may still reduce the position at `key`, in base units.

    That is the position's size, when `side` is opposite to it, less what already rests or is
    reserved on that side; never below zero.
    """
    position = book.position_amount(key)
    if position.is_zero() or (position > 0) == (side is Side.BUY):
        return ZERO
    sums = book.sums.get(key, OpenSums())
    pending = sums.sells if side is Side.SELL else sums.buys
    return max(EXACT.subtract(EXACT.abs(position), pending), ZERO)


def worst_amount(position: Decimal, buys: Decimal, sells: Decimal) -> Decimal:
    """The largest size that a position can reach if either side fills whole, in base units."""
    bought, sold = EXACT.add(position, buys), EXACT.subtract(position, sells)
    return max(EXACT.abs(bought), EXACT.abs(sold))


def filled(hold: Hold, *, cumulative: Decimal, average: Decimal, fee: Decimal) -> Hold:
    """Take on a cumulative fill report; the highest amount seen counts.

    An order that is filled whole is FILLED; an end that was reached before stays an end.
    """
    if cumulative < hold.filled:
        return hold
    state = hold.state
    if cumulative >= hold.amount:
        state = HoldState.FILLED
    elif state in {HoldState.HELD, HoldState.INTENDED}:
        state = HoldState.WORKING
    return replace(
        hold,
        filled=cumulative,
        average_price=average if cumulative > 0 else hold.average_price,
        fee=max(fee, hold.fee),
        state=state,
    )


def apply_fill(before: Position | None, old: Hold, new: Hold, *, at_ms: int) -> Position:
    """Move a position by what `new` reports beyond `old`.

    The average entry price moves when the position grows, stays when it shrinks, and is the
    fill's own when it crosses zero.
    """
    delta = EXACT.subtract(new.filled, old.filled)
    amount = ZERO if before is None else before.amount
    entry = ZERO if before is None else before.price
    price = _price_of_delta(old, new, delta)
    bought = new.side is Side.BUY
    after = EXACT.add(amount, delta) if bought else EXACT.subtract(amount, delta)
    size_before, size = EXACT.abs(amount), EXACT.abs(after)
    if after.is_zero():
        entry = ZERO
    elif amount.is_zero() or (amount > 0) != (after > 0):
        entry = price
    elif size > size_before:
        cost = EXACT.add(EXACT.multiply(size_before, entry), EXACT.multiply(delta, price))
        entry = _rounded(EXACT.divide(cost, size))
    return Position(
        key=new.key,
        amount=after,
        price=entry,
        updated_ms=at_ms,
        read_ms=None if before is None else before.read_ms,
    )


def _price_of_delta(old: Hold, new: Hold, delta: Decimal) -> Decimal:
    new_price = new.average_price or ZERO
    if old.filled.is_zero() or old.average_price is None or delta.is_zero():
        return new_price
    cost = EXACT.subtract(
        EXACT.multiply(new.filled, new_price), EXACT.multiply(old.filled, old.average_price)
    )
    return _rounded(EXACT.divide(cost, delta))


def _rounded(price: Decimal) -> Decimal:
    """An average price, kept to eighteen decimals; it is for display, never for a limit."""
    return price.quantize(Decimal(1).scaleb(-18), context=EXACT)
