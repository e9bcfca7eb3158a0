"""Momentum enters on a rising trend, leaves on a falling one, and keeps to its budget."""

from __future__ import annotations

from decimal import Decimal

from views import BTC, ETH, Room, after, decide, view

from tinywindow.safety.domain.order import Side
from tinywindow.safety.domain.venue import MarketRules
from tinywindow.strategies.base import Strategy
from tinywindow.strategies.momentum import FAST, ORDERS_PER_HOUR_MAX, SLOW, Momentum

RISING = tuple(Decimal(price) for price in range(100, 100 + SLOW))
FALLING = tuple(reversed(RISING))
FLAT = (Decimal(100),) * SLOW


def test_a_rising_trend_is_entered_with_a_fifth_of_equity() -> None:
    strategy: Strategy = Momentum([BTC, ETH])
    (entry,) = decide(strategy, view(closes={BTC: RISING, ETH: FALLING}))
    assert (entry.symbol, entry.side, entry.amount) == (BTC, Side.BUY, Decimal("0.04"))
    assert entry.note


def test_a_falling_trend_is_left_with_all_that_is_held() -> None:
    seen = view(closes={BTC: FALLING}, positions={BTC: Decimal("0.04")})
    (leaving,) = decide(Momentum([BTC]), seen)
    assert (leaving.side, leaving.amount) == (Side.SELL, Decimal("0.04"))


def test_it_holds_while_the_trend_lasts_and_while_nothing_is_known() -> None:
    held = {BTC: Decimal("0.04")}
    assert decide(Momentum([BTC]), view(closes={BTC: RISING}, positions=held)) == ()
    assert decide(Momentum([BTC]), view(closes={BTC: FALLING})) == ()
    assert decide(Momentum([BTC]), view(closes={BTC: FLAT}, positions=held)) == ()
    assert decide(Momentum([BTC]), view(closes={BTC: RISING[1:]})) == ()
    assert decide(Momentum([BTC]), view(closes={BTC: RISING}, equity=None)) == ()
    assert decide(Momentum([BTC]), view(closes={BTC: RISING}, prices={})) == ()


def test_a_short_position_is_not_its_business() -> None:
    short = {BTC: Decimal(-1)}
    for closes in (RISING, FALLING):
        assert decide(Momentum([BTC]), view(closes={BTC: closes}, positions=short)) == ()


def test_dust_is_neither_sold_nor_in_the_way() -> None:
    rules = {BTC: MarketRules(BTC, amount_min=Decimal("0.001"), amount_step=Decimal("0.001"))}
    dust = {BTC: Decimal("0.0005")}
    assert decide(Momentum([BTC]), view(closes={BTC: FALLING}, positions=dust, rules=rules)) == ()
    assert decide(Momentum([BTC]), view(closes={BTC: RISING}, positions=dust, rules=rules)) != ()


def test_no_more_than_the_limits_leave() -> None:
    room = {BTC: Room(Decimal("0.01"))}
    (entry,) = decide(Momentum([BTC]), view(closes={BTC: RISING}, capacity=room))
    assert entry.amount == Decimal("0.0098")
    none = {BTC: Room(Decimal(0))}
    assert decide(Momentum([BTC]), view(closes={BTC: RISING}, capacity=none)) == ()


def test_it_stays_below_its_budget_of_orders_and_an_exit_is_never_held_back() -> None:
    strategy = Momentum([BTC])
    position, orders = Decimal(0), 0
    for second in range(3_600):
        closes = RISING if second % 20 < 10 else FALLING
        seen = view(at=after(second), closes={BTC: closes}, positions={BTC: position})
        for proposal in decide(strategy, seen):
            position += proposal.side.sign * proposal.amount
            orders += 1
    assert position == 0
    assert orders == ORDERS_PER_HOUR_MAX
    assert decide(strategy, view(at=after(7_200), closes={BTC: RISING})) != ()


def test_a_refused_proposal_is_not_repeated_at_once() -> None:
    strategy = Momentum([BTC])
    tries = [
        second
        for second in range(12)
        if decide(strategy, view(at=after(second), closes={BTC: RISING}))
    ]
    assert tries == [0, 5, 10]


def test_the_averages_are_those_that_the_docs_name() -> None:
    up = (Decimal(100),) * (SLOW - FAST) + (Decimal(101),) * FAST
    assert decide(Momentum([BTC]), view(closes={BTC: up})) != ()
    assert decide(Momentum([BTC]), view(closes={BTC: (Decimal(999), *up)})) != ()
