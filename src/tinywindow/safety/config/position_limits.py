"""The position limits' configuration."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, ClassVar, Final

from pydantic import Field, PlainValidator

from tinywindow.safety.config import rules
from tinywindow.safety.config.rules import Number, Wrong
from tinywindow.safety.config.section import Section
from tinywindow.safety.domain.limits import LimitSet, default_quotes
from tinywindow.safety.domain.money import to_decimal
from tinywindow.safety.domain.text import exact_text

__all__ = ["PositionLimits"]

SECTOR_CHARS_MAX: Final = 64
_BASE: Final = re.compile(r"[A-Z0-9][A-Z0-9.\-]{0,24}")
_QUOTE: Final = re.compile(r"[A-Z0-9]{2,12}")


def _sector(value: object) -> str:
    wanted = f"1 to {SECTOR_CHARS_MAX} printable ASCII characters"
    text = exact_text(value)
    if not text or len(text) > SECTOR_CHARS_MAX or not (text.isascii() and text.isprintable()):
        raise Wrong("is no name of a sector", wanted)
    return text


_Usd = Annotated[Number, PlainValidator(rules.positive("US dollars above 0"))]
_Percent = Annotated[
    Number, PlainValidator(rules.positive("percent above 0 and at most 100", high=100))
]
_Seconds = Annotated[float, PlainValidator(rules.seconds())]
_SECTORS: Final = rules.table(
    'a table of sectors by asset, such as {"PEPE": "Memes"}', _BASE, _sector
)
_RATES: Final = rules.table(
    'a table of US dollars by quote currency, such as {"USDT": 1}',
    _QUOTE,
    rules.positive("US dollars above 0"),
)


def _quotes() -> dict[str, Number]:
    return {name: rules.as_number(rate) for name, rate in default_quotes().items()}


class PositionLimits(Section):
    """What an order may grow to. Sizes are US dollars, ages and durations seconds.

    What is not given comes from `TINYWINDOW_POSITION_LIMITS__...`, then from the table
    `[position_limits]` of `tinywindow.toml`, then from the defaults. Exactly at a limit is
    allowed.

    Attributes:
        max_position_size: worst case of one symbol, positions and open orders together.
        max_total_exposure: the sum of that over all symbols, gross.
        max_leverage: that sum as a multiple of equity.
        max_sector_exposure_pct: a sector's share of `max_total_exposure`, in percent.
        allowed_symbols: the unified symbols that may be entered.
        price_max_age: age beyond which a reference price is not used.
        equity_max_age: age beyond which an equity mark is not used.
        price_collar_pct: how much worse than the reference a limit price may be, in percent.
        reservation_ttl: after which a market order that nobody reports on gives its hold back.
        position_max_age: age beyond which a venue's position is not relied on.
        sectors: sectors by asset, where the built-in table is not what you want.
        quote_usd: what one unit of a quote currency is worth; a currency that is not in it has
            no price. It replaces the default table.
    """

    section: ClassVar[str | None] = "position_limits"

    max_position_size: _Usd = 10_000
    max_total_exposure: _Usd = 50_000
    max_leverage: Annotated[Number, PlainValidator(rules.positive("a multiple above 0"))] = 20
    max_sector_exposure_pct: _Percent = 40
    allowed_symbols: Annotated[Collection[str], PlainValidator(rules.symbols)] = (
        "BTC/USDT",
        "ETH/USDT",
        "SOL/USDT",
    )
    price_max_age: _Seconds = 5.0
    equity_max_age: _Seconds = 60.0
    price_collar_pct: _Percent = 5
    reservation_ttl: _Seconds = 60.0
    position_max_age: _Seconds = 5.0
    sectors: Annotated[Mapping[str, str], PlainValidator(_SECTORS)] = Field(default_factory=dict)
    quote_usd: Annotated[Mapping[str, Number], PlainValidator(_RATES)] = Field(
        default_factory=_quotes
    )

    def to_limit_set(self) -> LimitSet:
        """The limits as the rules use them: exact decimals, ages in milliseconds."""
        return LimitSet(
            max_position_size=to_decimal(self.max_position_size),
            max_total_exposure=to_decimal(self.max_total_exposure),
            max_leverage=to_decimal(self.max_leverage),
            max_sector_exposure_pct=to_decimal(self.max_sector_exposure_pct),
            allowed_symbols=frozenset(self.allowed_symbols),
            price_max_age_ms=rules.to_ms(self.price_max_age),
            equity_max_age_ms=rules.to_ms(self.equity_max_age),
            price_collar_pct=to_decimal(self.price_collar_pct),
            reservation_ttl_ms=rules.to_ms(self.reservation_ttl),
            position_max_age_ms=rules.to_ms(self.position_max_age),
            sectors=dict(self.sectors),
            quote_usd={name: to_decimal(rate) for name, rate in self.quote_usd.items()},
        )
