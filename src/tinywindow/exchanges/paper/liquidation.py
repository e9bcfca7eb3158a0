"""A liquidation: the venue closes a perpetual position by itself, without asking us.

The paper venue never does so on its own; tests and simulations ask for it, to show that an
order which was meant to reduce opens nothing once its position is gone.
"""

from __future__ import annotations

from tinywindow.exchanges.paper.desk import Desk
from tinywindow.exchanges.paper.model import PaperOrder
from tinywindow.exchanges.paper.page import milliseconds
from tinywindow.safety.domain.money import ZERO
from tinywindow.safety.domain.order import OrderType, Side
from tinywindow.safety.domain.venue import ReportStatus

__all__ = ["liquidate"]


def liquidate(desk: Desk, symbol: str) -> PaperOrder | None:
    """Close a perpetual position at the board's price; None when there is none or no price."""
    holding, quote = desk.page.holding(symbol), desk.quotes.get(symbol)
    if holding.amount == ZERO or holding.symbol.is_spot or quote is None:
        return None
    amount = abs(holding.amount)
    order = desk.page.add_order(
        PaperOrder(
            number=0,
            client_order_id=f"LIQUIDATION{desk.page.orders_count() + 1}",
            symbol=symbol,
            side=Side.SELL if holding.amount > ZERO else Side.BUY,
            type=OrderType.MARKET,
            requested=amount,
            amount=amount,
            price=None,
            reduce_only=True,
            status=ReportStatus.OPEN,
            message="liquidated by the venue",
        ),
        at_ms=milliseconds(desk.now),
    )
    return desk.book_fill(order, amount, quote[0], maker=False)
