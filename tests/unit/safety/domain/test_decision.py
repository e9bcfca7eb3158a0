"""Verdicts: a refusal names every rule with its evidence, and the deciding one first."""

from __future__ import annotations

from decimal import Decimal as D

import pytest

from tinywindow.safety.domain.decision import Breach, Reason, Refusal

SIZE = Breach(
    Reason.POSITION_SIZE, "too large", limit=D("1E+4"), observed=D("10000.10"), unit="USD"
)
UNKNOWN = Breach(Reason.LEVERAGE, "equity is unknown")


def test_a_breach_is_a_sentence_that_starts_with_its_code() -> None:
    assert SIZE.sentence == "POSITION_SIZE: too large"


def test_a_breach_is_plain_data_with_decimals_as_text() -> None:
    assert SIZE.to_data() == {
        "code": "POSITION_SIZE",
        "message": "too large",
        "limit": "10000",
        "observed": "10000.1",
        "unit": "USD",
    }


def test_what_could_not_be_measured_is_absent_and_not_zero() -> None:
    data = UNKNOWN.to_data()

    assert data["limit"] is None
    assert data["observed"] is None
    assert Breach(Reason.LEVERAGE, "", limit=D(0), observed=D(0)).to_data()["observed"] == "0"


def test_the_first_breach_decides() -> None:
    refusal = Refusal((SIZE, UNKNOWN))

    assert refusal.reason_code is Reason.POSITION_SIZE
    assert refusal.reason == SIZE.sentence
    assert refusal.breaches == (SIZE, UNKNOWN)


def test_a_refusal_without_a_rule_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="at least one rule"):
        Refusal()
    with pytest.raises(ValueError, match="at least one rule"):
        Refusal(())


def test_the_reasons_are_their_own_names() -> None:
    assert all(reason.value == reason.name for reason in Reason)
