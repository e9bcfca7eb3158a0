"""Verdicts: what the safety layer answers, always as a value with its evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from tinywindow.safety.domain.money import plain

__all__ = ["Breach", "Reason", "Refusal"]


class Reason(StrEnum):
    """Every reason for which an order may be refused: a closed set, part of the API."""

    KILL_SWITCH_ACTIVE = "KILL_SWITCH_ACTIVE"
    CIRCUIT_BREAKER_TRIPPED = "CIRCUIT_BREAKER_TRIPPED"
    TRADING_STOPPED = "TRADING_STOPPED"
    STATE_UNKNOWN = "STATE_UNKNOWN"
    METRIC_UNKNOWN = "METRIC_UNKNOWN"
    MONITOR_STALE = "MONITOR_STALE"
    CLOCK_UNTRUSTED = "CLOCK_UNTRUSTED"
    STORE_ROLLED_BACK = "STORE_ROLLED_BACK"
    LEDGER_BUSY = "LEDGER_BUSY"
    TRADE_VELOCITY = "TRADE_VELOCITY"
    VALIDATION_FAILED = "VALIDATION_FAILED"
    DUPLICATE_ORDER_ID = "DUPLICATE_ORDER_ID"
    DUPLICATE_DECISION = "DUPLICATE_DECISION"
    SYMBOL_NOT_ALLOWED = "SYMBOL_NOT_ALLOWED"
    PRICE_UNAVAILABLE = "PRICE_UNAVAILABLE"
    PRICE_COLLAR = "PRICE_COLLAR"
    INSUFFICIENT_POSITION = "INSUFFICIENT_POSITION"
    REDUCE_ONLY = "REDUCE_ONLY"
    POSITION_CLOSING = "POSITION_CLOSING"
    POSITION_STALE = "POSITION_STALE"
    POSITION_SIZE = "POSITION_SIZE"
    TOTAL_EXPOSURE = "TOTAL_EXPOSURE"
    LEVERAGE = "LEVERAGE"
    SECTOR_EXPOSURE = "SECTOR_EXPOSURE"
    APPROVAL_EXPIRED = "APPROVAL_EXPIRED"
    LIMITS_DIFFER = "LIMITS_DIFFER"
    INTERNAL_ERROR = "INTERNAL_ERROR"


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule that an order breaks: its code, a sentence, and the evidence.

    Attributes:
        code: the rule.
        message: what was wanted and what was seen, in words.
        limit: the bound in force, or None where the rule has no number.
        observed: the value measured against it, or None where it could not be measured.
        unit: the unit of both, such as ``USD``, ``%``, ``x`` or ``s``.
    """

    code: Reason
    message: str
    limit: Decimal | None = None
    observed: Decimal | None = None
    unit: str = ""

    @property
    def sentence(self) -> str:
        """The breach as one sentence that starts with its code."""
        return f"{self.code.value}: {self.message}"

    def to_data(self) -> dict[str, str | None]:
        """The breach as plain data for audit rows and JSON; decimals are text."""
        return {
            "code": self.code.value,
            "message": self.message,
            "limit": None if self.limit is None else plain(self.limit),
            "observed": None if self.observed is None else plain(self.observed),
            "unit": self.unit,
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an order is refused: every rule that it breaks, the one that decides named first."""

    breaches: tuple[Breach, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.breaches:
            raise ValueError("a refusal names at least one rule")

    @property
    def reason_code(self) -> Reason:
        """The rule that decides."""
        return self.breaches[0].code

    @property
    def reason(self) -> str:
        """The deciding rule as a sentence that starts with its code."""
        return self.breaches[0].sentence
