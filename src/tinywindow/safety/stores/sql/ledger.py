"""The ledger: reservations, fills, positions, reference prices and the guarded sums."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from sqlalchemy import and_, bindparam, or_, select, update

from tinywindow.safety.domain.money import plain
from tinywindow.safety.domain.order import OrderType, PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState, Position, ReferencePrice
from tinywindow.safety.errors import InvariantBroken
from tinywindow.safety.stores import schema
from tinywindow.safety.stores.sql.engine import Engine, Row
from tinywindow.safety.stores.sql.part import (
    INTEGER_MAX,
    Guard,
    Part,
    as_decimal,
    as_decimal_or_none,
    as_int,
    as_int_or_none,
    as_one_of,
    as_text_or_none,
    first,
)
from tinywindow.safety.stores.sql.rows import Writer

__all__ = [
    "LedgerPart",
    "decision_spent",
    "order_row",
    "read_hold",
    "read_holds",
    "read_positions",
]

_O = schema.orders.c
_P = schema.positions.c
_R = schema.reference_prices.c
_X = schema.exposures.c
_ENDS: Final = sorted(state.value for state in HoldState if not state.open)

_ORDERS: Final = Writer.of(schema.orders, key=("client_order_id",))
_FILLS: Final = Writer.of(schema.fills, key=("id",), skip=("id",))
_POSITIONS: Final = Writer.of(schema.positions, key=("venue", "account", "symbol", "leg"))
_PRICES: Final = Writer.of(schema.reference_prices, key=("symbol",))
_EXPOSURES: Final = Writer.of(schema.exposures, key=("symbol",))

_ORDER_COLUMNS: Final = tuple(c for c in schema.orders.columns if c.name != "version")
_HOLD: Final = select(*_ORDER_COLUMNS).where(_O.client_order_id == bindparam("p_id"))
# All that has not ended, also in a state that is none: it must be found damaged, not overlooked.
# Written as the ranges between the ends, which the index on the state serves.
_NOT_ENDED: Final = or_(
    _O.state < _ENDS[0],
    *(and_(_O.state > end, _O.state < later) for end, later in pairwise(_ENDS)),
    _O.state > _ENDS[-1],
)
_OPEN_HOLDS: Final = select(*_ORDER_COLUMNS).where(_NOT_ENDED).order_by(_O.created_ms)
_HOLDS_SINCE: Final = select(*_ORDER_COLUMNS).where(_O.version > bindparam("p_since"))
_DECISION: Final = select(_O.client_order_id).where(_O.decision_id == bindparam("p_id")).limit(1)
_POSITION_COLUMNS: Final = tuple(c for c in schema.positions.columns if c.name != "version")
_POSITIONS_SINCE: Final = select(*_POSITION_COLUMNS).where(_P.version > bindparam("p_since"))
_PRICES_SINCE: Final = select(_R.symbol, _R.price, _R.at_ms).where(
    _R.version > bindparam("p_since")
)
_GUARD_EXPOSURE: Final = (
    update(schema.exposures)
    .where(_X.symbol == bindparam("p_symbol"))
    .where(bindparam("p_worst_micros") <= bindparam("p_cap_micros"))
    .values(worst_micros=bindparam("p_worst_micros"))
)


def read_hold(db: Engine, client_order_id: str) -> Hold | None:
    """One reservation by its id, open or ended."""
    row = first(db.rows(_HOLD, {"p_id": client_order_id}))
    return None if row is None else _hold(row)


def read_holds(db: Engine, *, since: int | None) -> tuple[Hold, ...]:
    """The open reservations, or all that changed after version `since`."""
    rows = db.rows(_OPEN_HOLDS) if since is None else db.rows(_HOLDS_SINCE, {"p_since": since})
    return tuple(_hold(row) for row in rows)


def read_positions(db: Engine, *, since: int | None) -> tuple[Position, ...]:
    """The positions that changed after version `since`; all when it is None."""
    rows = db.rows(_POSITIONS_SINCE, {"p_since": -1 if since is None else since})
    return tuple(_position(row) for row in rows)


def read_prices(db: Engine, *, since: int | None) -> tuple[ReferencePrice, ...]:
    """The reference prices that changed after version `since`; all when it is None."""
    rows = db.rows(_PRICES_SINCE, {"p_since": -1 if since is None else since})
    return tuple(ReferencePrice(str(r[0]), as_decimal(r[1]), as_int(r[2])) for r in rows)


def decision_spent(db: Engine, decision_id: str, client_order_id: str) -> bool:
    """Whether another order than this one already used the decision."""
    row = first(db.rows(_DECISION, {"p_id": decision_id}))
    return row is not None and str(row[0]) != client_order_id


def _hold(row: Row) -> Hold:
    return Hold(
        client_order_id=str(row[0]),
        key=PositionKey(str(row[1]), str(row[2]), str(row[3]), str(row[4])),
        side=as_one_of(Side, row[5]),
        type=as_one_of(OrderType, row[6]),
        amount=as_decimal(row[7]),
        price=as_decimal_or_none(row[8]),
        state=as_one_of(HoldState, row[9]),
        created_ms=as_int(row[10]),
        filled=as_decimal(row[11]),
        average_price=as_decimal_or_none(row[12]),
        fee=as_decimal(row[13]),
        intent_ms=as_int_or_none(row[14]),
        reduces=bool(row[15]),
        reduce_only=bool(row[16]),
        decision_id=as_text_or_none(row[17]),
        agent_id=as_text_or_none(row[18]),
        flatten=bool(row[19]),
    )


def _position(row: Row) -> Position:
    return Position(
        key=PositionKey(str(row[0]), str(row[1]), str(row[2]), str(row[3])),
        amount=as_decimal(row[4]),
        price=as_decimal(row[5]),
        updated_ms=as_int(row[6]),
        read_ms=as_int_or_none(row[7]),
    )


def order_row(hold: Hold, *, version: int) -> dict[str, object]:
    """The columns of a reservation that changes at `version`."""
    return {
        "client_order_id": hold.client_order_id,
        "venue": hold.key.venue,
        "account": hold.key.account,
        "symbol": hold.key.symbol,
        "leg": hold.key.leg,
        "side": hold.side.value,
        "type": hold.type.value,
        "amount": plain(hold.amount),
        "price": None if hold.price is None else plain(hold.price),
        "state": hold.state.value,
        "created_ms": hold.created_ms,
        "filled": plain(hold.filled),
        "average_price": None if hold.average_price is None else plain(hold.average_price),
        "fee": plain(hold.fee),
        "intent_ms": hold.intent_ms,
        "reduces": int(hold.reduces),
        "reduce_only": int(hold.reduce_only),
        "decision_id": hold.decision_id,
        "agent_id": hold.agent_id,
        "flatten": int(hold.flatten),
        "version": version,
    }


class LedgerPart(Part):
    """The part of a transaction that holds reservations, positions and prices."""

    def hold(self, client_order_id: str) -> Hold | None:
        """One reservation by its id, open or ended."""
        return read_hold(self._db, client_order_id)

    def put_hold(self, hold: Hold) -> None:
        """Insert or replace a reservation."""
        _ORDERS.put(self._db, order_row(hold, version=self._touch()))
        self._pending.holds.append(hold)

    def add_hold(self, hold: Hold) -> None:
        """Insert a reservation whose id must be new."""
        _ORDERS.add(self._db, order_row(hold, version=self._touch()))
        self._pending.holds.append(hold)

    def add_fill(self, hold: Hold, *, at_ms: int) -> None:
        """Record a cumulative fill report of `hold`, for history."""
        price = hold.average_price
        _FILLS.add(
            self._db,
            {
                "client_order_id": hold.client_order_id,
                "filled": plain(hold.filled),
                "average_price": None if price is None else plain(price),
                "fee": plain(hold.fee),
                "at_ms": at_ms,
            },
        )

    def put_position(self, position: Position) -> None:
        """Insert or replace a position; a zero amount means flat."""
        _POSITIONS.put(
            self._db,
            {
                "venue": position.key.venue,
                "account": position.key.account,
                "symbol": position.key.symbol,
                "leg": position.key.leg,
                "amount": plain(position.amount),
                "price": plain(position.price),
                "updated_ms": position.updated_ms,
                "read_ms": position.read_ms,
                "version": self._touch(),
            },
        )
        self._pending.positions.append(position)

    def put_price(self, price: ReferencePrice) -> None:
        """Insert or replace a reference price."""
        _PRICES.put(
            self._db,
            {
                "symbol": price.symbol,
                "price": plain(price.price),
                "at_ms": price.at_ms,
                "version": self._touch(),
            },
        )
        self._pending.prices.append(price)

    def guard_entry(
        self, *, symbol: str, symbol_micros: int, symbol_cap: int, total: int, total_cap: int
    ) -> None:
        """Have the database check an entry's sums a second time.

        Raises:
            InvariantBroken: the symbol's sum is above its cap; the total is checked at commit.
        """
        if symbol_micros > symbol_cap:
            raise InvariantBroken(f"the exposure of {symbol} is above its cap")
        # A cap that means "none" may be larger than what the database can hold.
        held = min(symbol_micros, INTEGER_MAX)
        params = {
            "p_symbol": symbol,
            "p_worst_micros": held,
            "p_cap_micros": min(symbol_cap, INTEGER_MAX),
        }
        if self._db.run(_GUARD_EXPOSURE, params) == 0:
            _EXPOSURES.add(self._db, {"symbol": symbol, "worst_micros": held})
        self._guard = Guard(total, total_cap)
