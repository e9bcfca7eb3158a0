"""What `OrderGate.submit` answers: an outcome of a send, or a refusal; never an exception."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.domain.money import ZERO
from tinywindow.safety.domain.records import HoldState

__all__ = ["ApprovedInPrinciple", "LimitResult", "Outcome", "Refused", "invalid"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an order that was approved.

    Attributes:
        client_order_id: the id under which it was sent.
        status: ``ACCEPTED`` (the venue has it or filled it), ``REJECTED`` (the venue's word; the
            reservation was returned) or ``UNKNOWN`` (held and reconciled, never sent again).
        filled: base units filled so far; `average_price` and `fee` in quote units.
        message: the venue's words, where it said any.
    """

    client_order_id: str
    status: str
    state: HoldState
    filled: Decimal = ZERO
    average_price: Decimal | None = None
    fee: Decimal = ZERO
    venue_order_id: str | None = None
    message: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the venue took the order."""
        return self.status == "ACCEPTED"


@dataclass(frozen=True, slots=True)
class Refused:
    """The order was refused by the safety layer; nothing was sent.

    `breaches` lists every rule that it breaks, the one that decides first.
    """

    client_order_id: str | None
    breaches: tuple[Breach, ...]

    @classmethod
    def of(cls, refusal: Refusal, client_order_id: str | None) -> Refused:
        """Give a refusal its order."""
        return cls(client_order_id, refusal.breaches)

    @property
    def accepted(self) -> bool:
        """Always False: nothing was sent."""
        return False

    @property
    def reason_code(self) -> Reason:
        """The rule that decides."""
        return self.breaches[0].code

    @property
    def rejection_reason(self) -> str:
        """The deciding rule as a sentence that starts with its code."""
        return self.breaches[0].sentence


@dataclass(frozen=True, slots=True)
class LimitResult:
    """Whether an order is allowed; a thin view on the verdict.

    Attributes:
        allowed: True when the order's exposure is now held under `client_order_id`.
        breaches: every rule that the order breaks, the one that decides first.
        client_order_id: the id under which it is held; None when it was not even valid.
    """

    allowed: bool
    client_order_id: str | None
    breaches: tuple[Breach, ...] = ()

    @property
    def rejection_reason(self) -> str | None:
        """The deciding rule as a sentence that starts with its code; None when allowed."""
        return self.breaches[0].sentence if self.breaches else None

    @property
    def reason_code(self) -> Reason | None:
        """The rule that decides; None when allowed."""
        return self.breaches[0].code if self.breaches else None


def invalid(errors: tuple[str, ...]) -> tuple[Breach, ...]:
    """The breaches of an order that is not valid, one for each violation."""
    return tuple(Breach(Reason.VALIDATION_FAILED, sentence) for sentence in errors)


@dataclass(frozen=True, slots=True)
class ApprovedInPrinciple:
    """What `evaluate` answers when nothing in memory speaks against the order.

    It holds nothing and may not be sent: `submit` decides again.
    """

    client_order_id: str
    reduces: bool
