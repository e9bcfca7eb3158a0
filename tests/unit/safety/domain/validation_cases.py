"""What the tests of validation share: orders, a call with defaults, and what a refusal is."""

from __future__ import annotations

from typing import Any

from malformed_orders import LIMIT_ORDER, MARKET_ORDER

from tinywindow.safety.domain.validation import ValidationResult, validate_order

__all__ = [
    "NEW_ID",
    "SYMBOLS",
    "assert_refused",
    "limit_order",
    "market_order",
    "named",
    "validate",
]

NEW_ID = "TW0123456789ABCDEF"
SENTENCE_CHARS_MAX = 4_000

SYMBOLS = [
    *("BTC/USDT", "1INCH/USDT", "T/USDT", "USDC.E/USDT", "BTC/USDT:USDT", "1000PEPE/USDT:USDT"),
    *("BTC/USD:USDC", "XYZ-TSLA/USDC:USDC", "BTC/USD:BTC", "BTC/USD:BTC-241227"),
    *("BTC/USDT:USDT-241227", "BTC/USD:BTC-241227-60000-C", "XRP/USD:XRP-241227-0.55-P"),
]


def validate(order: object, **options: Any) -> ValidationResult:
    return validate_order(order, **{"default_venue": "paper", "new_id": lambda: NEW_ID, **options})


def market_order(**fields: object) -> dict[str, object]:
    return {**MARKET_ORDER, **fields}


def limit_order(**fields: object) -> dict[str, object]:
    return {**LIMIT_ORDER, **fields}


def named(result: ValidationResult) -> set[str]:
    return {sentence.split(" ")[0] for sentence in result.errors}


def assert_refused(result: ValidationResult) -> None:
    assert not result.is_valid
    assert not result
    assert result.order is None
    assert result.checked is None
    for sentence in result.errors:
        assert sentence.isascii()
        assert sentence.isprintable()
        assert "; wanted " in sentence
        assert len(sentence) <= SENTENCE_CHARS_MAX
