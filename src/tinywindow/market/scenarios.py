"""Scenarios of the simulator, as data: what happens to the market, and when."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["SCENARIOS", "Asset", "Move", "Scenario", "asset"]


@dataclass(frozen=True, slots=True)
class Move:
    """The whole market moves by a factor between two moments, in seconds from the start."""

    begin_s: float
    end_s: float
    factor: float

    def log_within(self, from_s: float, to_s: float) -> float:
        """The part of the move, as a log return, that falls between two moments."""
        overlap = max(0.0, min(to_s, self.end_s) - max(from_s, self.begin_s))
        return math.log(self.factor) * overlap / (self.end_s - self.begin_s)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario.

    Attributes:
        name: what it is called.
        what: one sentence for whoever chooses.
        volatility: factor on every asset's daily volatility.
        drift_per_hour: log return of the market in an hour, before chance.
        moves: what happens beside chance; the factor is Bitcoin's.
        outages: stretches without any price, (begin, end) in seconds from the start.
    """

    name: str
    what: str
    volatility: float = 1.0
    drift_per_hour: float = 0.0
    moves: tuple[Move, ...] = ()
    outages: tuple[tuple[float, float], ...] = ()

    def dark(self, at_s: float) -> bool:
        """Whether there are no prices `at_s` seconds after the start."""
        return any(begin <= at_s < end for begin, end in self.outages)


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset: start price in USD, daily volatility, and how much of a market move it makes."""

    price: float
    volatility: float
    beta: float


# The crash falls through a gap, as when the books are empty: no rule that follows prices gets
# out in time, so that a guard is seen to be needed with any strategy.
_ALL: Final = (
    Scenario("calm", "A quiet market that goes nowhere in particular."),
    Scenario("trend", "A market that rises by some 4 % an hour.", 1.5, 0.04),
    Scenario(
        "crash",
        "A rise of a minute and a half, then a gap of a quarter, then a slide: Bitcoin loses 30 %.",
        volatility=2.0,
        moves=(Move(0, 90, 1.015), Move(90, 90.1, 0.76), Move(92, 300, 0.92)),
    ),
    Scenario(
        "flash-crash",
        "Bitcoin falls by 20 % within 20 s and is nearly back two minutes later.",
        volatility=1.5,
        moves=(Move(60, 80, 0.80), Move(90, 210, 1.22)),
    ),
    Scenario(
        "outage",
        "The prices stay away for a minute and a half, twice, and come back elsewhere.",
        moves=(Move(60, 150, 0.97), Move(300, 390, 1.02)),
        outages=((60, 150), (300, 390)),
    ),
)

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType({one.name: one for one in _ALL})

_ASSETS: Final = {
    "BTC": Asset(65_000, 0.025, 1.0),
    "ETH": Asset(3_200, 0.035, 1.15),
    "SOL": Asset(150, 0.05, 1.3),
    "BNB": Asset(600, 0.03, 1.0),
    "XRP": Asset(0.6, 0.045, 1.1),
    "ADA": Asset(0.45, 0.045, 1.2),
    "AVAX": Asset(35, 0.055, 1.3),
    "LINK": Asset(15, 0.05, 1.2),
    "DOGE": Asset(0.15, 0.06, 1.3),
}
_OTHER: Final = Asset(10, 0.06, 1.2)


def asset(base: str) -> Asset:
    """What is known of an asset; an unknown one starts at 10 USD."""
    return _ASSETS.get(base, _OTHER)
