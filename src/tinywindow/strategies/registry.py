"""Strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tinywindow.safety.errors import ConfigurationError
from tinywindow.strategies.base import Strategy
from tinywindow.strategies.hold import Hold
from tinywindow.strategies.momentum import Momentum

__all__ = ["STRATEGIES", "make_strategy"]

Factory = Callable[[Sequence[str]], Strategy]

STRATEGIES: Final[Mapping[str, Factory]] = MappingProxyType({"momentum": Momentum, "hold": Hold})
"""What makes a strategy over a list of symbols, by name; the first is the default."""


def make_strategy(name: str, symbols: Sequence[str]) -> Strategy:
    """Make a strategy by its name.

    Raises:
        ConfigurationError: there is no such strategy, or no symbol.
    """
    if not symbols:
        raise ConfigurationError("a strategy needs at least one symbol")
    if name == "claude":
        raise ConfigurationError(
            f"the strategy 'claude' is not part of this version yet; there are {_names()}"
        )
    if name not in STRATEGIES:
        raise ConfigurationError(f"no strategy {name!r}; there are {_names()}")
    return STRATEGIES[name](symbols)


def _names() -> str:
    return ", ".join(STRATEGIES)
