"""The approval: the only thing that an exchange takes.

An `Approved` is sealed, single use and expiring. It is minted only by the gate and by the
flattener (a test holds the list of callers), and it carries the last look with it: the adapter
calls `redeem()` in the same loop turn in which it sends, so that no await lies between the
look and the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.errors import InvariantBroken

__all__ = ["APPROVAL_TTL_MS", "ApprovalVoid", "Approved", "mint"]

APPROVAL_TTL_MS: Final = 250
"""Milliseconds between the approval's commit and the last moment at which it may be sent."""

_SEAL: Final = object()


class ApprovalVoid(Exception):  # not a fault: it carries a refusal to the gate
    """The last look said no; nothing was sent. `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.reason)


@final
class Approved:
    """Permission to send exactly one order, once, now.

    Attributes:
        order: the order that may be sent, and no other.
        reduce_only: whether it must be sent so that it can only shrink a position.
        epoch: the stop epoch at which it was approved.
    """

    __slots__ = ("_last_look", "_redeemed", "_void", "epoch", "order", "reduce_only")

    def __init__(
        self,
        seal: object,
        order: CheckedOrder,
        *,
        reduce_only: bool,
        epoch: int,
        last_look: Callable[[], Refusal | None],
    ) -> None:
        if seal is not _SEAL:
            raise InvariantBroken("an approval is minted by the gate and by nobody else")
        self.order = order
        self.reduce_only = reduce_only
        self.epoch = epoch
        self._last_look = last_look
        self._redeemed = False
        self._void = False

    def redeem(self) -> CheckedOrder:
        """Take the last look and give out the order, once.

        Raises:
            ApprovalVoid: a stop came, or the approval expired; nothing may be sent.
            InvariantBroken: it was redeemed before.
        """
        if self._redeemed or self._void:
            raise InvariantBroken(f"approval of {self.order.client_order_id} was used twice")
        refusal = self._last_look()
        if refusal is not None:
            self._void = True
            raise ApprovalVoid(refusal)
        self._redeemed = True
        return self.order

    @property
    def redeemed(self) -> bool:
        """Whether the order was given out to be sent."""
        return self._redeemed


def mint(
    order: CheckedOrder,
    *,
    reduce_only: bool,
    epoch: int,
    last_look: Callable[[], Refusal | None],
) -> Approved:
    """Mint an approval. Called by the gate and by the flattener only."""
    return Approved(_SEAL, order, reduce_only=reduce_only, epoch=epoch, last_look=last_look)


def expired() -> Refusal:
    """The refusal for an approval that was not sent in time."""
    return Refusal(
        (Breach(Reason.APPROVAL_EXPIRED, "the approval expired before it could be sent"),)
    )
