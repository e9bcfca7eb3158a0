"""Ten thousand generated malformed orders, and what holds for any order at all."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from malformed_orders import (
    BAD_FLAGS,
    BAD_IDS,
    BAD_KEYS,
    BAD_LABELS,
    BAD_NAMES,
    BAD_NUMBERS,
    BAD_SIDES,
    BAD_SYMBOL_TEXTS,
    BAD_TYPES,
    NOT_TEXT,
)
from validation_cases import SYMBOLS, assert_refused, limit_order, named, validate

from tinywindow.safety.domain.order import Order, OrderType

GENERATED = 10_000
CHARS = "ABCXYZabcxyz0189 .,:;/\\-_'\"\n\t\x00\x1b\u00e9\u0412\u200b\u202e\uff11\ud800\U0001f680"


def junk(rng: random.Random, least: int = 0) -> str:
    return "".join(rng.choices(CHARS, k=rng.randint(least, 60)))


def spoiled(rng: random.Random, text: str) -> str:
    """Put one character that belongs nowhere into a good value."""
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice("\n\t\x00\x1b\u00e9\u0412\u200b\u202e\uff11\ud800") + text[at:]


def bad_number(rng: random.Random) -> object:
    made: list[object] = [
        -rng.random(),
        -rng.randint(0, 10**30),
        rng.randint(10**19, 10**60),
        str(-rng.random()),
        spoiled(rng, str(rng.random())),
        f"{rng.randint(1, 999)},{rng.randint(100, 999)}",
        f"{rng.random()}e{rng.choice('+-')}{rng.randint(100, 9999)}",
        Decimal(f"1e{rng.choice('+-')}{rng.randint(19, 9999)}"),
        rng.choice(BAD_NUMBERS),
    ]
    return rng.choice(made)


def bad_text(rng: random.Random, good: str, curated: list[object]) -> object:
    return rng.choice([spoiled(rng, good), good + "\n", junk(rng) + "\u200b", rng.choice(curated)])


BAD: dict[str, Callable[[random.Random], object]] = {
    "symbol": lambda rng: bad_text(
        rng, rng.choice(SYMBOLS), [*BAD_SYMBOL_TEXTS, *NOT_TEXT, rng.choice(SYMBOLS).lower()]
    ),
    "side": lambda rng: bad_text(rng, rng.choice(["BUY", "SELL"]), [*BAD_SIDES, *NOT_TEXT]),
    "amount": bad_number,
    "type": lambda rng: bad_text(rng, rng.choice(["MARKET", "LIMIT"]), [*BAD_TYPES, *NOT_TEXT]),
    "price": bad_number,
    "client_order_id": lambda rng: bad_text(rng, "order-1", BAD_IDS),
    "reduce_only": lambda rng: rng.choice([rng.randint(-3, 3), rng.choice(BAD_FLAGS), junk(rng)]),
    "decision_id": lambda rng: bad_text(rng, "decision-1", BAD_LABELS),
    "agent_id": lambda rng: bad_text(rng, "agent-1", BAD_LABELS),
    "venue": lambda rng: bad_text(rng, "binance", BAD_NAMES),
    "account": lambda rng: bad_text(rng, "main", BAD_NAMES),
}


def good_order(rng: random.Random) -> dict[str, object]:
    return {
        "symbol": rng.choice(SYMBOLS),
        "side": rng.choice(["BUY", "SELL"]),
        "amount": rng.choice([rng.randint(1, 10**6), rng.uniform(1e-9, 1e9), "0.5", Decimal(2)]),
        "type": "LIMIT",
        "price": rng.choice([rng.randint(1, 10**6), rng.uniform(1e-9, 1e9), "60000.5"]),
        "client_order_id": rng.choice([None, f"id-{rng.getrandbits(64):x}"]),
        "reduce_only": rng.choice([True, False]),
        "decision_id": rng.choice([None, f"decision {rng.getrandbits(64):x}"]),
        "agent_id": rng.choice([None, "agent"]),
        "venue": rng.choice([None, "binance"]),
        "account": rng.choice([None, "default", "sub-1"]),
    }


def test_ten_thousand_generated_malformed_orders_are_all_refused_by_the_right_fields() -> None:
    rng = random.Random(20_240_607)
    for turn in range(GENERATED):
        order = good_order(rng)
        assert validate(order).errors == (), turn
        spoilt = set(rng.sample(sorted(BAD), k=rng.randint(1, 4)))
        for field in spoilt:
            order[field] = BAD[field](rng)
        keyed: dict[Any, object] = dict(order)
        as_order = rng.random() < 0.5
        if not as_order and rng.random() < 0.2:
            keyed[rng.choice(BAD_KEYS)] = junk(rng)

        result = validate(Order(**order) if as_order else keyed)

        assert_refused(result)
        expected = spoilt | ({"order"} if len(keyed) > len(order) else set())
        if order["price"] is None and "type" in spoilt:
            expected -= {"price"}
        assert named(result) == expected, turn


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text()
    | st.binary()
    | st.sampled_from(["BTC/USDT", "BUY", "SELL", "MARKET", "LIMIT", "1"])
)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
field_names = st.sampled_from(sorted(BAD)) | st.text(max_size=8)


@given(anything | st.dictionaries(field_names, anything, max_size=14))
def test_validation_is_total(order: object) -> None:
    result = validate(order)

    if not result:
        assert_refused(result)
        assert result.errors


@given(st.fixed_dictionaries(dict.fromkeys(BAD, anything)))
def test_an_order_that_passes_has_every_bound(fields: dict[str, Any]) -> None:
    checked = validate(Order(**fields)).checked

    if checked is not None:
        assert checked.amount > 0
        assert (checked.price is None) == (checked.type is OrderType.MARKET)


@given(
    symbol=st.sampled_from(SYMBOLS),
    amount=st.decimals("1e-12", "1e12", places=12),
    price=st.floats(1e-9, 1e9),
)
def test_numbers_pass_through_unchanged(symbol: str, amount: Decimal, price: float) -> None:
    checked = validate(limit_order(symbol=symbol, amount=amount, price=price)).checked

    assert checked is not None
    assert checked.amount == amount
    assert checked.price == Decimal(repr(price))
