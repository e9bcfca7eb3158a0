"""Configuration of the safety layer: three sections, each checked as a whole."""

from tinywindow.safety.config.circuit_breaker import CircuitBreakerConfig
from tinywindow.safety.config.kill_switch import KillSwitchConfig
from tinywindow.safety.config.position_limits import PositionLimits

__all__ = ["CircuitBreakerConfig", "KillSwitchConfig", "PositionLimits"]
