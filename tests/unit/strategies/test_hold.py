"""Hold buys equal shares once and never trades again."""

from __future__ import annotations

from decimal import Decimal

from views import BTC, ETH, Room, after, decide, view

from tinywindow.safety.domain.order import OrderType, Side
from tinywindow.safety.domain.venue import MarketRules
from tinywindow.strategies.base import Strategy
from tinywindow.strategies.hold import Hold

HELD = {BTC: Decimal("0.098"), ETH: Decimal("1.96")}


def test_equal_shares_with_room_for_fees() -> None:
    strategy: Strategy = Hold([BTC, ETH])
    btc, eth = decide(strategy, view())
    assert (btc.symbol, btc.side, btc.amount) == (BTC, Side.BUY, Decimal("0.098"))
    assert (eth.symbol, eth.side, eth.amount) == (ETH, Side.BUY, Decimal("1.96"))
    assert btc.type is OrderType.MARKET
    assert btc.price is None


def test_then_nothing_even_when_the_position_is_gone_again() -> None:
    strategy = Hold([BTC, ETH])
    decide(strategy, view())
    assert decide(strategy, view(at=after(60), positions=HELD)) == ()
    assert decide(strategy, view(at=after(600))) == ()


def test_a_restart_with_positions_buys_nothing() -> None:
    assert decide(Hold([BTC, ETH]), view(positions=HELD)) == ()


def test_no_more_than_the_limits_leave() -> None:
    room = {BTC: Room(Decimal("0.05")), ETH: Room(Decimal(0))}
    (only,) = decide(Hold([BTC, ETH]), view(capacity=room))
    assert (only.symbol, only.amount) == (BTC, Decimal("0.049"))


def test_a_failed_purchase_is_tried_three_times_with_a_rest_between() -> None:
    strategy = Hold([BTC])
    tries = [second for second in range(300) if decide(strategy, view(at=after(second)))]
    assert tries == [0, 30, 60]


def test_unknown_equity_or_price_means_no_proposal() -> None:
    assert decide(Hold([BTC]), view(equity=None)) == ()
    assert decide(Hold([BTC]), view(equity=Decimal(-5))) == ()
    assert decide(Hold([BTC]), view(prices={})) == ()


def test_amounts_obey_the_venues_step_and_minimum() -> None:
    rules = MarketRules(BTC, amount_min=Decimal("0.01"), amount_step=Decimal("0.01"))
    (only,) = decide(Hold([BTC]), view(equity=Decimal(1_550), rules={BTC: rules}))
    assert only.amount == Decimal("0.03")
    assert decide(Hold([BTC]), view(equity=Decimal(100), rules={BTC: rules})) == ()
