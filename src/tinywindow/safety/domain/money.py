"""Numbers: money and quantities are exact decimals, read strictly and never rounded unasked.

`to_decimal` is the only way in. It accepts `Decimal`, `int`, `float` (read through its shortest
representation) and plain ASCII decimal text; it refuses what only looks like a number: `bool`,
bytes, NaN, infinities, full-width digits, separators, surrounding blanks and absurd magnitudes.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow, Rounded
from typing import Final, cast

from tinywindow.safety.domain.text import exact_text, is_kind, type_name

__all__ = [
    "EXACT",
    "HUNDRED",
    "MICRO",
    "ONE",
    "ZERO",
    "NotANumber",
    "plain",
    "to_decimal",
    "to_micros",
]

ZERO: Final = Decimal(0)
ONE: Final = Decimal(1)
HUNDRED: Final = Decimal(100)
MICRO: Final = Decimal(1_000_000)

DIGITS_MAX: Final = 40
"""Significant digits accepted; a product of two such numbers is still exact in `EXACT`."""
MAGNITUDE_MAX: Final = 18
"""Largest power of ten accepted, above and below one."""
TEXT_CHARS_MAX: Final = 64
INT_BITS_MAX: Final = 256

EXACT: Final = Context(prec=160, traps=[InvalidOperation, DivisionByZero, Overflow])
"""Arithmetic in which sums of products of accepted numbers are exact. Use as a local context."""

_SIGNIFICANT: Final = Context(prec=DIGITS_MAX, traps=[Rounded])

_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


class NotANumber(ValueError):
    """The value is not a finite number that TinyWindow accepts; the message says why."""


def to_decimal(value: object) -> Decimal:
    """Read `value` as an exact, finite decimal.

    Raises:
        NotANumber: for `bool`, bytes, NaN, infinities, text that is not a plain ASCII number,
            more than 40 significant digits, or a magnitude beyond 10^±18.
    """
    if value is True or value is False:
        raise NotANumber("is a truth value, not a number")
    # Subclasses are read through the built-in's own methods, never through their overrides:
    # numpy's float64 is a float whose `repr` is no number.
    if is_kind(value, Decimal):
        return _bounded(Decimal(cast("Decimal", value)))
    if is_kind(value, int):
        return _bounded(_from_int(int.__int__(cast("int", value))))
    if is_kind(value, float):
        return _bounded(Decimal(float.__repr__(cast("float", value))))
    text = exact_text(value)
    if text is None:
        raise NotANumber(f"is not a number but of type {type_name(value)}")
    return _bounded(_from_text(text))


def _from_int(value: int) -> Decimal:
    if value.bit_length() > INT_BITS_MAX:
        raise NotANumber("is too large to be a quantity")
    return Decimal(value)


def _from_text(value: str) -> Decimal:
    if len(value) > TEXT_CHARS_MAX:
        raise NotANumber(f"has more than {TEXT_CHARS_MAX} characters")
    if not _NUMBER.fullmatch(value):
        raise NotANumber("is not a plain decimal number")
    return Decimal(value)


def _bounded(number: Decimal) -> Decimal:
    if not number.is_finite():
        raise NotANumber("is not finite")
    if number.is_zero():
        return ZERO
    # The magnitude goes first: it is cheap, and it keeps the digits within the context's range.
    if abs(number.adjusted()) > MAGNITUDE_MAX:
        raise NotANumber(f"is beyond 10^{MAGNITUDE_MAX} in magnitude")
    try:
        return _SIGNIFICANT.plus(number)
    except Rounded:
        raise NotANumber(f"has more than {DIGITS_MAX} significant digits") from None


def plain(number: Decimal) -> str:
    """Write a decimal without exponent and without trailing zeros; `0` for every zero.

    This is the canonical text of a number in audit rows, JSON and the database.
    """
    if number.is_zero():
        return "0"
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def to_micros(amount: Decimal) -> int:
    """Round a USD amount up, away from zero, to whole millionths, for guarded sums in the store.

    Rounding away from zero keeps the database's second check on the cautious side.
    """
    scaled = EXACT.multiply(amount, MICRO)
    whole = int(scaled)
    if scaled == whole:
        return whole
    return whole + 1 if scaled > 0 else whole - 1
