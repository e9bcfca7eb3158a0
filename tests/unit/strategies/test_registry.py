"""Strategies are made by name."""

from __future__ import annotations

from decimal import Decimal

import pytest
from views import BTC, view

from tinywindow.safety.domain.venue import MarketRules
from tinywindow.safety.errors import ConfigurationError
from tinywindow.strategies.base import Strategy, sized
from tinywindow.strategies.registry import STRATEGIES, make_strategy


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_name_makes_a_strategy_of_that_name(name: str) -> None:
    strategy = make_strategy(name, [BTC])
    assert isinstance(strategy, Strategy)
    assert strategy.name == name


def test_claude_is_said_to_come_later() -> None:
    with pytest.raises(ConfigurationError, match="not part of this version yet"):
        make_strategy("claude", [BTC])


def test_an_unknown_name_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match="momentum, hold"):
        make_strategy("moon", [BTC])


def test_a_strategy_without_symbols_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        make_strategy("hold", [])


@pytest.mark.parametrize(
    ("amount", "expected"),
    [("0", "0"), ("-1", "0"), ("0.1", "0"), ("0.55", "0.5"), ("7", "2"), ("0.2", "0.2")],
)
def test_amounts_are_cut_to_what_the_venue_takes(amount: str, expected: str) -> None:
    rules = MarketRules(
        BTC,
        amount_min=Decimal("0.1"),
        amount_max=Decimal(2),
        amount_step=Decimal("0.1"),
        notional_min=Decimal(10_000),
    )
    assert sized(view(rules={BTC: rules}), BTC, Decimal(amount)) == Decimal(expected)


def test_without_rules_five_digits_are_kept() -> None:
    assert sized(view(), BTC, Decimal("0.0123456789")) == Decimal("0.012345")
