"""The simulated market: a seeded random walk with a scenario laid over it.

Each asset follows a geometric Brownian motion; a common factor gives any two the correlation
`CORRELATION`, about that of large coins. One seed, scenario, step and set of assets give the
same prices always. A spot market and a perpetual of one asset share its price.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Final

from tinywindow.market.clock import MarketClock
from tinywindow.market.feed import Moment
from tinywindow.market.pace import Pace, Sleep
from tinywindow.market.scenarios import SCENARIOS, Asset, Scenario, asset
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.ports import Clock

__all__ = ["CORRELATION", "DEFAULT_SYMBOLS", "SimulatedFeed"]

CORRELATION: Final = 0.7
DEFAULT_SYMBOLS: Final = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
_DAY_S: Final = 86_400
_HOUR_S: Final = 3_600
_DIGITS: Final = 6
"""Significant digits of a price: cents for thousands of dollars."""


class SimulatedFeed:
    """Implements `Feed` by chance and a scenario; endless unless `steps` says otherwise."""

    def __init__(
        self,
        scenario: str | Scenario,
        *,
        seed: int,
        clock: Clock,
        symbols: Sequence[str] = DEFAULT_SYMBOLS,
        step_s: float = 1.0,
        steps: int | None = None,
        speed: float | None = 1.0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Start at the clock's time with the assets' usual prices.

        A `MarketClock` is moved by `step_s` seconds at each moment; any other clock is only
        read, for a simulated market in real time. `speed` is market seconds for one real
        second; None is as fast as it goes.

        Raises:
            ConfigurationError: the scenario is unknown, the step is not above zero, or there
                is no symbol.
        """
        self._scenario = _scenario(scenario)
        if not (math.isfinite(step_s) and step_s > 0):
            raise ConfigurationError(f"step_s is {step_s}; wanted seconds above 0")
        if not symbols:
            raise ConfigurationError("the simulated market needs a symbol")
        self._symbols = tuple(dict.fromkeys(symbols))
        self._base = {symbol: parse_symbol(symbol).base for symbol in self._symbols}
        # By name, so that the order in which symbols are given changes no price.
        self._assets = {base: asset(base) for base in sorted(set(self._base.values()))}
        self._logs = {base: math.log(one.price) for base, one in self._assets.items()}
        self._rng = Random(seed)
        self._clock = clock
        self._start = clock.now()
        self._step_s = step_s
        self._steps = steps
        self._told = 0
        self._pace = Pace(speed, sleep)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol, in the order in which it was given."""
        return self._symbols

    @property
    def scenario(self) -> Scenario:
        """The scenario that is played."""
        return self._scenario

    @property
    def progress(self) -> float:
        """The share of the steps that has been told, 0 to 1; 0 for an endless one."""
        return self._told / self._steps if self._steps else 0.0

    async def next(self) -> Moment | None:
        """Wait for one step and walk it; during an outage the moment has no prices."""
        if self._steps is not None and self._told >= self._steps:
            return None
        if self._told:
            await self._pace.wait(self._step_s)
            self._walk(self._told * self._step_s)
        at = self._now()
        dark = self._scenario.dark(self._told * self._step_s)
        self._told += 1
        return Moment(at, {} if dark else self._prices())

    def _now(self) -> datetime:
        if isinstance(self._clock, MarketClock):
            self._clock.move_to(self._start + timedelta(seconds=self._told * self._step_s))
        return self._clock.now()

    def _walk(self, to_s: float) -> None:
        scenario, from_s = self._scenario, to_s - self._step_s
        market = scenario.drift_per_hour * self._step_s / _HOUR_S
        market += sum(move.log_within(from_s, to_s) for move in scenario.moves)
        common = self._rng.gauss(0, 1)
        for base, one in self._assets.items():
            self._logs[base] += one.beta * market + self._chance(one, common)

    def _chance(self, one: Asset, common: float) -> float:
        sigma = one.volatility * self._scenario.volatility * math.sqrt(self._step_s / _DAY_S)
        own = self._rng.gauss(0, 1)
        shock = math.sqrt(CORRELATION) * common + math.sqrt(1 - CORRELATION) * own
        return sigma * shock - sigma * sigma / 2

    def _prices(self) -> dict[str, Decimal]:
        return {
            symbol: _rounded(math.exp(self._logs[self._base[symbol]])) for symbol in self._symbols
        }


def _rounded(price: float) -> Decimal:
    exact = Decimal(repr(price))
    return exact.quantize(Decimal(1).scaleb(exact.adjusted() - _DIGITS + 1))


def _scenario(given: str | Scenario) -> Scenario:
    if isinstance(given, Scenario):
        return given
    if given not in SCENARIOS:
        raise ConfigurationError(f"no scenario {given!r}; there are {', '.join(SCENARIOS)}")
    return SCENARIOS[given]
