"""The approval: sealed, for one order, once, and only after a last look."""

from __future__ import annotations

from decimal import Decimal as D

import pytest

from tinywindow.safety.domain.approval import (
    APPROVAL_TTL_MS,
    ApprovalVoid,
    Approved,
    expired,
    mint,
)
from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.domain.order import CheckedOrder, OrderType, Side
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.errors import InvariantBroken

ORDER = CheckedOrder(
    symbol=parse_symbol("BTC/USDT"),
    side=Side.BUY,
    amount=D(1),
    type=OrderType.MARKET,
    price=None,
    client_order_id="c1",
    reduce_only=False,
    decision_id=None,
    agent_id=None,
    venue="paper",
    account="default",
)
STOPPED = Refusal((Breach(Reason.KILL_SWITCH_ACTIVE, "a stop came"),))


def test_an_approval_gives_out_exactly_its_order() -> None:
    approved = mint(ORDER, reduce_only=True, epoch=7, last_look=lambda: None)

    assert not approved.redeemed
    assert approved.redeem() is ORDER
    assert approved.redeemed
    assert (approved.reduce_only, approved.epoch) == (True, 7)


def test_an_approval_is_used_once() -> None:
    looks: list[int] = []

    def look() -> Refusal | None:
        looks.append(1)
        return None

    approved = mint(ORDER, reduce_only=False, epoch=0, last_look=look)
    approved.redeem()

    with pytest.raises(InvariantBroken, match="c1 was used twice"):
        approved.redeem()
    assert len(looks) == 1


def test_a_stop_at_the_last_look_gives_out_nothing() -> None:
    approved = mint(ORDER, reduce_only=False, epoch=0, last_look=lambda: STOPPED)

    with pytest.raises(ApprovalVoid, match="KILL_SWITCH_ACTIVE: a stop came") as void:
        approved.redeem()
    assert void.value.refusal is STOPPED
    assert not approved.redeemed


def test_a_last_look_that_fails_gives_out_nothing() -> None:
    def look() -> Refusal | None:
        raise OSError("the store is gone")

    approved = mint(ORDER, reduce_only=False, epoch=0, last_look=look)

    with pytest.raises(OSError, match="gone"):
        approved.redeem()
    assert not approved.redeemed


@pytest.mark.parametrize("seal", [None, object(), True, "seal"])
def test_nobody_else_makes_an_approval(seal: object) -> None:
    with pytest.raises(InvariantBroken, match="by nobody else"):
        Approved(seal, ORDER, reduce_only=False, epoch=0, last_look=lambda: None)


def test_an_approval_has_no_room_for_anything_else() -> None:
    approved = mint(ORDER, reduce_only=False, epoch=0, last_look=lambda: None)

    with pytest.raises(AttributeError):
        approved.extra = 1  # type: ignore[attr-defined]


def test_an_expired_approval_says_so() -> None:
    assert expired().reason_code is Reason.APPROVAL_EXPIRED
    assert APPROVAL_TTL_MS == 250


def test_an_approval_that_was_refused_once_is_void_for_good() -> None:
    answers = [STOPPED, None]
    approved = mint(ORDER, reduce_only=False, epoch=0, last_look=lambda: answers.pop(0))

    with pytest.raises(ApprovalVoid):
        approved.redeem()
    with pytest.raises(InvariantBroken):
        approved.redeem()
    assert not approved.redeemed
