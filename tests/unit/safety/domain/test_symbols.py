"""There is one spelling of a market; whatever else is refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import date
from decimal import Decimal

import pytest
from hostile_objects import HostileText
from hypothesis import given
from hypothesis import strategies as st
from malformed_orders import BAD_SYMBOL_TEXTS, NOT_TEXT

from tinywindow.safety.domain.symbols import (
    SYMBOL_CHARS_MAX,
    BadSymbol,
    MarketType,
    Symbol,
    parse_symbol,
)

SPOT, PERPETUAL = MarketType.SPOT, MarketType.PERPETUAL
FUTURE, OPTION = MarketType.FUTURE, MarketType.OPTION
DAY = date(2024, 12, 27)

ROWS = [
    (Symbol("BTC/USDT", "BTC", "USDT"), SPOT),
    (Symbol("1INCH/USDT", "1INCH", "USDT"), SPOT),
    (Symbol("T/USDT", "T", "USDT"), SPOT),
    (Symbol("USDC.E/USDT", "USDC.E", "USDT"), SPOT),
    (Symbol("BTC/USDT:USDT", "BTC", "USDT", "USDT"), PERPETUAL),
    (Symbol("1000PEPE/USDT:USDT", "1000PEPE", "USDT", "USDT"), PERPETUAL),
    (Symbol("BTC/USD:USDC", "BTC", "USD", "USDC"), PERPETUAL),
    (Symbol("XYZ-TSLA/USDC:USDC", "XYZ-TSLA", "USDC", "USDC"), PERPETUAL),
    (Symbol("BTC/USD:BTC", "BTC", "USD", "BTC"), PERPETUAL),
    (Symbol("BTC/USD:BTC-241227", "BTC", "USD", "BTC", DAY), FUTURE),
    (Symbol("BTC/USDT:USDT-241227", "BTC", "USDT", "USDT", DAY), FUTURE),
    (
        Symbol("BTC/USD:BTC-241227-60000-C", "BTC", "USD", "BTC", DAY, Decimal(60000), "C"),
        OPTION,
    ),
    (
        Symbol("XRP/USD:XRP-241227-0.55-P", "XRP", "USD", "XRP", DAY, Decimal("0.55"), "P"),
        OPTION,
    ),
]


def parts(symbol: Symbol) -> tuple[object, ...]:
    return (
        symbol.text,
        symbol.base,
        symbol.quote,
        symbol.settle,
        symbol.expiry,
        symbol.strike,
        symbol.option,
    )


@pytest.mark.parametrize(("expected", "market"), ROWS, ids=[row[0].text for row in ROWS])
def test_every_kind_of_unified_symbol_is_read(expected: Symbol, market: MarketType) -> None:
    symbol = parse_symbol(expected.text)

    assert parts(symbol) == parts(expected)
    assert symbol.market is market
    assert symbol.is_spot is (market is SPOT)


@pytest.mark.parametrize(
    "text",
    ["BTC/USD:BTC-240229", "BTC/USD:BTC-000101", "BTC/USD:BTC-681231", f"{'A' * 25}/{'B' * 12}"],
)
def test_the_last_value_within_a_bound_is_read(text: str) -> None:
    assert parse_symbol(text).text == text


UNREADABLE = [*BAD_SYMBOL_TEXTS, *NOT_TEXT, None]


@pytest.mark.parametrize("index", range(len(UNREADABLE)))
def test_anything_else_is_refused_in_one_short_line(index: int) -> None:
    with pytest.raises(BadSymbol) as caught:
        parse_symbol(UNREADABLE[index])

    sentence = str(caught.value)
    assert sentence.isascii()
    assert sentence.isprintable()
    assert len(sentence) < 250


@pytest.mark.parametrize(
    ("text", "problem", "wanted"),
    [
        (
            "BTCUSDT",
            "is not a unified symbol",
            "BASE/QUOTE or BASE/QUOTE:SETTLE in upper case, such as BTC/USDT",
        ),
        ("BTC/BTC", "trades BTC for itself", "two different assets"),
        (
            "BTC/USDT:ETH",
            "settles in ETH",
            "BTC, USDT or a known stable coin after the colon",
        ),
        (
            "BTC/USD:BTC-241327",
            "expires on 241327, which is no day from 2000 to 2068",
            "YYMMDD",
        ),
        (
            "BTC/USD:BTC-241227-01-C",
            "has the strike 01",
            "a number above zero without leading or trailing zeros",
        ),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_is_wanted(
    text: str, problem: str, wanted: str
) -> None:
    with pytest.raises(BadSymbol) as caught:
        parse_symbol(text)

    assert str(caught.value) == f"'{text}' {problem}; wanted {wanted}"


def test_text_is_bounded_before_it_is_matched() -> None:
    with pytest.raises(BadSymbol, match="not a unified symbol"):
        parse_symbol("A" * SYMBOL_CHARS_MAX)
    with pytest.raises(BadSymbol) as caught:
        parse_symbol("A" * (SYMBOL_CHARS_MAX + 1))

    quoted = "'" + "A" * 40 + "'..."
    assert str(caught.value) == (
        f"{quoted} has 93 characters; wanted a unified symbol of at most 92"
    )


def test_the_longest_symbol_fits_within_the_bound() -> None:
    strike = "1" * 15 + "." + "1" * 15
    text = f"{'A' * 25}/{'B' * 12}:{'B' * 12}-241227-{strike}-C"

    assert parse_symbol(text).strike == Decimal(strike)
    assert len(text) == SYMBOL_CHARS_MAX


def test_a_subclass_of_text_is_read_as_plain_text() -> None:
    symbol = parse_symbol(HostileText("BTC/USDT"))

    assert type(symbol.text) is str
    assert symbol == parse_symbol("BTC/USDT")


def test_symbols_are_equal_ordered_and_hashed_by_their_text() -> None:
    spot, perpetual = parse_symbol("BTC/USDT"), parse_symbol("BTC/USDT:USDT")

    assert sorted([perpetual, spot]) == [spot, perpetual]
    assert {spot, parse_symbol("BTC/USDT")} == {spot}
    assert spot != perpetual


def test_a_symbol_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        parse_symbol("BTC/USDT").base = "ETH"  # type: ignore[misc]


@given(st.text() | st.from_regex(r"[A-Z0-9.:/-]{0,30}"))
def test_text_is_read_unchanged_or_refused(text: str) -> None:
    try:
        symbol = parse_symbol(text)
    except BadSymbol:
        return
    assert symbol.text == text
    assert spelled(symbol) == text


@given(
    base=st.from_regex(r"[A-Z0-9][A-Z0-9.\-]{0,24}", fullmatch=True),
    settles=st.booleans(),
    day=st.none() | st.dates(date(2000, 1, 1), date(2068, 12, 31)),
    strike=st.none() | st.integers(1, 10**9),
    option=st.sampled_from("CP"),
)
def test_what_is_spelled_from_parts_is_read_into_the_same_parts(
    *, base: str, settles: bool, day: date | None, strike: int | None, option: str
) -> None:
    if not settles:
        day = None
    if day is None:
        strike = None
    text = f"{base}/USDX" + (":USDX" if settles else "")
    text += "" if day is None else f"-{day:%y%m%d}"
    text += "" if strike is None else f"-{strike}-{option}"

    symbol = parse_symbol(text)

    assert (symbol.base, symbol.expiry, symbol.strike) == (base, day, strike)
    assert spelled(symbol) == text


def spelled(symbol: Symbol) -> str:
    text = f"{symbol.base}/{symbol.quote}"
    text += f":{symbol.settle}" if symbol.settle else ""
    text += f"-{symbol.expiry:%y%m%d}" if symbol.expiry else ""
    return text + (f"-{symbol.strike:f}-{symbol.option}" if symbol.strike else "")
