"""Orders: sides, signs, and what makes two of them the same trade."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal as D
from typing import Any

import pytest

from tinywindow.safety.domain.order import CheckedOrder, Order, OrderType, PositionKey, Side
from tinywindow.safety.domain.symbols import parse_symbol

ORDER = CheckedOrder(
    symbol=parse_symbol("BTC/USDT"),
    side=Side.BUY,
    amount=D("0.5"),
    type=OrderType.LIMIT,
    price=D(100),
    client_order_id="c1",
    reduce_only=False,
    decision_id="d1",
    agent_id="a1",
    venue="paper",
    account="default",
)


def test_a_buy_moves_a_position_up_and_a_sell_down() -> None:
    assert Side.BUY.sign == 1
    assert Side.SELL.sign == -1


def test_each_side_undoes_the_other() -> None:
    assert Side.BUY.opposite is Side.SELL
    assert Side.SELL.opposite is Side.BUY


def test_an_orders_amount_is_signed_as_its_side() -> None:
    assert ORDER.signed_amount == D("0.5")
    assert replace(ORDER, side=Side.SELL).signed_amount == D("-0.5")


def test_a_signed_amount_keeps_all_forty_digits() -> None:
    amount = D("1234567890.123456789012345678901234567891")
    sold = replace(ORDER, side=Side.SELL, amount=amount)

    assert (sold.signed_amount.as_tuple().digits, sold.signed_amount < 0) == (
        amount.as_tuple().digits,
        True,
    )


def test_an_order_belongs_to_the_position_of_its_venue_account_and_market() -> None:
    assert ORDER.key == PositionKey("paper", "default", "BTC/USDT", "net")


def test_the_decision_the_agent_and_the_id_do_not_make_another_trade() -> None:
    other = replace(ORDER, client_order_id="c2", decision_id="d2", agent_id=None)

    assert ORDER.same_terms(other)
    assert other.same_terms(ORDER)


@pytest.mark.parametrize(
    "change",
    [
        {"symbol": parse_symbol("BTC/USDT:USDT")},
        {"venue": "elsewhere"},
        {"account": "second"},
        {"side": Side.SELL},
        {"amount": D("0.50000001")},
        {"type": OrderType.STOP_LIMIT},
        {"price": D("100.01")},
        {"price": None},
        {"reduce_only": True},
    ],
)
def test_any_term_that_differs_makes_another_trade(change: dict[str, Any]) -> None:
    assert not ORDER.same_terms(replace(ORDER, **change))


def test_a_proposed_order_takes_anything_and_judges_nothing() -> None:
    order = Order(symbol=b"?", side=None, amount=float("nan"))

    assert (order.type, order.price, order.account) == ("MARKET", None, "default")
    assert order.reduce_only is False
