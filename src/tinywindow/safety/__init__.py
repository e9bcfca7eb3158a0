"""The front door: the names that programs use, loaded at their first use.

Nothing is computed here. Importing this package loads none of its modules, so that the command
`tinywindow kill` and a program's start stay quick.
"""

from __future__ import annotations

# Type checkers take this name for true; `typing` itself would cost a tenth of the time that the
# command `kill` has.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from tinywindow.safety.config import (
        CircuitBreakerConfig,
        KillSwitchConfig,
        PositionLimits,
    )
    from tinywindow.safety.domain.admission import Admitted
    from tinywindow.safety.domain.breaker import Metric, MetricReading, MetricState
    from tinywindow.safety.domain.decision import Breach, Reason, Refusal
    from tinywindow.safety.domain.kill import KillState, KillSwitchMode
    from tinywindow.safety.domain.order import Order, OrderType, Side
    from tinywindow.safety.domain.prompts.inspection import Inspection
    from tinywindow.safety.domain.validation import ValidationResult
    from tinywindow.safety.errors import (
        ConfigurationError,
        LimitsDiffer,
        ReleaseRefused,
        ResetRefused,
        SafetyError,
        StartRefused,
        StoreUnavailable,
    )
    from tinywindow.safety.services.breaker_status import CircuitBreakerStatus
    from tinywindow.safety.services.capacity import Capacity
    from tinywindow.safety.services.circuit_breaker import CircuitBreaker
    from tinywindow.safety.services.gate import OrderGate
    from tinywindow.safety.services.kill_report import KillReport, KillSwitchStatus, VenueReport
    from tinywindow.safety.services.kill_switch import KillSwitch
    from tinywindow.safety.services.monitor import run_circuit_breaker_monitor
    from tinywindow.safety.services.order_validator import OrderValidator
    from tinywindow.safety.services.outcome import ApprovedInPrinciple, Outcome, Refused
    from tinywindow.safety.services.pending_reset import PendingReset
    from tinywindow.safety.services.position_limits import LimitResult, PositionLimitEnforcer
    from tinywindow.safety.services.prompt_sanitizer import PromptSanitizer
    from tinywindow.safety.services.release import PendingRelease

_HOMES = {
    "Admitted": "domain.admission",
    "ApprovedInPrinciple": "services.outcome",
    "Breach": "domain.decision",
    "Capacity": "services.capacity",
    "CircuitBreaker": "services.circuit_breaker",
    "CircuitBreakerConfig": "config",
    "CircuitBreakerStatus": "services.breaker_status",
    "ConfigurationError": "errors",
    "Inspection": "domain.prompts.inspection",
    "KillReport": "services.kill_report",
    "KillState": "domain.kill",
    "KillSwitch": "services.kill_switch",
    "KillSwitchConfig": "config",
    "KillSwitchMode": "domain.kill",
    "KillSwitchStatus": "services.kill_report",
    "LimitResult": "services.position_limits",
    "LimitsDiffer": "errors",
    "Metric": "domain.breaker",
    "MetricReading": "domain.breaker",
    "MetricState": "domain.breaker",
    "Order": "domain.order",
    "OrderGate": "services.gate",
    "OrderType": "domain.order",
    "OrderValidator": "services.order_validator",
    "Outcome": "services.outcome",
    "PendingRelease": "services.release",
    "PendingReset": "services.pending_reset",
    "PositionLimitEnforcer": "services.position_limits",
    "PositionLimits": "config",
    "PromptSanitizer": "services.prompt_sanitizer",
    "Reason": "domain.decision",
    "Refusal": "domain.decision",
    "Refused": "services.outcome",
    "ReleaseRefused": "errors",
    "ResetRefused": "errors",
    "SafetyError": "errors",
    "Side": "domain.order",
    "StartRefused": "errors",
    "StoreUnavailable": "errors",
    "ValidationResult": "domain.validation",
    "VenueReport": "services.kill_report",
    "run_circuit_breaker_monitor": "services.monitor",
}

__all__ = [
    "Admitted",
    "ApprovedInPrinciple",
    "Breach",
    "Capacity",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerStatus",
    "ConfigurationError",
    "Inspection",
    "KillReport",
    "KillState",
    "KillSwitch",
    "KillSwitchConfig",
    "KillSwitchMode",
    "KillSwitchStatus",
    "LimitResult",
    "LimitsDiffer",
    "Metric",
    "MetricReading",
    "MetricState",
    "Order",
    "OrderGate",
    "OrderType",
    "OrderValidator",
    "Outcome",
    "PendingRelease",
    "PendingReset",
    "PositionLimitEnforcer",
    "PositionLimits",
    "PromptSanitizer",
    "Reason",
    "Refusal",
    "Refused",
    "ReleaseRefused",
    "ResetRefused",
    "SafetyError",
    "Side",
    "StartRefused",
    "StoreUnavailable",
    "ValidationResult",
    "VenueReport",
    "run_circuit_breaker_monitor",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home, once."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - not for those who only pass through

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
