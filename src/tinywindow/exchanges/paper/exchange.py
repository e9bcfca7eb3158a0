"""The paper venue: play money, a durable book, and the manners of a real exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, localcontext
from pathlib import Path
from random import Random
from typing import Final, Self, TypeVar

from tinywindow.exchanges.paper.board import PriceBoard, Quote
from tinywindow.exchanges.paper.book import Book
from tinywindow.exchanges.paper.config import PaperConfig
from tinywindow.exchanges.paper.desk import Desk
from tinywindow.exchanges.paper.faults import CallFault, Faults, NoFaults, PlaceFault
from tinywindow.exchanges.paper.liquidation import liquidate
from tinywindow.exchanges.paper.model import Holding
from tinywindow.exchanges.paper.page import Page
from tinywindow.exchanges.paper.rules import listed, rules_for
from tinywindow.safety.domain.approval import Approved
from tinywindow.safety.domain.money import EXACT
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.domain.symbols import BadSymbol, parse_symbol
from tinywindow.safety.domain.venue import (
    Accepted,
    MarketRules,
    OrderReport,
    Placed,
    Rejected,
    ReportStatus,
    Unknown,
    VenueAccount,
    VenuePosition,
)
from tinywindow.safety.errors import ConfigurationError, VenueUnavailable
from tinywindow.safety.ports import Clock

__all__ = ["OPENING_CASH", "PaperExchange"]

OPENING_CASH: Final = Decimal(20_000)
"""USD with which a new book is opened."""

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[object]]


class PaperExchange:
    """Implements `ports.Exchange` on a book of its own.

    Every change is committed before it is answered. Two instances on one file, in one process
    or in several, trade on the same account; prices are this process's board's, or those that
    the book remembers where they are newer. Each transaction runs on the caller's thread, about
    a millisecond long; latency is simulated on the way back, so that the last look, the
    acceptance and the price are of one moment.
    """

    def __init__(
        self,
        book_path: Path,
        board: PriceBoard,
        *,
        clock: Clock,
        name: str = "paper",
        opening_cash: Decimal = OPENING_CASH,
        config: PaperConfig | None = None,
        rng: Random | None = None,
        sleep: Sleep = asyncio.sleep,
        faults: Faults | None = None,
    ) -> None:
        """Opens nothing yet; `opening_cash`, in USD, counts only for a new book.

        Raises:
            ConfigurationError: the opening cash is not finite and above zero.
        """
        if not opening_cash.is_finite() or opening_cash <= 0:
            raise ConfigurationError(f"opening_cash is {opening_cash}; wanted an amount above 0")
        self._name = name
        self._path = Path(book_path)
        self._board = board
        self._clock = clock
        self._opening_cash = opening_cash
        self._config = config or PaperConfig()
        self._rng = rng
        self._sleep = sleep
        self._faults = faults or NoFaults()
        self._book = Book(
            self._path, opening_cash=opening_cash, busy_timeout_s=self._config.busy_timeout_s
        )
        self._since_kept = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def name(self) -> str:
        """The venue's name."""
        return self._name

    @property
    def board(self) -> PriceBoard:
        """The board whose prices this instance trades at."""
        return self._board

    async def place(self, approved: Approved) -> Placed:
        """Send one approved order: committed, or definitely not there, before it is answered.

        The approval is redeemed under the book's write lock, so that no wait for another
        process lies between the last look and the write.
        """
        fault = self._faults.on_place(approved.order)
        placed: Placed
        try:
            placed = self._send(approved, fault)
        except VenueUnavailable as error:
            placed = Unknown(approved.order.client_order_id, str(error))
        await self._lag()
        return placed

    async def cancel(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """Cancel an order and report it as it is then; None when the venue never knew it."""
        fault = self._faults.on_call("cancel")
        _fail_if(fault, CallFault.BEFORE)
        with self._book.write() as page, localcontext(EXACT):
            order = page.order(client_order_id)
            if order is not None and order.symbol != symbol:
                order = None
            if order is not None and order.status is ReportStatus.OPEN:
                order = replace(order, status=ReportStatus.CANCELLED, message="cancelled")
                page.put_order(order)
        _fail_if(fault, CallFault.AFTER)
        await self._lag()
        return None if order is None else order.report()

    async def find(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """Look an order up by our id; one that was rejected is found as such."""
        order = await self._read("find", lambda page: page.order(client_order_id))
        return None if order is None or order.symbol != symbol else order.report()

    async def open_orders(self) -> tuple[OrderReport, ...]:
        """Every resting order, oldest first."""
        orders = await self._read("open_orders", Page.open_orders)
        return tuple(order.report() for order in orders)

    async def positions(self) -> tuple[VenuePosition, ...]:
        """Every position that is not zero, spot balances as positions of their market."""

        def look(page: Page) -> tuple[VenuePosition, ...]:
            desk = self._desk(page)
            funds = desk.funds()
            return tuple(
                _position(
                    holding,
                    funds.sellable(holding) if holding.symbol.is_spot else holding.amount,
                    desk.quotes.get(holding.symbol.text),
                )
                for holding in funds.holdings
            )

        return await self._read("positions", look)

    async def account(self) -> VenueAccount:
        """Cash and equity in USD; estimated where a price is missing or stale."""

        def look(page: Page) -> VenueAccount:
            return self._desk(page).funds().account(self._clock.now())

        return await self._read("account", look)

    async def market(self, symbol: str) -> MarketRules:
        """What the venue demands of orders on `symbol`.

        Raises:
            VenueUnavailable: the venue does not list it, or cannot be asked.
        """
        _fail_if(self._faults.on_call("market"), CallFault.BEFORE, CallFault.AFTER)
        try:
            parsed = parse_symbol(symbol)
        except BadSymbol as error:
            raise VenueUnavailable(f"the paper venue lists no such market: {error}") from error
        if not listed(parsed):
            raise VenueUnavailable(f"the paper venue does not list {symbol}")
        await self._lag()
        return rules_for(parsed, self._config.rules)

    async def on_prices(self, at: datetime) -> tuple[OrderReport, ...]:
        """Fill the resting orders that the board's prices have crossed at the moment `at`.

        Call it after the board was set. It also writes the board to the book now and then.

        Raises:
            VenueUnavailable: the book cannot be used; nothing was filled.
        """
        self._since_kept += 1
        due = self._since_kept >= self._config.prices_kept_every
        with self._book.read() as page:
            resting = page.open_orders()
        if not resting and not due:
            return ()
        with self._book.write() as page, localcontext(EXACT):
            page.put_prices(self._board.all())
            changed = self._desk(page, at).match()
        self._since_kept = 0
        return tuple(order.report() for order in changed)

    async def match(self) -> tuple[OrderReport, ...]:
        """The same as `on_prices`, now."""
        return await self.on_prices(self._clock.now())

    def placements(self) -> Mapping[str, int]:
        """How often each client order id was sent, lost and rejected sends included."""
        with self._book.read() as page:
            return page.placements()

    async def account_id(self) -> str:
        """What tells this book's account from any other; made with the book."""
        with self._book.read() as page:
            return page.account_id()

    def liquidate(self, symbol: str) -> OrderReport | None:
        """Take a perpetual position away at the board's price, as a venue may; None when flat."""
        with self._book.write() as page, localcontext(EXACT):
            order = liquidate(self._desk(page), symbol)
        return None if order is None else order.report()

    def fork(self) -> PaperExchange:
        """An independent instance for another thread and event loop, on the same account."""
        return PaperExchange(
            self._path,
            self._board,
            clock=self._clock,
            name=self._name,
            opening_cash=self._opening_cash,
            config=self._config,
            rng=None if self._rng is None else Random(self._rng.getrandbits(64)),
            sleep=self._sleep,
            faults=self._faults,
        )

    async def close(self) -> None:
        """Write the board to the book and let go of the file; closing twice does no harm."""
        quotes = self._board.all()
        try:
            if quotes:
                with self._book.write() as page:
                    page.put_prices(quotes)
        finally:
            self._book.close()

    def _send(self, approved: Approved, fault: PlaceFault | None) -> Placed:
        with self._book.write() as page, localcontext(EXACT):
            order = approved.redeem()
            page.count_placement(order.client_order_id)
            page.put_prices(self._board.all())
            if fault is PlaceFault.LOST_BEFORE:
                placed: Placed = Unknown(order.client_order_id, "timed out before the venue")
            else:
                reduce_only = approved.reduce_only or order.reduce_only
                placed = self._taken(page, order, fault, reduce_only=reduce_only)
        if fault is PlaceFault.LOST_AFTER:
            return Unknown(order.client_order_id, "timed out waiting for the answer")
        return placed

    def _taken(
        self, page: Page, order: CheckedOrder, fault: PlaceFault | None, *, reduce_only: bool
    ) -> Placed:
        if page.order(order.client_order_id) is not None:
            return Rejected(order.client_order_id, "duplicate client order id")
        stored = self._desk(page).take(order, reduce_only=reduce_only, fault=fault)
        if stored.status is ReportStatus.REJECTED:
            return Rejected(order.client_order_id, stored.message)
        return Accepted(stored.report())

    def _desk(self, page: Page, at: datetime | None = None) -> Desk:
        quotes = page.prices()
        for symbol, quote in self._board.all().items():
            if symbol not in quotes or quotes[symbol][1] <= quote[1]:
                quotes[symbol] = quote
        return Desk(page, self._config, quotes, at or self._clock.now(), self._rng)

    async def _read(self, operation: str, look: Callable[[Page], T]) -> T:
        _fail_if(self._faults.on_call(operation), CallFault.BEFORE, CallFault.AFTER)
        with self._book.read() as page, localcontext(EXACT):
            found = look(page)
        await self._lag()
        return found

    async def _lag(self) -> None:
        lag_s = self._config.latency_s
        if self._rng is not None and self._config.latency_jitter_s > 0:
            lag_s += self._rng.random() * self._config.latency_jitter_s
        if lag_s > 0:
            await self._sleep(lag_s)


def _fail_if(fault: CallFault | None, *kinds: CallFault) -> None:
    if fault in kinds:
        raise VenueUnavailable("the paper venue did not answer (scripted)")


def _position(holding: Holding, available: Decimal, quote: Quote | None) -> VenuePosition:
    return VenuePosition(
        symbol=holding.symbol.text,
        amount=holding.amount,
        available=available,
        entry_price=holding.entry_price,
        mark_price=None if quote is None else quote[0],
    )
