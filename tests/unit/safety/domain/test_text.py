"""Values from outside are quoted harmlessly, whatever they are."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hostile_objects import HOSTILE, HostileText, LyingNumber
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain.text import exact_text, is_kind, shown, type_name

LONGEST = 83


def is_harmless(text: str) -> bool:
    return text.isascii() and text.isprintable() and len(text) <= LONGEST


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("BTC", "'BTC'"),
        ("a\nb", r"'a\nb'"),
        ("\u0412", r"'\u0412'"),
        ("\ud800", r"'\ud800'"),
        ("x" * 40, "'" + "x" * 40 + "'"),
        ("x" * 41, "'" + "x" * 40 + "'..."),
        ("\U0001f680" * 100, ("'" + r"\U0001f680" * 40)[:80] + "..."),
        (None, "None"),
        (True, "True"),
        (False, "False"),
        (7, "7"),
        (-(10**50), "-1" + "0" * 38 + "..."),
        ((1 << 256) - 1, str((1 << 256) - 1)[:40] + "..."),
        (1 << 256, "<int of 257 bits>"),
        (0.1, "0.1"),
        (float("nan"), "nan"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1" * 41), "1" * 40 + "..."),
        (b"x", "<bytes>"),
        ([1], "<list>"),
    ],
)
def test_a_value_is_quoted_clipped_or_named_by_its_type(value: object, expected: str) -> None:
    assert shown(value) == expected


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_a_hostile_object_is_named_and_never_asked(index: int) -> None:
    value = HOSTILE[index]

    assert shown(value).startswith("<")
    assert is_harmless(shown(value))


def test_a_long_type_name_is_clipped_and_escaped() -> None:
    value = type("line\nbreak" * 10, (), {})()

    assert type_name(value) == (r"line\nbreak" * 10)[:40] + "..."
    assert type_name(type("N" * 40, (), {})()) == "N" * 40
    assert type_name(type("N" * 41, (), {})()) == "N" * 40 + "..."


def test_text_that_lies_about_itself_is_read_as_what_it_holds() -> None:
    text = exact_text(HostileText("HODL"))

    assert text == "HODL"
    assert type(text) is str


def test_what_is_not_text_has_no_exact_text() -> None:
    assert exact_text(b"BUY") is None


def test_a_kind_is_the_real_one() -> None:
    flag: object = True

    assert is_kind(flag, int)
    assert not is_kind(1, str)
    assert not is_kind(LyingNumber(), Decimal)


@given(st.text() | st.integers() | st.floats() | st.decimals() | st.binary() | st.none())
def test_a_quotation_is_one_short_line_of_printable_ascii(value: object) -> None:
    assert is_harmless(shown(value))
