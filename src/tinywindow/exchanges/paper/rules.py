"""What the paper venue lists, and what it demands of an order before money is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from tinywindow.safety.domain.money import ZERO, plain
from tinywindow.safety.domain.order import CheckedOrder, OrderType
from tinywindow.safety.domain.symbols import MarketType, Symbol
from tinywindow.safety.domain.venue import MarketRules

__all__ = ["DOLLARS", "floor_to_step", "listed", "rules_for", "violation"]

DOLLARS: Final = frozenset({"USD", "USDC", "USDT"})
"""Quote currencies of the venue; each counts as one USD."""

_SPOT: Final = {"BTC": ("0.00001", "9000"), "ETH": ("0.0001", "9000"), "SOL": ("0.001", "90000")}
_PERPETUAL: Final = {"BTC": ("0.001", "1000"), "ETH": ("0.001", "10000"), "SOL": ("0.01", "50000")}
_OTHER: Final = ("0.0001", "1000000000")
_PRICE_STEP: Final = {"BTC": "0.01", "ETH": "0.01", "SOL": "0.001"}
_PRICE_STEP_OTHER: Final = "0.00000001"
_NOTIONAL_MIN: Final = Decimal(5)
NO_RULES: Final[Mapping[str, MarketRules]] = MappingProxyType({})


def listed(symbol: Symbol) -> bool:
    """Say whether the venue trades the market: spot and linear perpetuals against the dollar."""
    if symbol.quote not in DOLLARS or symbol.base in DOLLARS:
        return False
    if symbol.market is MarketType.SPOT:
        return True
    return symbol.market is MarketType.PERPETUAL and symbol.settle in DOLLARS


def rules_for(symbol: Symbol, overrides: Mapping[str, MarketRules] = NO_RULES) -> MarketRules:
    """The rules of a listed market: those configured for it, or else the venue's own."""
    if symbol.text in overrides:
        return overrides[symbol.text]
    sizes = (_SPOT if symbol.is_spot else _PERPETUAL).get(symbol.base, _OTHER)
    step = Decimal(sizes[0])
    return MarketRules(
        symbol=symbol.text,
        amount_min=step,
        amount_max=Decimal(sizes[1]),
        amount_step=step,
        price_step=Decimal(_PRICE_STEP.get(symbol.base, _PRICE_STEP_OTHER)),
        notional_min=_NOTIONAL_MIN,
        reduce_only=not symbol.is_spot,
        spot=symbol.is_spot,
    )


def floor_to_step(amount: Decimal, step: Decimal | None) -> Decimal:
    """Cut an amount > 0, in base units, down to a whole number of steps."""
    return amount if step is None else amount - amount % step


def violation(
    order: CheckedOrder, amount: Decimal, price: Decimal, rules: MarketRules, *, reduce_only: bool
) -> str | None:
    """Name the first rule that an order of `amount` base units breaks at `price`, or None.

    The least notional is waived for what is reduce-only, as perpetual venues do, so that a
    position can always be closed down to the least amount.
    """
    if order.type not in {OrderType.MARKET, OrderType.LIMIT}:
        return f"the paper venue takes MARKET and LIMIT orders, not {order.type.value}"
    if rules.amount_min is not None and amount < rules.amount_min:
        return f"amount {plain(amount)} is below the minimum of {plain(rules.amount_min)}"
    if rules.amount_max is not None and amount > rules.amount_max:
        return f"amount {plain(amount)} is above the maximum of {plain(rules.amount_max)}"
    if rules.amount_step is not None and amount % rules.amount_step != ZERO:
        return f"amount {plain(amount)} is no multiple of the step {plain(rules.amount_step)}"
    limit = order.price
    if limit is not None and rules.price_step is not None and limit % rules.price_step != ZERO:
        return f"price {plain(limit)} is no multiple of the step {plain(rules.price_step)}"
    if rules.notional_min is not None and not reduce_only and amount * price < rules.notional_min:
        return f"notional is below the minimum of {plain(rules.notional_min)} {order.symbol.quote}"
    return None
