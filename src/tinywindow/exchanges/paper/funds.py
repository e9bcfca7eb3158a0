"""What the account is worth, and whether it can pay for an order.

One account carries both markets. Spot is paid for with cash. Perpetuals are carried by
collateral, which is cash plus their open profit: their gross notional may be `max_leverage`
times as large. Resting orders hold what they would need. There is no funding, and nothing is
liquidated by itself: a loss beyond the collateral shows as negative equity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tinywindow.exchanges.paper.board import Quote
from tinywindow.exchanges.paper.config import PaperConfig
from tinywindow.exchanges.paper.model import Holding, PaperOrder
from tinywindow.exchanges.paper.pricing import fee_of
from tinywindow.safety.domain.money import ZERO, plain
from tinywindow.safety.domain.order import Side
from tinywindow.safety.domain.venue import VenueAccount

__all__ = ["Funds", "worst_fee"]


@dataclass(frozen=True, slots=True)
class Funds:
    """Cash, holdings, resting orders and prices at one moment. Use under the exact context."""

    config: PaperConfig
    cash: Decimal
    holdings: tuple[Holding, ...]
    resting: tuple[PaperOrder, ...]
    quotes: Mapping[str, Quote]

    def account(self, now: datetime) -> VenueAccount:
        """Cash and equity in USD; estimated where a price is missing or stale at `now`."""
        equity, estimated = self.cash, False
        bound = timedelta(seconds=self.config.price_stale_s)
        for holding in self.holdings:
            quote = self.quotes.get(holding.symbol.text)
            estimated = estimated or quote is None or now - quote[1] > bound
            equity += self._value(holding)
        return VenueAccount(cash=self.cash, equity=equity, estimated=estimated)

    def sellable(self, holding: Holding) -> Decimal:
        """What of a spot balance no resting sell holds, in base units."""
        held = sum(
            (
                order.remaining
                for order in self.resting
                if order.symbol == holding.symbol.text and order.side is Side.SELL
            ),
            ZERO,
        )
        return max(ZERO, holding.amount - held)

    def spot_shortfall(self, notional: Decimal, fee: Decimal) -> str | None:
        """Say why a spot buy of `notional` cannot be paid for, or None."""
        free = min(self.cash, self._collateral() - self._margin()) - self._held_by_resting()
        if notional + fee <= free:
            return None
        return f"insufficient cash: {_usd(notional + fee)} needed, {_usd(max(ZERO, free))} free"

    def margin_shortfall(
        self, holding: Holding, signed_amount: Decimal, price: Decimal, fee: Decimal
    ) -> str | None:
        """Say why a perpetual order that would grow a position cannot be carried, or None."""
        grown = abs(holding.amount + signed_amount)
        if grown <= abs(holding.amount):
            return None
        needed = grown * price / self.config.max_leverage + fee
        free = (
            self._collateral() - self._margin(without=holding.symbol.text) - self._held_by_resting()
        )
        if needed <= free:
            return None
        return f"insufficient margin: {_usd(needed)} needed, {_usd(max(ZERO, free))} free"

    def _price(self, holding: Holding) -> Decimal:
        quote = self.quotes.get(holding.symbol.text)
        return quote[0] if quote is not None else holding.entry_price or ZERO

    def _value(self, holding: Holding) -> Decimal:
        worth = holding.amount * self._price(holding)
        return worth if holding.symbol.is_spot else worth - holding.cost

    def _collateral(self) -> Decimal:
        return self.cash + sum(
            (self._value(holding) for holding in self.holdings if not holding.symbol.is_spot),
            ZERO,
        )

    def _margin(self, *, without: str = "") -> Decimal:
        gross = sum(
            (
                abs(holding.amount) * self._price(holding)
                for holding in self.holdings
                if not holding.symbol.is_spot and holding.symbol.text != without
            ),
            ZERO,
        )
        return gross / self.config.max_leverage

    def _held_by_resting(self) -> Decimal:
        held = ZERO
        for order in self.resting:
            notional = order.remaining * (order.price or ZERO)
            spot = order.market.is_spot
            if spot and order.side is Side.BUY:
                held += notional + worst_fee(self.config, notional, spot=True)
            elif not spot and not order.reduce_only:
                held += notional / self.config.max_leverage
        return held


def worst_fee(config: PaperConfig, notional: Decimal, *, spot: bool) -> Decimal:
    """The larger of the maker's and the taker's fee, in quote units."""
    return max(
        fee_of(config, notional, spot=spot, maker=True),
        fee_of(config, notional, spot=spot, maker=False),
    )


def _usd(amount: Decimal) -> str:
    return f"{plain(amount.quantize(Decimal('0.01')))} USD"
