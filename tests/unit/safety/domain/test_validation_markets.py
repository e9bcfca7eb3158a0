"""Where the venue's rules are known, an order must fit them; nothing is rounded onto them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from validation_cases import assert_refused, limit_order, market_order, named, validate

from tinywindow.safety.domain.venue import MarketRules

RULES = MarketRules(
    symbol="BTC/USDT",
    amount_min=Decimal("0.001"),
    amount_max=Decimal(10),
    amount_step=Decimal("0.001"),
    price_step=Decimal("0.5"),
    notional_min=Decimal(10),
)
MARKETS = {"BTC/USDT": RULES, "ETH/USDT": MarketRules("ETH/USDT")}


@pytest.mark.parametrize(
    ("amount", "price"), [("0.001", "10000"), ("10", "1"), ("10.000", "1.0"), ("20e-1", "5")]
)
def test_an_order_exactly_on_the_markets_bounds_is_valid(amount: str, price: str) -> None:
    assert validate(limit_order(amount=amount, price=price), markets=MARKETS).errors == ()


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"amount": "0.0009"}, ["is too small; wanted at least 0.001", "is between two steps"]),
        ({"amount": "10.001"}, ["amount 10.001 is too large; wanted at most 10"]),
        ({"amount": "1.0005"}, ["amount 1.0005 is between two steps; wanted a multiple of 0.001"]),
        ({"price": "60000.25"}, ["price 60000.25 is between two steps; wanted a multiple of 0.5"]),
        (
            {"amount": "0.001", "price": "9999.5"},
            ["amount 0.001 makes a notional of 9.9995; wanted a notional of at least 10"],
        ),
        (
            {"amount": "10.0005", "price": "0.7"},
            [
                "amount 10.0005 is too large; wanted at most 10",
                "amount 10.0005 is between two steps; wanted a multiple of 0.001",
                "price 0.7 is between two steps; wanted a multiple of 0.5",
                "amount 10.0005 makes a notional of 7.00035; wanted a notional of at least 10",
            ],
        ),
    ],
)
def test_what_is_off_the_markets_rules_is_refused_and_never_rounded(
    fields: dict[str, object], errors: list[str]
) -> None:
    result = validate(limit_order(**fields), markets=MARKETS)

    assert_refused(result)
    assert len(result.errors) == len(errors)
    for sentence, expected in zip(result.errors, errors, strict=True):
        assert expected in sentence


def test_a_symbol_that_the_venue_does_not_list_is_refused() -> None:
    assert validate(market_order(symbol="SOL/USDT"), markets=MARKETS).errors == (
        "symbol 'SOL/USDT' is not listed; wanted a market of the venue",
    )
    assert not validate(market_order(), markets={}).is_valid


def test_rules_that_are_not_known_bind_nothing() -> None:
    assert validate(limit_order(symbol="ETH/USDT", amount="1e-9"), markets=MARKETS).is_valid


def test_a_market_order_has_no_limit_price_to_make_a_notional_of() -> None:
    assert validate(market_order(amount="0.001"), markets=MARKETS).is_valid


def test_the_least_notional_keeps_nobody_in_a_position() -> None:
    order = limit_order(amount="0.001", price="1", reduce_only=True)

    assert validate(order, markets=MARKETS).is_valid


@pytest.mark.parametrize(
    ("fields", "fields_named"),
    [
        ({"amount": "x"}, {"amount"}),
        ({"amount": "x", "price": "0.7"}, {"amount", "price"}),
        ({"price": "x"}, {"price"}),
        ({"symbol": "x"}, {"symbol"}),
    ],
)
def test_what_cannot_be_read_is_not_compared_with_the_rules(
    fields: dict[str, object], fields_named: set[str]
) -> None:
    result = validate(limit_order(**fields), markets=MARKETS)

    assert named(result) == fields_named
    assert len(result.errors) == len(fields_named)


def test_a_rule_that_is_not_a_step_refuses() -> None:
    rules = {"BTC/USDT": MarketRules("BTC/USDT", amount_step=Decimal(0))}

    assert_refused(validate(market_order(), markets=rules))


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_a_whole_number_of_steps_and_nothing_else_is_on_step(steps: int, step: int) -> None:
    size = Decimal(step).scaleb(-6)
    rules = {"BTC/USDT": MarketRules("BTC/USDT", amount_step=size)}
    on_step = size * steps

    assert validate(market_order(amount=on_step), markets=rules).is_valid
    assert not validate(market_order(amount=on_step + size / 2), markets=rules).is_valid
