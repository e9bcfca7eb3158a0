"""Numbers are read exactly and strictly, and written in one canonical way."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hostile_objects import HostileDecimal, HostileFloat, HostileInt
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain.money import EXACT, ZERO, NotANumber, plain, to_decimal, to_micros

accepted = st.decimals(
    min_value=Decimal("-1e18"), max_value=Decimal("1e18"), allow_nan=False, places=12
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "1"),
        (-5, "-5"),
        (0.1, "0.1"),
        (1e-7, "1E-7"),
        (Decimal("1.50"), "1.50"),
        ("1.5", "1.5"),
        ("+1.5", "1.5"),
        ("-1.5", "-1.5"),
        (".5", "0.5"),
        ("1.", "1"),
        ("1e5", "1E+5"),
        ("1E-5", "0.00001"),
        ("0001", "1"),
        ("1e18", "1E+18"),
        ("1e-18", "1E-18"),
        ("9.99e18", "9.99E+18"),
        ("1" * 19, "1" * 19),
        ("0." + "1" * 40, "0." + "1" * 40),
    ],
)
def test_a_plain_number_is_read_exactly(value: object, expected: str) -> None:
    number = to_decimal(value)

    assert type(number) is Decimal
    assert str(number) == expected


@pytest.mark.parametrize("value", [0, 0.0, -0.0, "0", "-0", "0e999", Decimal("-0E-999999")])
def test_every_zero_is_the_one_zero(value: object) -> None:
    assert to_decimal(value) is ZERO


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (True, "is a truth value, not a number"),
        (False, "is a truth value, not a number"),
        (None, "is not a number but of type NoneType"),
        (b"1", "is not a number but of type bytes"),
        (1j, "is not a number but of type complex"),
        (float("nan"), "is not finite"),
        (float("-inf"), "is not finite"),
        (Decimal("sNaN"), "is not finite"),
        (1 << 256, "is too large to be a quantity"),
        ((1 << 256) - 1, "is beyond 10^18 in magnitude"),
        ("1e19", "is beyond 10^18 in magnitude"),
        ("1e-19", "is beyond 10^18 in magnitude"),
        (Decimal("1E+999999999"), "is beyond 10^18 in magnitude"),
        (5e-324, "is beyond 10^18 in magnitude"),
        ("0." + "1" * 41, "has more than 40 significant digits"),
        (Decimal("1." + "0" * 2_000_000), "has more than 40 significant digits"),
        ("1" * 65, "has more than 64 characters"),
        ("1" * 64, "is beyond 10^18 in magnitude"),
        ("1,000", "is not a plain decimal number"),
        ("1_000", "is not a plain decimal number"),
        ("1\n", "is not a plain decimal number"),
        (" 1", "is not a plain decimal number"),
        ("\uff11", "is not a plain decimal number"),
        ("NaN", "is not a plain decimal number"),
        ("1e1000", "is not a plain decimal number"),
        ("", "is not a plain decimal number"),
    ],
)
def test_what_only_looks_like_a_number_is_refused_with_a_reason(
    value: object, problem: str
) -> None:
    with pytest.raises(NotANumber) as caught:
        to_decimal(value)

    assert str(caught.value) == problem


def test_a_subclass_is_read_through_the_built_in_and_not_through_its_overrides() -> None:
    assert to_decimal(HostileFloat(2.5)) == Decimal("2.5")
    assert to_decimal(HostileInt(-7)) == -7
    assert type(to_decimal(HostileDecimal("2"))) is Decimal


def test_the_reader_does_not_depend_on_the_callers_context() -> None:
    with localcontext() as context:
        context.prec = 3

        assert to_decimal("1.23456789") == Decimal("1.23456789")
        assert plain(Decimal("1.23456789")) == "1.23456789"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0", "0"),
        ("-0.00", "0"),
        ("0E+5", "0"),
        ("100", "100"),
        ("1E+5", "100000"),
        ("1.500", "1.5"),
        ("-2.0", "-2"),
        ("1E-7", "0.0000001"),
    ],
)
def test_a_number_is_written_without_exponent_or_trailing_zeros(number: str, text: str) -> None:
    assert plain(Decimal(number)) == text


@pytest.mark.parametrize(
    ("amount", "micros"),
    [
        ("0", 0),
        ("1", 1_000_000),
        ("-1", -1_000_000),
        ("0.000001", 1),
        ("0.0000001", 1),
        ("-0.0000001", -1),
        ("1.0000001", 1_000_001),
        ("-1.0000009", -1_000_001),
    ],
)
def test_micros_are_rounded_away_from_zero(amount: str, micros: int) -> None:
    assert to_micros(Decimal(amount)) == micros


@given(accepted)
def test_writing_and_reading_a_number_changes_nothing(number: Decimal) -> None:
    assert to_decimal(plain(number)) == number


@given(accepted)
def test_micros_never_understate(number: Decimal) -> None:
    off = EXACT.subtract(Decimal(abs(to_micros(number))), EXACT.multiply(abs(number), 1_000_000))

    assert 0 <= off < 1


@given(st.floats(min_value=1e-15, max_value=1e15))
def test_a_float_is_its_shortest_text(number: float) -> None:
    assert to_decimal(number) == Decimal(repr(number))


def test_sums_of_products_of_the_most_extreme_numbers_are_exact() -> None:
    large, small = Decimal("9" * 19), Decimal(f"1.{'0' * 38}1e-18")
    assert (to_decimal(large), to_decimal(small)) == (large, small)

    product = EXACT.multiply(small, small)
    total = EXACT.fma(large, large, product)

    assert EXACT.subtract(total, EXACT.multiply(large, large)) == product
    assert len(product.as_tuple().digits) == 79
