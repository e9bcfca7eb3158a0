"""The book as one transaction sees it: rows in, rows out, and nothing decided."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tinywindow.exchanges.paper.board import Quote
from tinywindow.exchanges.paper.model import Fill, Holding, PaperOrder
from tinywindow.safety.domain.money import ZERO, plain
from tinywindow.safety.domain.order import OrderType, Side
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.domain.venue import ReportStatus

__all__ = ["Page", "milliseconds"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ORDER_COLUMNS = (
    "number, client_order_id, symbol, side, type, requested, amount, price, reduce_only,"
    " status, filled, traded, fee, message"
)


def milliseconds(at: datetime) -> int:
    """An aware datetime as whole Unix milliseconds."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


class Page:
    """Rows of the book within one transaction; synchronous, and used by one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def cash(self) -> Decimal:
        """Cash in USD."""
        return Decimal(self._one("SELECT cash FROM account")[0])

    def account_id(self) -> str:
        """What tells this account from any other."""
        return str(self._one("SELECT account_id FROM identity")[0])

    def opening_cash(self) -> Decimal:
        """The cash in USD with which the book was opened."""
        return Decimal(self._one("SELECT opening_cash FROM account")[0])

    def set_cash(self, cash: Decimal) -> None:
        """Set the cash in USD."""
        self._db.execute("UPDATE account SET cash = ?", (plain(cash),))

    def holdings(self) -> tuple[Holding, ...]:
        """Every holding that is not zero, by symbol."""
        rows = self._db.execute("SELECT symbol, amount, cost FROM holding ORDER BY symbol")
        found = (Holding(parse_symbol(row[0]), Decimal(row[1]), Decimal(row[2])) for row in rows)
        return tuple(holding for holding in found if holding.amount != ZERO)

    def holding(self, symbol: str) -> Holding:
        """One holding; a zero one when there is none."""
        row = self._db.execute(
            "SELECT amount, cost FROM holding WHERE symbol = ?", (symbol,)
        ).fetchone()
        market = parse_symbol(symbol)
        return Holding(market) if row is None else Holding(market, Decimal(row[0]), Decimal(row[1]))

    def put_holding(self, holding: Holding) -> None:
        """Insert or replace a holding."""
        self._db.execute(
            "INSERT INTO holding VALUES (?, ?, ?) ON CONFLICT (symbol)"
            " DO UPDATE SET amount = excluded.amount, cost = excluded.cost",
            (holding.symbol.text, plain(holding.amount), plain(holding.cost)),
        )

    def order(self, client_order_id: str) -> PaperOrder | None:
        """One order by our id, open or done."""
        row = self._db.execute(
            f"SELECT {_ORDER_COLUMNS} FROM paper_order WHERE client_order_id = ?",  # noqa: S608
            (client_order_id,),
        ).fetchone()
        return None if row is None else _order(row)

    def open_orders(self) -> tuple[PaperOrder, ...]:
        """Every resting order, oldest first."""
        rows = self._db.execute(
            f"SELECT {_ORDER_COLUMNS} FROM paper_order"  # noqa: S608
            " WHERE status = 'OPEN' ORDER BY number"
        )
        return tuple(_order(row) for row in rows)

    def orders_count(self) -> int:
        """How many orders the book has ever seen, rejected ones included."""
        return int(self._one("SELECT count(*) FROM paper_order")[0])

    def add_order(self, order: PaperOrder, *, at_ms: int) -> PaperOrder:
        """Append an order and give it back with its number."""
        cursor = self._db.execute(
            "INSERT INTO paper_order (client_order_id, symbol, side, type, requested, amount,"
            " price, reduce_only, status, filled, traded, fee, message, placed_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                order.client_order_id,
                order.symbol,
                order.side.value,
                order.type.value,
                plain(order.requested),
                plain(order.amount),
                None if order.price is None else plain(order.price),
                int(order.reduce_only),
                *_progress(order),
                at_ms,
            ),
        )
        stored = self.order(order.client_order_id)
        if stored is None or stored.number != cursor.lastrowid:
            raise sqlite3.IntegrityError(f"order {order.client_order_id} did not reach the book")
        return stored

    def put_order(self, order: PaperOrder) -> None:
        """Write how far an order is; what it asks for does not change."""
        self._db.execute(
            "UPDATE paper_order SET status = ?, filled = ?, traded = ?, fee = ?, message = ?,"
            " amount = ? WHERE number = ?",
            (*_progress(order), plain(order.amount), order.number),
        )

    def add_fill(self, order: PaperOrder, fill: Fill, *, at_ms: int) -> None:
        """Append an execution."""
        self._db.execute(
            "INSERT INTO fill (client_order_id, symbol, side, amount, price, fee, maker,"
            " filled_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                order.client_order_id,
                order.symbol,
                order.side.value,
                plain(fill.amount),
                plain(fill.price),
                plain(fill.fee),
                int(fill.maker),
                at_ms,
            ),
        )

    def count_placement(self, client_order_id: str) -> None:
        """Count one more send under this id, whatever becomes of it."""
        self._db.execute(
            "INSERT INTO placement VALUES (?, 1) ON CONFLICT (client_order_id)"
            " DO UPDATE SET count = count + 1",
            (client_order_id,),
        )

    def placements(self) -> dict[str, int]:
        """How often each id was sent."""
        rows = self._db.execute("SELECT client_order_id, count FROM placement")
        return {row[0]: row[1] for row in rows}

    def prices(self) -> dict[str, Quote]:
        """The prices that the book remembers, in quote units, and when each was seen."""
        rows = self._db.execute("SELECT symbol, price, at_ms FROM price")
        return {row[0]: (Decimal(row[1]), _EPOCH + timedelta(milliseconds=row[2])) for row in rows}

    def put_prices(self, quotes: Mapping[str, Quote]) -> None:
        """Remember prices; one that is older than what stands changes nothing."""
        self._db.executemany(
            "INSERT INTO price VALUES (?, ?, ?) ON CONFLICT (symbol) DO UPDATE"
            " SET price = excluded.price, at_ms = excluded.at_ms WHERE excluded.at_ms >= at_ms",
            [(symbol, plain(price), milliseconds(at)) for symbol, (price, at) in quotes.items()],
        )

    def _one(self, statement: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self._db.execute(statement).fetchone()
        if row is None:
            raise sqlite3.IntegrityError("the book lacks a row that it must have")
        return row


def _progress(order: PaperOrder) -> tuple[str, str, str, str, str]:
    return (
        order.status.value,
        plain(order.filled),
        plain(order.traded),
        plain(order.fee),
        order.message,
    )


def _order(row: tuple[Any, ...]) -> PaperOrder:
    return PaperOrder(
        number=row[0],
        client_order_id=row[1],
        symbol=row[2],
        side=Side(row[3]),
        type=OrderType(row[4]),
        requested=Decimal(row[5]),
        amount=Decimal(row[6]),
        price=None if row[7] is None else Decimal(row[7]),
        reduce_only=bool(row[8]),
        status=ReportStatus(row[9]),
        filled=Decimal(row[10]),
        traded=Decimal(row[11]),
        fee=Decimal(row[12]),
        message=row[13],
    )
