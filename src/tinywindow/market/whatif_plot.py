"""A picture of replay reports: equity, its peak, both limits, and where they are breached.

matplotlib is the extra `plot`; it is imported when a picture is asked for, and without its global
state, so that no window and no back end is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tinywindow.safety.domain.whatif import CurvePoint, LossFinding
from tinywindow.safety.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tinywindow.market.whatif import ReplayReport

__all__ = ["plot"]

REPORTS_MAX: Final = 32
POINTS_MAX: Final = 50_000
"""Points drawn for one line; more than any picture has pixels."""

_EQUITY, _PEAK, _DRAWDOWN, _DAILY = "#1f3a5f", "#9aa5b1", "#c0392b", "#d68910"
_WIDTH_IN, _HEIGHT_IN = 11.0, 5.6
_DAY_MS: Final = 86_400_000


def plot(reports: Sequence[ReplayReport], path: Path) -> None:
    """Draw the reports one below the other, each as equity over its losses in percent.

    Raises:
        ConfigurationError: matplotlib is not installed, there is nothing or too much to draw, a
            report has no curve, or the file cannot be written.
    """
    if not 0 < len(reports) <= REPORTS_MAX:
        raise ConfigurationError(f"a picture shows 1 to {REPORTS_MAX} files, not {len(reports)}")
    if any(not report.found.curve for report in reports):
        raise ConfigurationError("a report without its curve cannot be drawn")
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - the extra `plot` is for few
    except ImportError:
        raise ConfigurationError(
            "matplotlib is missing; install it with: pip install 'tinywindow[plot]'"
        ) from None
    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN * len(reports)), layout="constrained")
    axes = figure.subplots(
        2 * len(reports), 1, squeeze=False, gridspec_kw={"height_ratios": [3, 2] * len(reports)}
    )
    for index, report in enumerate(reports):
        above, below = axes[2 * index][0], axes[2 * index + 1][0]
        below.sharex(above)
        _draw_equity(above, report)
        _draw_losses(below, report)
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as fault:
        raise ConfigurationError(f"{path}: the picture cannot be written: {fault}") from None


def _draw_equity(axes: Axes, report: ReplayReport) -> None:
    points, found = _thinned(report.found.curve), report.found
    times = [_day(point.at_ms) for point in points]
    daily_factor = 1 + float(found.daily_pnl.limit) / 100
    drawdown_factor = 1 + float(found.drawdown.limit) / 100
    axes.plot(times, [float(p.peak) for p in points], color=_PEAK, lw=1.2, label="peak")
    axes.plot(
        times,
        [float(p.peak) * drawdown_factor for p in points],
        color=_DRAWDOWN,
        lw=1.2,
        ls="--",
        label=f"drawdown limit {_pct(found.drawdown.limit)}",
    )
    axes.plot(
        times,
        [float(p.day_open) * daily_factor for p in points],
        color=_DAILY,
        lw=1.2,
        ls="--",
        drawstyle="steps-post",
        label=f"daily limit {_pct(found.daily_pnl.limit)}",
    )
    axes.plot(times, [float(p.equity) for p in points], color=_EQUITY, lw=1.3, label="equity")
    at = {point.at_ms: point.equity for point in report.found.curve}
    for name, finding, colour, marker in (
        ("daily loss", found.daily_pnl, _DAILY, "v"),
        ("drawdown", found.drawdown, _DRAWDOWN, "o"),
    ):
        breach_ms = finding.first_breach_ms
        if breach_ms is not None:
            axes.plot(
                [_day(breach_ms)],
                [float(at[breach_ms])],
                color=colour,
                marker=marker,
                ms=9,
                mec="white",
                ls="none",
                zorder=5,
                label=f"{name} trips {_time(breach_ms):%Y-%m-%d %H:%M}",
            )
    axes.set_title(f"{report.symbol}, {Path(report.file).name}: buy and hold, 1x", loc="left")
    axes.set_ylabel("equity of one unit, USD")
    axes.grid(alpha=0.25)
    axes.tick_params(labelbottom=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)


def _draw_losses(axes: Axes, report: ReplayReport) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - as above

    points = _thinned(report.found.curve)
    times = [_day(point.at_ms) for point in points]
    found = report.found
    lines: tuple[tuple[str, list[float], LossFinding, str], ...] = (
        ("daily P&L", [float(p.daily_pnl) for p in points], found.daily_pnl, _DAILY),
        ("drawdown", [float(p.drawdown) for p in points], found.drawdown, _DRAWDOWN),
    )
    for name, values, finding, colour in lines:
        label = f"{name}, worst {_pct(finding.worst)}"
        axes.plot(times, values, color=colour, lw=1.1, label=label)
        axes.axhline(float(finding.limit), color=colour, lw=1.0, ls="--")
        if finding.first_breach_ms is not None:
            axes.axvline(_day(finding.first_breach_ms), color=colour, lw=0.9, ls=":")
    axes.axhline(0, color="#555555", lw=0.6)
    axes.set_ylabel("%")
    axes.set_xlabel("UTC")
    axes.grid(alpha=0.25)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)


def _thinned(curve: Sequence[CurvePoint]) -> Sequence[CurvePoint]:
    return curve[:: 1 + (len(curve) - 1) // POINTS_MAX]


def _day(at_ms: int) -> float:
    """The moment as matplotlib counts: in days since 1970."""
    return at_ms / _DAY_MS


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _pct(value: object) -> str:
    return f"{value:.2f} %"
