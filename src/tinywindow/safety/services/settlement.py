"""Settlement: what becomes of a hold, as transaction scripts.

A reservation ends exactly once: filled, released or lapsed. A late fill is booked even then,
because the position is real.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from tinywindow.safety.domain.audit import AuditDraft
from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.money import ZERO, NotANumber, plain, to_decimal
from tinywindow.safety.domain.order import OrderType, PositionKey
from tinywindow.safety.domain.positions import apply_fill, filled
from tinywindow.safety.domain.records import Hold, HoldState, Position, ReferencePrice
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.ports import Tx

__all__ = ["FillReport", "FoundPosition", "book_fill", "lapse", "release", "set_position"]


@dataclass(frozen=True, slots=True)
class FillReport:
    """A cumulative fill report: `amount` in base units, `price` the average, `fee` in quote."""

    client_order_id: str
    amount: Decimal
    price: Decimal
    fee: Decimal
    final: bool
    at_ms: int


@dataclass(frozen=True, slots=True)
class FoundPosition:
    """A position as a reconciliation found it at a venue."""

    venue: str
    account: str
    symbol: str
    amount: Decimal
    price: Decimal
    at_ms: int


def required(tx: Tx, client_order_id: str) -> Hold:
    """The hold of an id.

    Raises:
        KeyError: no order was ever held under it.
    """
    hold = tx.hold(client_order_id)
    if hold is None:
        raise KeyError(client_order_id)
    return hold


def book_fill(tx: Tx, report: FillReport, row: AuditDraft | None) -> Hold:
    """Book what a report brings beyond what is booked; with `final`, release the rest.

    Without a `row` the caller audits what became of the hold.

    Raises:
        KeyError: no order was ever held under the id.
        ValueError: a negative amount, or a fill without a positive price.
    """
    if report.amount < ZERO or (report.amount > ZERO and report.price <= ZERO):
        raise ValueError("a fill has a positive amount and a positive price")
    before = required(tx, report.client_order_id)
    after = filled(before, cumulative=report.amount, average=report.price, fee=report.fee)
    if report.final and after.state.open:
        after = replace(after, state=HoldState.RELEASED)
    if after == before:
        return before
    if after.filled != before.filled:
        position = tx.book().positions.get(after.key)
        tx.put_position(apply_fill(position, before, after, at_ms=report.at_ms))
        tx.add_fill(after, at_ms=report.at_ms)
    tx.put_hold(after)
    if row is not None:
        tx.audit(replace(row, data={**outcome_data(after), **row.data}))
    return after


def outcome_data(hold: Hold) -> dict[str, object]:
    """A hold's standing as plain data for audit rows."""
    price = hold.average_price
    return {
        "state": hold.state.value,
        "symbol": hold.key.symbol,
        "side": hold.side.value,
        "amount": plain(hold.amount),
        "filled": plain(hold.filled),
        "average_price": None if price is None else plain(price),
        "fee": plain(hold.fee),
    }


def release(tx: Tx, client_order_id: str, row: AuditDraft) -> Hold:
    """End an open hold as released; one that has ended already stays as it is.

    Raises:
        KeyError: no order was ever held under the id.
    """
    before = required(tx, client_order_id)
    if not before.state.open:
        return before
    after = replace(before, state=HoldState.RELEASED)
    tx.put_hold(after)
    tx.audit(replace(row, data={**outcome_data(after), **row.data}))
    return after


def move(tx: Tx, client_order_id: str, state: HoldState, row: AuditDraft | None) -> Hold:
    """Move an open hold to another state, such as WORKING or UNKNOWN.

    Raises:
        KeyError: no order was ever held under the id.
    """
    before = required(tx, client_order_id)
    if not before.state.open or before.state is state:
        return before
    after = replace(before, state=state)
    tx.put_hold(after)
    if row is not None:
        tx.audit(replace(row, data={**outcome_data(after), **row.data}))
    return after


def lapsing(book: Book | None, now_ms: int, ttl_ms: int) -> tuple[Hold, ...]:
    """The holds that may lapse: market orders without a recorded intent, past their time."""
    if book is None:
        return ()
    return tuple(hold for hold in book.holds.values() if _may_lapse(hold, now_ms, ttl_ms))


def _may_lapse(hold: Hold, now_ms: int, ttl_ms: int) -> bool:
    return (
        hold.state is HoldState.HELD
        and hold.type is OrderType.MARKET
        and hold.intent_ms is None
        and hold.filled.is_zero()
        and now_ms - hold.created_ms > ttl_ms
    )


def lapse(tx: Tx, rows: Mapping[str, AuditDraft], *, now_ms: int, ttl_ms: int) -> None:
    """End the holds named in `rows` that may still lapse."""
    for client_order_id, row in rows.items():
        hold = tx.hold(client_order_id)
        if hold is not None and _may_lapse(hold, now_ms, ttl_ms):
            after = replace(hold, state=HoldState.LAPSED)
            tx.put_hold(after)
            tx.audit(replace(row, data={**outcome_data(after), **row.data}))


def set_position(tx: Tx, found: FoundPosition, row: AuditDraft) -> None:
    """Take on a position as found; audited when it differs from what was booked.

    Raises:
        ValueError: a position that is not zero needs a positive price.
    """
    if found.amount != ZERO and found.price <= ZERO:
        raise ValueError("a position that is not zero needs a positive price")
    key = PositionKey(found.venue, found.account, found.symbol)
    before = tx.book().positions.get(key)
    booked = ZERO if before is None else before.amount
    tx.put_position(Position(key, found.amount, found.price, found.at_ms, found.at_ms))
    if booked == found.amount:
        return
    data = {
        "venue": found.venue,
        "account": found.account,
        "symbol": found.symbol,
        "booked": plain(booked),
        "found": plain(found.amount),
        "price": plain(found.price),
    }
    tx.audit(replace(row, data={**data, **row.data}))


def reference_price(symbol: str, price: object, at_ms: int) -> ReferencePrice:
    """Read a reference price strictly.

    Raises:
        BadSymbol, NotANumber: the symbol or the price is none, or the price is not positive.
    """
    number = to_decimal(price)
    if number <= ZERO:
        raise NotANumber("a reference price must be above zero")
    return ReferencePrice(parse_symbol(symbol).text, number, at_ms)


def put_prices(tx: Tx, prices: Iterable[ReferencePrice]) -> None:
    """Keep the newest of each price; an older one than the store's is passed over."""
    known = tx.book().prices
    for price in prices:
        before = known.get(price.symbol)
        if before is None or price.at_ms >= before.at_ms:
            tx.put_price(price)
