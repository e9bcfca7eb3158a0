"""How the paper venue behaves: fees, spread, impact, latency, chance, margin and rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from tinywindow.exchanges.paper.rules import NO_RULES
from tinywindow.safety.domain.venue import MarketRules
from tinywindow.safety.errors import ConfigurationError

__all__ = ["DAILY_VOLUME_USD", "PaperConfig"]

DAILY_VOLUME_USD: Final[Mapping[str, Decimal]] = MappingProxyType(
    {"BTC": Decimal(20_000_000_000), "ETH": Decimal(10_000_000_000), "SOL": Decimal(2_000_000_000)}
)
"""Orders of magnitude of the daily turnover, in USD, that the impact formula divides by."""


@dataclass(frozen=True, slots=True)
class PaperConfig:
    """Settings of the paper venue; every violation is reported at once.

    Attributes:
        taker_bps, maker_bps: spot fees in basis points of the notional.
        perp_taker_bps, perp_maker_bps: the same for perpetuals.
        half_spread_bps: half of the distance between bid and ask, in basis points.
        impact_coefficient: the dimensionless factor of the square-root impact.
        daily_volatility_bps: daily volatility in the impact formula, in basis points.
        daily_volume_usd: daily turnover by base asset, in USD.
        daily_volume_other_usd: the same for assets not named there.
        max_leverage: notional of perpetuals that one USD of collateral may carry.
        latency_s, latency_jitter_s: seconds before an answer, and the most that chance adds.
        reject_chance: share of orders that the venue turns away, 0 to 1; needs an rng.
        limit_partial_chance: share of limit fills that are partial, 0 to 1; needs an rng.
        market_partial_chance: the same for market orders, whose rest is cancelled.
        price_stale_s: seconds after which a price makes the account `estimated`.
        prices_kept_every: calls of `on_prices` between two writings of the board to the book.
        busy_timeout_s: seconds to wait for another process's write before giving up.
        rules: market rules by symbol, in place of the venue's own.
    """

    taker_bps: Decimal = Decimal(10)
    maker_bps: Decimal = Decimal(10)
    perp_taker_bps: Decimal = Decimal(5)
    perp_maker_bps: Decimal = Decimal(2)
    half_spread_bps: Decimal = Decimal(1)
    impact_coefficient: Decimal = Decimal(1)
    daily_volatility_bps: Decimal = Decimal(300)
    daily_volume_usd: Mapping[str, Decimal] = field(default_factory=lambda: DAILY_VOLUME_USD)
    daily_volume_other_usd: Decimal = Decimal(100_000_000)
    max_leverage: Decimal = Decimal(20)
    latency_s: float = 0.0
    latency_jitter_s: float = 0.0
    reject_chance: float = 0.0
    limit_partial_chance: float = 0.0
    market_partial_chance: float = 0.0
    price_stale_s: float = 60.0
    prices_kept_every: int = 60
    busy_timeout_s: float = 5.0
    rules: Mapping[str, MarketRules] = field(default_factory=lambda: NO_RULES)

    def __post_init__(self) -> None:
        violations = []
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            if name.endswith("_chance") and not 0 <= value <= 1:
                violations.append(f"{name} is {value}; wanted a share from 0 to 1")
            elif name.endswith(("_bps", "_s", "_coefficient")) and not 0 <= value < _HUGE:
                violations.append(f"{name} is {value}; wanted a finite number not below 0")
        for name in ("daily_volume_other_usd", "max_leverage", "prices_kept_every"):
            value = getattr(self, name)
            if not 0 < value < _HUGE:
                violations.append(f"{name} is {value}; wanted a finite number above 0")
        for base, volume in self.daily_volume_usd.items():
            if not 0 < volume < _HUGE:
                violations.append(f"daily_volume_usd of {base} is {volume}; wanted one above 0")
        if violations:
            raise ConfigurationError(violations)

    def volume_usd(self, base: str) -> Decimal:
        """The daily turnover of an asset in USD, as the impact formula takes it."""
        return self.daily_volume_usd.get(base, self.daily_volume_other_usd)

    def fee_bps(self, *, spot: bool, maker: bool) -> Decimal:
        """The fee in basis points of the notional."""
        if spot:
            return self.maker_bps if maker else self.taker_bps
        return self.perp_maker_bps if maker else self.perp_taker_bps


_HUGE: Final = 10**15
