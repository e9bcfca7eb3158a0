"""Validation lists everything that is wrong with an order, and never raises."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from types import MappingProxyType

import pytest
from hostile_objects import BadMapping, HostileText
from malformed_orders import MALFORMED, MARKET_ORDER, Malformed
from validation_cases import (
    NEW_ID,
    SYMBOLS,
    assert_refused,
    limit_order,
    market_order,
    named,
    validate,
)

from tinywindow.safety.domain.order import CheckedOrder, Order, OrderType, Side
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.domain.validation import (
    KEYS_MAX,
    ValidationResult,
    checked_label,
    checked_name,
    is_order_id,
    is_venue_name,
)

# What is accepted


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_an_order_on_any_unified_symbol_is_valid(symbol: str, side: str) -> None:
    result = validate(market_order(symbol=symbol, side=side))

    assert result.is_valid
    assert result
    assert result.errors == ()
    assert result.checked is not None
    assert result.checked.symbol == parse_symbol(symbol)
    assert result.checked.side is Side(side)


def test_a_checked_order_has_every_field_in_its_type() -> None:
    result = validate(
        Order(
            symbol="BTC/USDT:USDT",
            side="SELL",
            amount=0.1,
            type="LIMIT",
            price="60000.5",
            client_order_id="my-order_1",
            reduce_only=True,
            decision_id="decision 1",
            agent_id="agent~1",
            venue="binance",
            account="sub.1",
        )
    )

    assert result.checked == CheckedOrder(
        symbol=parse_symbol("BTC/USDT:USDT"),
        side=Side.SELL,
        amount=Decimal("0.1"),
        type=OrderType.LIMIT,
        price=Decimal("60000.5"),
        client_order_id="my-order_1",
        reduce_only=True,
        decision_id="decision 1",
        agent_id="agent~1",
        venue="binance",
        account="sub.1",
    )


def test_a_plain_order_is_a_market_order_with_the_defaults_filled_in() -> None:
    assert validate(MARKET_ORDER).order == Order(
        symbol="BTC/USDT",
        side=Side.BUY,
        amount=Decimal("0.1"),
        type=OrderType.MARKET,
        price=None,
        client_order_id=NEW_ID,
        reduce_only=False,
        decision_id=None,
        agent_id=None,
        venue="paper",
        account="default",
    )


def test_a_missing_account_is_the_default_one() -> None:
    checked = validate(market_order(account=None)).checked

    assert checked is not None
    assert checked.account == "default"


@pytest.mark.parametrize("wrap", [dict, MappingProxyType, lambda fields: Order(**fields)])
def test_an_order_and_a_mapping_with_its_keys_are_the_same(
    wrap: Callable[[dict[str, object]], object],
) -> None:
    assert validate(wrap(limit_order())) == validate(limit_order())


def test_validating_a_normalised_order_again_changes_nothing() -> None:
    first = validate(limit_order())

    assert validate(first.order, new_id=lambda: "another", default_venue="other") == first


def test_enum_members_that_are_text_are_text() -> None:
    assert validate(market_order(side=Side.SELL, type=OrderType.MARKET)).is_valid


def test_text_that_lies_about_itself_is_read_as_what_it_holds() -> None:
    result = validate(market_order(side=HostileText("SELL"), client_order_id=HostileText("a")))

    assert result.checked is not None
    assert result.checked.side is Side.SELL
    assert type(result.checked.client_order_id) is str


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client_order_id", "a" * 36),
        ("decision_id", "~" * 64),
        ("agent_id", "a b"),
        ("decision_id", "~"),
        ("venue", "a" * 32),
        ("account", "A.b_c-1"),
    ],
)
def test_the_longest_label_is_accepted(field: str, value: str) -> None:
    assert validate(market_order(**{field: value})).is_valid


def test_ids_are_made_for_valid_orders_only() -> None:
    made: list[str] = []

    def new_id() -> str:
        made.append(NEW_ID)
        return NEW_ID

    validate(market_order(side="HOLD"), new_id=new_id)
    validate(market_order(client_order_id="mine"), new_id=new_id)
    assert made == []

    validate(market_order(), new_id=new_id)
    assert made == [NEW_ID]


# What is refused


@pytest.mark.parametrize("row", MALFORMED, ids=[row.title for row in MALFORMED])
def test_a_malformed_order_is_refused_and_its_field_is_named(row: Malformed) -> None:
    result = validate(row.order)

    assert_refused(result)
    assert row.field in named(result)


def test_the_table_of_malformed_orders_is_long_enough() -> None:
    assert len(MALFORMED) >= 300
    assert len({row.title for row in MALFORMED}) >= 300


def test_every_violation_is_listed() -> None:
    result = validate(
        Order(
            symbol="btc",
            side="buy",
            amount=0,
            type="STOP",
            price=-1,
            client_order_id="",
            reduce_only=1,
            decision_id="\n",
            agent_id=7,
            venue="a b",
            account="",
        )
    )

    assert result.errors == (
        (
            "symbol 'btc' is not a unified symbol; "
            "wanted BASE/QUOTE or BASE/QUOTE:SETTLE in upper case, such as BTC/USDT"
        ),
        "side 'buy' is not one that is supported; wanted BUY or SELL",
        "amount 0 is not above zero; wanted a finite number above zero",
        "type 'STOP' is not one that is supported; wanted MARKET or LIMIT",
        "price -1 is not above zero; wanted a finite number above zero",
        (
            "client_order_id '' is empty, too long, or has other characters; "
            "wanted nothing, or 1 to 36 of the characters A-Z a-z 0-9 _ -"
        ),
        "reduce_only 1 is not a truth value; wanted True or False",
        (
            r"decision_id '\n' is empty, too long, or has other characters; "
            "wanted nothing, or 1 to 64 printable ASCII characters without blanks at the ends"
        ),
        (
            "agent_id 7 is not text; "
            "wanted nothing, or 1 to 64 printable ASCII characters without blanks at the ends"
        ),
        (
            "venue 'a b' is empty, too long, or has other characters; "
            "wanted nothing, or 1 to 32 of the characters A-Z a-z 0-9 _ . -"
        ),
        (
            "account '' is empty, too long, or has other characters; "
            "wanted nothing, or 1 to 32 of the characters A-Z a-z 0-9 _ . -"
        ),
    )


def test_every_missing_field_is_listed() -> None:
    assert validate({}).errors == (
        "symbol is missing; wanted a unified symbol such as BTC/USDT",
        "side is missing; wanted BUY or SELL",
        "amount is missing; wanted a finite number above zero",
    )


def test_every_unknown_key_is_listed() -> None:
    result = validate({**market_order(side="HOLD"), "a\nb": 1, "leverage": 50})

    assert named(result) == {"order", "side"}
    assert result.errors[0] == (
        r"order has the unknown keys 'a\nb', 'leverage'; wanted only symbol, side, amount, "
        "type, price, client_order_id, reduce_only, decision_id, agent_id, venue, account"
    )


def test_a_price_is_wanted_for_a_limit_order_and_none_for_a_market_order() -> None:
    assert validate(market_order(type="LIMIT")).errors == (
        "price None is missing from a LIMIT order; wanted a finite number above zero",
    )
    assert validate(market_order(price=1)).errors == (
        "price 1 is given for a MARKET order; wanted no price",
    )


def test_where_the_type_is_wrong_a_missing_price_is_no_violation() -> None:
    assert named(validate(market_order(type="STOP"))) == {"type"}


def test_what_is_no_order_is_one_violation() -> None:
    assert validate(5).errors == ("order 5 is no order; wanted an Order or a mapping",)


def test_a_mapping_that_cannot_be_read_is_a_violation() -> None:
    assert validate(BadMapping("items")).errors == (
        "order <BadMapping> could not be read (RuntimeError); wanted plain values",
    )


def test_a_key_that_comes_twice_is_a_violation() -> None:
    assert "order has the key symbol twice; wanted it once" in validate(BadMapping("twice")).errors


def test_no_more_keys_are_read_than_the_bound() -> None:
    fillers: dict[str, object] = {f"key{n}": n for n in range(KEYS_MAX - len(MARKET_ORDER))}

    at_bound = validate({**MARKET_ORDER, **fillers})
    beyond = validate({**fillers, **MARKET_ORDER, "one": "more"})
    cut = validate({**{f"key{n}": n for n in range(KEYS_MAX)}, **MARKET_ORDER})

    assert len(at_bound.errors) == 1
    assert beyond.errors[0] == "order has more than 32 keys; wanted 11 at most"
    assert len(cut.errors) == 2
    assert "is missing" not in " ".join(cut.errors)


def test_an_id_source_that_fails_is_a_refusal() -> None:
    def broken() -> str:
        raise OSError("no entropy")

    assert validate(market_order(), new_id=broken).errors == (
        "order <dict> could not be read (OSError); wanted plain values",
    )


def test_an_id_source_that_makes_bad_ids_is_a_refusal() -> None:
    result = validate(market_order(), new_id=lambda: "not an id")

    assert_refused(result)
    assert "InvariantBroken" in result.errors[0]


def test_an_interrupt_is_not_swallowed() -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate(market_order(), new_id=interrupted)


def test_a_result_with_errors_is_never_valid() -> None:
    checked = validate(market_order()).checked

    assert not ValidationResult(("amount is wrong",), None, checked).is_valid
    assert not ValidationResult(()).is_valid


# Names


def test_an_order_id_and_a_venue_name_are_matched_whole() -> None:
    assert is_order_id("a" * 36)
    assert not is_order_id("a\n")
    assert is_venue_name("kraken.spot")
    assert not is_venue_name("kraken\n")


@pytest.mark.parametrize("name", ["default", "A.b_c-1", "x" * 32])
def test_a_name_is_given_back_as_it_is(name: str) -> None:
    assert checked_name("account", name) == name
    assert checked_label("client_order_id", f"{name}/7 {name}"[:64]) == f"{name}/7 {name}"[:64]


@pytest.mark.parametrize("name", ["", "a b", "x" * 33, "default\n", None, 5])
def test_what_is_no_name_is_told_with_what_is_wanted(name: object) -> None:
    with pytest.raises(ValueError, match=r"account is .*; wanted 1 to 32 of the characters"):
        checked_name("account", name)


@pytest.mark.parametrize("label", ["", " a", "a ", "x" * 65, "a\n", b"a"])
def test_what_is_no_label_is_told_with_what_is_wanted(label: object) -> None:
    with pytest.raises(ValueError, match=r"id is .*; wanted 1 to 64 printable ASCII"):
        checked_label("id", label)
