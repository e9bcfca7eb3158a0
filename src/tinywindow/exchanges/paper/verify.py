"""Does the book add up? Recomputes cash, holdings and orders from the fills alone."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path

from tinywindow.safety.domain.money import EXACT, ZERO
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.errors import VenueUnavailable

__all__ = ["discrepancies"]


def discrepancies(book_path: Path) -> tuple[str, ...]:
    """Say in sentences what in the book does not add up; nothing when all is well.

    The book is opened for reading alone: one that is not there is not made.

    Checked to the last digit: cash less the cost of perpetuals equals opening cash less what
    was traded and the fees; each holding is the sum of its fills and spot is never short; each
    order's fill, turnover and fee are the sums of its fills; and no order exists that was not
    counted as sent.

    Raises:
        VenueUnavailable: the book cannot be read.
    """
    try:
        address = f"{book_path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None)) as db:
            db.execute("BEGIN")
            with localcontext(EXACT):
                return (*_money(db), *_holdings(db), *_orders(db))
    except (sqlite3.Error, ArithmeticError, TypeError, ValueError) as error:
        # The last three: a damaged book holds what is no number, no symbol, or no account.
        raise VenueUnavailable(f"the paper book cannot be read: {error}") from error


def _money(db: sqlite3.Connection) -> Iterator[str]:
    opening, cash = db.execute("SELECT opening_cash, cash FROM account").fetchone()
    expected = Decimal(opening)
    for side, amount, price, fee in db.execute("SELECT side, amount, price, fee FROM fill"):
        flow = Decimal(amount) * Decimal(price)
        expected += (flow if side == "SELL" else -flow) - Decimal(fee)
    tied = sum(
        (
            Decimal(cost)
            for symbol, cost in db.execute("SELECT symbol, cost FROM holding")
            if not parse_symbol(symbol).is_spot
        ),
        ZERO,
    )
    if Decimal(cash) - tied != expected:
        yield f"cash {cash} less the cost {tied} of perpetuals is not {expected}"


def _holdings(db: sqlite3.Connection) -> Iterator[str]:
    sums: dict[str, Decimal] = {}
    for symbol, side, amount in db.execute("SELECT symbol, side, amount FROM fill"):
        signed = Decimal(amount) if side == "BUY" else -Decimal(amount)
        sums[symbol] = sums.get(symbol, ZERO) + signed
    held = {
        symbol: (Decimal(amount), Decimal(cost))
        for symbol, amount, cost in db.execute("SELECT symbol, amount, cost FROM holding")
    }
    for symbol in sorted(sums.keys() | held.keys()):
        amount, cost = held.get(symbol, (ZERO, ZERO))
        if amount != sums.get(symbol, ZERO):
            yield f"{symbol} stands at {amount}, its fills add up to {sums.get(symbol, ZERO)}"
        if amount < ZERO and parse_symbol(symbol).is_spot:
            yield f"{symbol} is spot and short: {amount}"
        if (amount == ZERO) != (cost == ZERO) or amount * cost < ZERO:
            yield f"{symbol} stands at {amount} with a cost of {cost}"


def _orders(db: sqlite3.Connection) -> Iterator[str]:
    sums: dict[str, tuple[Decimal, Decimal, Decimal]] = {}
    for order_id, amount, price, fee in db.execute(
        "SELECT client_order_id, amount, price, fee FROM fill"
    ):
        filled, traded, fees = sums.get(order_id, (ZERO, ZERO, ZERO))
        sums[order_id] = (
            filled + Decimal(amount),
            traded + Decimal(amount) * Decimal(price),
            fees + Decimal(fee),
        )
    sent = dict(db.execute("SELECT client_order_id, count FROM placement"))
    seen: Counter[str] = Counter()
    for order_id, amount, filled, traded, fee, message in db.execute(
        "SELECT client_order_id, amount, filled, traded, fee, message FROM paper_order"
    ):
        seen[order_id] += 1
        told = (Decimal(filled), Decimal(traded), Decimal(fee))
        if told != sums.get(order_id, (ZERO, ZERO, ZERO)):
            yield f"order {order_id} tells {told}, its fills {sums.get(order_id)}"
        if told[0] > Decimal(amount):
            yield f"order {order_id} is filled beyond its amount"
        if order_id not in sent and message != "liquidated by the venue":
            yield f"order {order_id} is in the book and was never counted as sent"
    for order_id in (order_id for order_id, count in seen.items() if count > 1):
        yield f"order {order_id} is in the book {seen[order_id]} times"
