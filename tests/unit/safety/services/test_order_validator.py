"""The order validator is domain validation with an id source, a venue and market rules."""

from __future__ import annotations

import re

import pytest

from tinywindow.safety.domain.order import Order
from tinywindow.safety.domain.venue import MarketRules
from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.services.order_validator import OrderValidator, new_order_id

ORDER = Order("BTC/USDT", "BUY", "0.1")


def test_it_works_without_any_argument() -> None:
    result = OrderValidator().validate_order(ORDER)

    assert result.is_valid
    assert result.errors == ()
    assert result.checked is not None
    assert result.checked.venue == "default"


def test_a_malformed_order_is_a_value_and_not_an_exception() -> None:
    result = OrderValidator().validate_order({"symbol": "BTCUSDT"})

    assert not result.is_valid
    assert [sentence.split(" ")[0] for sentence in result.errors] == ["side", "amount", "symbol"]


def test_an_order_without_an_id_gets_one_of_its_own() -> None:
    validator = OrderValidator()
    ids = set()
    for _ in range(1000):
        checked = validator.validate_order(ORDER).checked
        assert checked is not None
        ids.add(checked.client_order_id)

    assert len(ids) == 1000


def test_a_made_id_is_short_enough_for_every_venue_and_uses_its_whole_alphabet() -> None:
    ids = [new_order_id() for _ in range(1000)]

    assert all(re.fullmatch(r"TW[0-9A-Z]{16}", made) for made in ids)
    assert len({char for made in ids for char in made[2:]}) == 36
    assert all(len({made[at] for made in ids}) == 36 for at in range(2, 18))


def test_the_id_source_and_the_venue_can_be_given() -> None:
    validator = OrderValidator(default_venue="kraken", new_id=lambda: "mine")

    checked = validator.validate_order(ORDER).checked

    assert checked is not None
    assert (checked.client_order_id, checked.venue) == ("mine", "kraken")


def test_the_caller_may_know_the_venue_better() -> None:
    validator = OrderValidator(default_venue="kraken")

    checked = validator.validate_order(ORDER, default_venue="binance").checked

    assert checked is not None
    assert checked.venue == "binance"


def test_market_rules_bind_where_they_are_given() -> None:
    validator = OrderValidator(markets={"ETH/USDT": MarketRules("ETH/USDT")})

    assert validator.validate_order(ORDER).errors == (
        "symbol 'BTC/USDT' is not listed; wanted a market of the venue",
    )


@pytest.mark.parametrize("name", ["", "a b", "a\n", "a" * 33, None, 1])
def test_a_default_venue_that_is_no_name_is_refused_at_construction(name: object) -> None:
    with pytest.raises(ConfigurationError, match="default_venue") as caught:
        OrderValidator(default_venue=name)  # type: ignore[arg-type]

    assert "\n" not in str(caught.value)
