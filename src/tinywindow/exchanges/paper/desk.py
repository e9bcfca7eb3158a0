"""The desk: takes orders, fills them, and writes cash, holding and order down together.

Everything here runs inside one write transaction of the book, without waiting for anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from random import Random
from typing import Final

from tinywindow.exchanges.paper.accounting import applied, closable
from tinywindow.exchanges.paper.board import Quote
from tinywindow.exchanges.paper.config import PaperConfig
from tinywindow.exchanges.paper.faults import PlaceFault
from tinywindow.exchanges.paper.funds import Funds, worst_fee
from tinywindow.exchanges.paper.model import Fill, Holding, PaperOrder
from tinywindow.exchanges.paper.page import Page, milliseconds
from tinywindow.exchanges.paper.pricing import crosses, execution_price, fee_of
from tinywindow.exchanges.paper.rules import floor_to_step, listed, rules_for, violation
from tinywindow.safety.domain.money import ZERO, plain
from tinywindow.safety.domain.order import CheckedOrder, OrderType, Side
from tinywindow.safety.domain.venue import MarketRules, ReportStatus

__all__ = ["Desk"]

_HALF: Final = Decimal("0.5")


@dataclass(frozen=True, slots=True)
class Desk:
    """One turn at the venue: a page of the book, the prices, the time, and chance.

    Use under the exact context.
    """

    page: Page
    config: PaperConfig
    quotes: Mapping[str, Quote]
    now: datetime
    rng: Random | None = None

    def funds(self) -> Funds:
        """The account as it stands on the page."""
        page = self.page
        return Funds(self.config, page.cash(), page.holdings(), page.open_orders(), self.quotes)

    def take(
        self, order: CheckedOrder, *, reduce_only: bool, fault: PlaceFault | None
    ) -> PaperOrder:
        """Write an order into the book, filled as far as it fills at once, or rejected."""
        holding = self.page.holding(order.symbol.text)
        amount = order.amount
        if reduce_only and not order.symbol.is_spot:
            step = rules_for(order.symbol, self.config.rules).amount_step
            amount = min(amount, floor_to_step(closable(holding, order.side), step))
        message = self._objection(order, holding, amount, reduce_only=reduce_only, fault=fault)
        stored = self.page.add_order(
            PaperOrder(
                number=0,
                client_order_id=order.client_order_id,
                symbol=order.symbol.text,
                side=order.side,
                type=order.type,
                requested=order.amount,
                amount=order.amount if message else amount,
                price=order.price,
                reduce_only=reduce_only,
                status=ReportStatus.REJECTED if message else ReportStatus.OPEN,
                message=message or "",
            ),
            at_ms=milliseconds(self.now),
        )
        return stored if message else self._fill_at_once(stored, fault)

    def match(self) -> tuple[PaperOrder, ...]:
        """Fill every resting order that the price has crossed; gives those that changed."""
        changed = []
        for order in self.page.open_orders():
            quote = self.quotes.get(order.symbol)
            limit = order.price
            if quote is None or limit is None:
                continue
            if crosses(self.config, order.side, limit, quote[0]):
                changed.append(self._fill_resting(order, limit))
        return tuple(changed)

    def _objection(
        self,
        order: CheckedOrder,
        holding: Holding,
        amount: Decimal,
        *,
        reduce_only: bool,
        fault: PlaceFault | None,
    ) -> str | None:
        """Why the venue turns the order away, or None."""
        if fault is PlaceFault.REJECT or self._chance(self.config.reject_chance):
            return "rejected by the paper venue's script or by its chance"
        if not listed(order.symbol):
            return f"the paper venue does not list {order.symbol.text}"
        quote = self.quotes.get(order.symbol.text)
        if quote is None:
            return f"no price for {order.symbol.text}"
        if reduce_only and closable(holding, order.side) == ZERO:
            return "reduce-only, and there is nothing to reduce"
        rules = rules_for(order.symbol, self.config.rules)
        price = order.price if order.price is not None else quote[0]
        broken = violation(
            order, amount, price, rules, reduce_only=rules.reduce_only and reduce_only
        )
        return broken or self._unpayable(order, holding, amount, quote[0], rules)

    def _unpayable(
        self,
        order: CheckedOrder,
        holding: Holding,
        amount: Decimal,
        price: Decimal,
        rules: MarketRules,
    ) -> str | None:
        spot = order.symbol.is_spot
        if spot and order.side is Side.SELL:
            sellable = self.funds().sellable(holding)
            if amount <= sellable:
                return None
            return f"insufficient balance: {plain(sellable)} {order.symbol.base} free"
        paid = order.price
        if paid is None:
            paid = execution_price(
                self.config, order.symbol.base, order.side, amount, price, rules.price_step
            )
        fee = worst_fee(self.config, amount * paid, spot=spot)
        if spot:
            return self.funds().spot_shortfall(amount * paid, fee)
        # A short is carried at the price it sells for at best, and that is the board's.
        carried = max(paid, price)
        return self.funds().margin_shortfall(holding, order.side.sign * amount, carried, fee)

    def _fill_at_once(self, order: PaperOrder, fault: PlaceFault | None) -> PaperOrder:
        price, limit = self.quotes[order.symbol][0], order.price
        market = order.type is OrderType.MARKET
        if limit is not None and not crosses(self.config, order.side, limit, price):
            return order
        symbol = order.market
        rules = rules_for(symbol, self.config.rules)
        chance = self.config.market_partial_chance if market else self.config.limit_partial_chance
        amount = self._share_of(order.amount, rules, fault, chance)
        paid = execution_price(
            self.config, symbol.base, order.side, amount, price, rules.price_step
        )
        if limit is not None:
            paid = min(paid, limit) if order.side is Side.BUY else max(paid, limit)
        filled = self.book_fill(order, amount, paid, maker=False)
        if market and filled.status is ReportStatus.OPEN:
            filled = replace(filled, status=ReportStatus.CANCELLED, message="the rest found nobody")
            self.page.put_order(filled)
        return filled

    def _fill_resting(self, order: PaperOrder, limit: Decimal) -> PaperOrder:
        symbol = order.market
        holding = self.page.holding(order.symbol)
        if order.reduce_only and not symbol.is_spot:
            left = min(order.remaining, closable(holding, order.side))
            order = replace(order, amount=order.filled + left)
        unpaid = self._unpaid(order, limit)
        if order.remaining == ZERO or unpaid:
            status = ReportStatus.FILLED if order.filled else ReportStatus.CANCELLED
            ended = replace(
                order,
                status=ReportStatus.CANCELLED if unpaid else status,
                message=unpaid or "nothing is left to reduce",
            )
            self.page.put_order(ended)
            return ended
        rules = rules_for(symbol, self.config.rules)
        amount = self._share_of(order.remaining, rules, None, self.config.limit_partial_chance)
        return self.book_fill(order, amount, limit, maker=True)

    def _unpaid(self, order: PaperOrder, limit: Decimal) -> str | None:
        """Losses on perpetuals may have eaten the cash that a resting spot buy held."""
        if not order.market.is_spot or order.side is Side.SELL:
            return None
        notional = order.remaining * limit
        fee = fee_of(self.config, notional, spot=True, maker=True)
        return None if notional + fee <= self.page.cash() else "the cash is gone"

    def book_fill(
        self, order: PaperOrder, amount: Decimal, price: Decimal, *, maker: bool
    ) -> PaperOrder:
        """Write one execution: cash, holding, order and fill, in this one transaction."""
        notional = amount * price
        fee = fee_of(self.config, notional, spot=order.market.is_spot, maker=maker)
        fill = Fill(amount, price, fee, maker)
        cash, holding = applied(self.page.cash(), self.page.holding(order.symbol), order.side, fill)
        filled = order.filled + amount
        after = replace(
            order,
            filled=filled,
            traded=order.traded + notional,
            fee=order.fee + fee,
            status=ReportStatus.FILLED if filled == order.amount else ReportStatus.OPEN,
        )
        self.page.set_cash(cash)
        self.page.put_holding(holding)
        self.page.put_order(after)
        self.page.add_fill(after, fill, at_ms=milliseconds(self.now))
        return after

    def _share_of(
        self, amount: Decimal, rules: MarketRules, fault: PlaceFault | None, chance: float
    ) -> Decimal:
        """How much of `amount` fills in one go: all of it, unless fault or chance say less."""
        if fault is PlaceFault.DUST and rules.amount_min is not None:
            return max(amount - rules.amount_min * _HALF, amount * _HALF)
        if fault is PlaceFault.PARTIAL:
            share = _HALF
        elif self.rng is not None and self._chance(chance):
            share = Decimal(self.rng.randint(10, 90)) / 100
        else:
            return amount
        return floor_to_step(amount * share, rules.amount_step) or amount

    def _chance(self, chance: float) -> bool:
        return self.rng is not None and chance > 0 and self.rng.random() < chance
