"""`tinywindow replay`: what the circuit breaker would have done over a candle file."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from tinywindow.market.candles import interval_ms_of, iter_candles, symbol_of
from tinywindow.safety.domain.nav import NavConfig
from tinywindow.safety.domain.whatif import WhatIf, what_if

__all__ = ["ReplayReport", "replay_file"]

DAILY_LOSS_LIMIT: Final = Decimal(-10)
DRAWDOWN_LIMIT: Final = Decimal(-15)


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What happened over one file.

    Attributes:
        file: the path as it was given.
        symbol: the unified symbol.
        rows: the number of bars.
        interval_ms: the most frequent step between bars.
        first_ms: the open time of the first bar, in Unix milliseconds.
        last_ms: the open time of the last bar.
        found: the two losses.
    """

    file: str
    symbol: str
    rows: int
    interval_ms: int
    first_ms: int
    last_ms: int
    found: WhatIf

    def to_data(self) -> dict[str, object]:
        """The object that `tinywindow replay --json` prints for this file."""
        return {
            "file": self.file,
            "symbol": self.symbol,
            "rows": self.rows,
            "interval_ms": self.interval_ms,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "daily_pnl": self.found.daily_pnl.to_data(),
            "drawdown": self.found.drawdown.to_data(),
        }


def replay_file(
    path: Path,
    symbol: str | None = None,
    *,
    daily_loss_limit: Decimal = DAILY_LOSS_LIMIT,
    drawdown_limit: Decimal = DRAWDOWN_LIMIT,
    config: NavConfig | None = None,
    with_curve: bool = False,
) -> ReplayReport:
    """Buy one unit at the first close of a candle file, hold it, and watch the two losses.

    Args:
        path: the candle file.
        symbol: its symbol; taken from the file's name where None.
        daily_loss_limit: in percent, below zero.
        drawdown_limit: in percent, below zero.
        config: when a day opens; at 00:00 UTC where None.
        with_curve: whether to keep every close, as `whatif_plot.plot` needs it.

    Raises:
        CandleFileError: the file or the symbol cannot be used.
    """
    name = symbol_of(path, symbol)
    closes = [(candle.timestamp_ms, candle.close) for candle in iter_candles(path)]
    interval_ms = interval_ms_of(path, [at_ms for at_ms, _ in closes])
    found = what_if(
        closes,
        interval_ms,
        daily_loss_limit=daily_loss_limit,
        drawdown_limit=drawdown_limit,
        config=NavConfig() if config is None else config,
        with_curve=with_curve,
    )
    return ReplayReport(
        str(path), name, len(closes), interval_ms, closes[0][0], closes[-1][0], found
    )
