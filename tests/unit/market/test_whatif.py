"""`tinywindow replay`: first breaches and worst values, also against a second computation."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import structlog

from tinywindow.cli.entry import main
from tinywindow.market import whatif_plot
from tinywindow.market.whatif import replay_file
from tinywindow.safety.domain import whatif
from tinywindow.safety.domain.candles import HEADER
from tinywindow.safety.domain.nav import MarkRefused, NavConfig
from tinywindow.safety.domain.whatif import what_if
from tinywindow.safety.errors import ConfigurationError, InvariantBroken

MARKET = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "market"
DAY = 86_400_000
START = 20_000 * DAY


def is_candle_file(path: Path) -> bool:
    return not path.name.startswith(("l2_", "trades_", "funding_"))


FILES = sorted(path for path in MARKET.glob("*.csv.gz") if is_candle_file(path))
NO_DATA = f"NO MARKET DATA: {MARKET} is not here; nothing was shown on real markets"
needs_data = pytest.mark.skipif(not FILES, reason=NO_DATA)


def written(folder: Path, closes: list[Any], step: int = 3_600_000) -> Path:
    path = folder / "BTCUSDT_x.csv"
    lines = [f"{START + n * step},{c},{c},{c},{c},1" for n, c in enumerate(closes)]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def independent(path: Path, daily_limit: int, drawdown_limit: int) -> dict[str, Any]:
    """Ten lines with exact fractions, without a line of ours."""
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))
    bars = [(int(row["timestamp_ms"]), Fraction(row["close"])) for row in rows]
    first_day, peak, day, base = bars[0][0] // DAY, bars[0][1], None, bars[0][1]
    first: dict[str, int | None] = {"daily_pnl": None, "drawdown": None}
    worst = {"daily_pnl": Fraction(0), "drawdown": Fraction(0)}
    for index, (at_ms, close) in enumerate(bars):
        if at_ms // DAY != day:
            day = at_ms // DAY
            before_ms, before = bars[index - 1]
            step = bars[1][0] - bars[0][0]
            gap = day * DAY - (before_ms + step - 1)
            base = close if day == first_day else before if gap <= 3_600_000 else max(before, close)
        peak = max(peak, close)
        for name, of, limit in (
            ("daily_pnl", base, daily_limit),
            ("drawdown", peak, drawdown_limit),
        ):
            value = 100 * (close / of - 1)
            worst[name] = min(worst[name], value)
            if first[name] is None and value <= limit:
                first[name] = at_ms
    return {
        name: {
            "first_breach_ms": first[name],
            "worst": f"{Decimal(round(worst[name] * 10_000)) / 10_000:.4f}",
        }
        for name in first
    }


@needs_data
def test_there_is_a_report_for_every_market_file() -> None:
    assert len(FILES) >= 20


@needs_data
@pytest.mark.parametrize("path", FILES or [MARKET / "none"], ids=lambda path: path.name)
def test_what_the_command_says_agrees_with_a_second_computation(
    path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["replay", str(path), "--json", "--data-dir", str(tmp_path)]) == 0
    structlog.reset_defaults()
    (report,) = json.loads(capsys.readouterr().out)
    theirs = independent(path, -10, -15)
    assert {name: report[name] for name in theirs} == theirs


def test_the_report_is_the_interfaces_object(tmp_path: Path) -> None:
    path = written(tmp_path, [100, 95, 90, 85, 100])
    assert replay_file(path).to_data() == {
        "file": str(path),
        "symbol": "BTC/USDT",
        "rows": 5,
        "interval_ms": 3_600_000,
        "first_ms": START,
        "last_ms": START + 4 * 3_600_000,
        "daily_pnl": {"first_breach_ms": START + 2 * 3_600_000, "worst": "-15.0000"},
        "drawdown": {"first_breach_ms": START + 3 * 3_600_000, "worst": "-15.0000"},
    }


def test_just_above_the_limits_nothing_is_breached(tmp_path: Path) -> None:
    path = written(tmp_path, ["100", "90.00000001"])
    data = replay_file(path, "ETH/USDT").to_data()
    assert data["symbol"] == "ETH/USDT"
    assert data["daily_pnl"] == {"first_breach_ms": None, "worst": "-10.0000"}


def test_a_market_that_only_rises_has_no_loss(tmp_path: Path) -> None:
    found = replay_file(written(tmp_path, [1, 2, 3])).found
    assert found.daily_pnl.to_data() == {"first_breach_ms": None, "worst": "0.0000"}
    assert found.drawdown.worst_ms == START


def test_a_close_belongs_to_the_day_in_which_its_bar_opened(tmp_path: Path) -> None:
    closes = [100] * 23 + [80] + [80] * 3
    found = replay_file(written(tmp_path, closes)).found
    assert found.daily_pnl.first_breach_ms == START + 23 * 3_600_000
    assert found.daily_pnl.worst_ms == START + 23 * 3_600_000
    later = replay_file(written(tmp_path, [100] * 24 + [89])).found
    assert later.daily_pnl.first_breach_ms == START + DAY
    assert datetime.fromtimestamp(START / 1000, UTC).hour == 0


def test_a_mark_that_cannot_be_measured_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(close: int) -> None:
        what_if(
            [(START, Decimal(close))],
            60_000,
            daily_loss_limit=Decimal(-10),
            drawdown_limit=Decimal(-15),
            config=NavConfig(),
        )

    with pytest.raises(InvariantBroken, match="unmeasured"):
        run(0)
    monkeypatch.setattr(whatif, "apply_mark", lambda *_: MarkRefused("no"))
    with pytest.raises(InvariantBroken, match="refused: no"):
        run(1)


# The picture


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    closes = [100 + n % 7 for n in range(60)] + [80] * 10
    fallen = replay_file(written(tmp_path, closes), with_curve=True)
    risen = replay_file(written(tmp_path, [1, 2, 3]), with_curve=True)
    assert len(fallen.found.curve) == 70
    out = tmp_path / "out.png"
    whatif_plot.plot([fallen, risen], out)
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn, in place of their files."""
    figures = pytest.importorskip("matplotlib.figure")
    kept: list[Any] = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda self, *_, **__: kept.append(self))
    return kept


