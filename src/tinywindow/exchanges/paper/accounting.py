"""What a fill does to cash and to a holding. Pure, and exact to the last digit.

On spot the money itself moves. On a perpetual only the realised profit and the fee do. When a
part of a position closes, its share of the cost is rounded once and what is left keeps the
rest, so that cash less the cost of perpetuals always equals the opening cash less what was
traded and the fees, whatever the rounding; `verify` holds the book to that.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Final

from tinywindow.exchanges.paper.model import Fill, Holding
from tinywindow.safety.domain.money import ZERO
from tinywindow.safety.domain.order import Side

__all__ = ["applied", "closable"]

_COST_STEP: Final = Decimal("1E-18")


def closable(holding: Holding, side: Side) -> Decimal:
    """How much an order on `side` can take off a holding, in base units."""
    return max(ZERO, -side.sign * holding.amount)


def applied(cash: Decimal, holding: Holding, side: Side, fill: Fill) -> tuple[Decimal, Holding]:
    """Cash and holding after a fill. Call under the exact context."""
    closing = min(fill.amount, closable(holding, side))
    opening = fill.amount - closing
    released = _released(holding, closing)
    after = replace(
        holding,
        amount=holding.amount + side.sign * fill.amount,
        cost=holding.cost - released + side.sign * opening * fill.price,
    )
    if holding.symbol.is_spot:
        return cash - side.sign * fill.amount * fill.price - fill.fee, after
    realised = -side.sign * closing * fill.price - released
    return cash + realised - fill.fee, after


def _released(holding: Holding, closing: Decimal) -> Decimal:
    if closing == ZERO:
        return ZERO
    if closing == abs(holding.amount):
        return holding.cost
    return (holding.cost * closing / abs(holding.amount)).quantize(_COST_STEP)
