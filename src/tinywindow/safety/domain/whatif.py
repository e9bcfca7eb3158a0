"""What the circuit breaker would have done: one unit bought at the first close, and held.

Each close is a mark at its bar's last millisecond, so that it belongs to the day in which the bar
opened. The two losses come from the same code as in trading. The first breach of each is found
independently of the other, and nothing halts in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from tinywindow.safety.domain.money import EXACT, ZERO
from tinywindow.safety.domain.nav import (
    Mark,
    MarkRefused,
    NavConfig,
    NavState,
    apply_mark,
    performance,
)
from tinywindow.safety.errors import InvariantBroken

__all__ = ["CurvePoint", "LossFinding", "WhatIf", "what_if"]

_WORST_STEP: Final = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class LossFinding:
    """What one loss did over the bars.

    Attributes:
        limit: the threshold in percent.
        first_breach_ms: the open time of the first bar whose close breaches it, or None.
        worst: the lowest value in percent.
        worst_ms: the open time of its bar.
    """

    limit: Decimal
    first_breach_ms: int | None
    worst: Decimal
    worst_ms: int

    def to_data(self) -> dict[str, object]:
        """As `tinywindow replay --json` prints it; `worst` has four decimals."""
        worst = self.worst.quantize(_WORST_STEP, ROUND_HALF_EVEN, EXACT)
        return {"first_breach_ms": self.first_breach_ms, "worst": f"{worst:f}"}


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What one close was measured from: USD, and percent for the two losses."""

    at_ms: int
    equity: Decimal
    peak: Decimal
    day_open: Decimal
    daily_pnl: Decimal
    drawdown: Decimal


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Both findings, and the curve where it was asked for."""

    daily_pnl: LossFinding
    drawdown: LossFinding
    curve: tuple[CurvePoint, ...] = field(default=(), repr=False)


@dataclass(slots=True)
class _Finder:
    limit: Decimal
    first_breach_ms: int | None = None
    worst: Decimal = ZERO
    worst_ms: int = 0

    def see(self, at_ms: int, value: Decimal) -> None:
        if value < self.worst:
            self.worst, self.worst_ms = value, at_ms
        if self.first_breach_ms is None and value <= self.limit:
            self.first_breach_ms = at_ms

    def finding(self) -> LossFinding:
        return LossFinding(self.limit, self.first_breach_ms, self.worst, self.worst_ms)


def what_if(
    closes: Sequence[tuple[int, Decimal]],
    interval_ms: int,
    *,
    daily_loss_limit: Decimal,
    drawdown_limit: Decimal,
    config: NavConfig,
    with_curve: bool = False,
) -> WhatIf:
    """Mark every close and find where the two losses first breach their limits.

    Args:
        closes: the open time of each bar in Unix milliseconds, and its close; in order of time.
        interval_ms: how long a bar lasts.
        daily_loss_limit: in percent, below zero.
        drawdown_limit: in percent, below zero.
        config: when a day opens.
        with_curve: whether to keep a `CurvePoint` for each bar.
    """
    state = NavState()
    daily = _Finder(daily_loss_limit, worst_ms=closes[0][0])
    drawdown = _Finder(drawdown_limit, worst_ms=closes[0][0])
    curve: list[CurvePoint] = []
    for open_ms, close in closes:
        at_ms = open_ms + interval_ms - 1
        moved = apply_mark(state, Mark("replay", close, ZERO, at_ms, False, at_ms), config)
        if isinstance(moved, MarkRefused):
            raise InvariantBroken(f"a mark without a flow was refused: {moved.reason}")
        state = moved
        seen = performance(state, at_ms, config)
        day_open, peak = state.day.nav, state.peak_nav
        if seen.daily_pnl is None or seen.drawdown is None or day_open is None or peak is None:
            raise InvariantBroken("a trusted mark above zero left a loss unmeasured")
        daily.see(open_ms, seen.daily_pnl)
        drawdown.see(open_ms, seen.drawdown)
        if with_curve:
            curve.append(CurvePoint(open_ms, close, peak, day_open, seen.daily_pnl, seen.drawdown))
    return WhatIf(daily.finding(), drawdown.finding(), tuple(curve))