def test_the_picture_shows_equity_peak_both_limits_and_the_breaches(
    tmp_path: Path, drawn: list[Any]
) -> None:
    closes = [100, 99, 91, 89, 84, 95]
    path = written(tmp_path, closes)
    whatif_plot.plot([replay_file(path, with_curve=True)], tmp_path / "out.png")
    (figure,) = drawn
    above, below = figure.axes
    times = [(START + n * 3_600_000) / DAY for n in range(len(closes))]

    curves = {line.get_label(): line for line in above.lines}
    expected = {
        "equity": (times, closes),
        "peak": (times, [100] * 6),
        "drawdown limit -15.00 %": (times, [85] * 6),
        "daily limit -10.00 %": (times, [90] * 6),
        "daily loss trips 2024-10-04 03:00": (times[3:4], [89]),
        "drawdown trips 2024-10-04 04:00": (times[4:5], [84]),
    }
    assert set(curves) == set(expected)
    for name, (x, y) in expected.items():
        assert list(curves[name].get_xdata()) == pytest.approx(x), name
        assert list(curves[name].get_ydata()) == pytest.approx(y), name
        assert (curves[name].get_marker() != "None") == ("trips" in name), name
    assert {text.get_text() for text in above.get_legend().get_texts()} == set(expected)

    losses = [100 * (close / 100 - 1) for close in closes]
    for name in ("daily P&L, worst -16.00 %", "drawdown, worst -16.00 %"):
        (line,) = (line for line in below.lines if line.get_label() == name)
        assert list(line.get_ydata()) == pytest.approx(losses), name
    across = [line.get_ydata()[0] for line in below.lines if list(line.get_xdata()) == [0, 1]]
    assert sorted(across) == [-15, -10, 0]
    upright = [line.get_xdata()[0] for line in below.lines if list(line.get_ydata()) == [0, 1]]
    assert sorted(upright) == pytest.approx(times[3:5])


def test_a_picture_without_a_breach_has_no_mark(tmp_path: Path, drawn: list[Any]) -> None:
    path = written(tmp_path, [1, 2, 3])
    whatif_plot.plot([replay_file(path, with_curve=True)], tmp_path / "out.png")
    above, below = drawn[0].axes
    assert not [line for line in above.lines if "trips" in line.get_label()]
    assert not [line for line in below.lines if list(line.get_ydata()) == [0, 1]]


def test_what_cannot_be_drawn_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    path = written(tmp_path, [1, 2, 3])
    report = replay_file(path, with_curve=True)
    with pytest.raises(ConfigurationError, match="1 to 32 files, not 0"):
        whatif_plot.plot([], tmp_path / "out.png")
    with pytest.raises(ConfigurationError, match="without its curve"):
        whatif_plot.plot([replay_file(path)], tmp_path / "out.png")
    for unwritable in (tmp_path / "none" / "out.png", tmp_path / "out.nothing"):
        with pytest.raises(ConfigurationError, match="cannot be written"):
            whatif_plot.plot([report], unwritable)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match="tinywindow\\[plot\\]"):
        whatif_plot.plot([report], tmp_path / "out.png")


def test_a_long_curve_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whatif_plot, "POINTS_MAX", 10)
    assert list(whatif_plot._thinned(range(25))) == [*range(0, 25, 3)]  # type: ignore[arg-type]
    assert len(whatif_plot._thinned(range(10))) == 10  # type: ignore[arg-type]
