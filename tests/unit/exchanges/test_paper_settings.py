"""What the settings say of the paper venue is what a run's venue does."""

from __future__ import annotations

import contextlib
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from paper_desk import SPOT, Sleeps, approved, order

from tinywindow.run_report import RunReport
from tinywindow.runtime import Runtime, build, run_until_end
from tinywindow.safety.domain.venue import Accepted, ReportStatus
from tinywindow.settings import RunOptions, Settings


def built(folder: Path, *, replay: bool = True, **paper: str) -> Runtime:
    """A run of the strategy `hold` with these settings of the section `paper`."""
    environ = {f"TINYWINDOW_PAPER__{name.upper()}": value for name, value in paper.items()}
    given: dict[str, Any] = {}
    if replay:
        rows = [f"{60_000 * n},100,100,100,100,1" for n in range(4)]
        candles = folder / "BTCUSDT_1m.csv"
        candles.write_text("\n".join(["timestamp_ms,open,high,low,close,volume", *rows]) + "\n")
        given = {"replay": (candles,), "speed": None, "exit_at_end": True}
    settings = Settings.load(environ=environ, data_dir=folder / "data")
    return build(settings, RunOptions(strategy="hold", **given), RunReport())


def sent(folder: Path) -> list[tuple[Decimal, Decimal, str]]:
    """Amount, fill and status of every order of the venue's book, the oldest first."""
    with contextlib.closing(sqlite3.connect(folder / "data" / "paper.db")) as db:
        rows = db.execute("SELECT amount, filled, status FROM paper_order ORDER BY number")
        return [(Decimal(amount), Decimal(filled), status) for amount, filled, status in rows]


async def test_a_run_as_it_stands_by_default_fills_whole_orders(tmp_path: Path) -> None:
    await run_until_end(built(tmp_path))
    orders = sent(tmp_path)
    assert orders
    assert all(amount == filled for amount, filled, _ in orders)


async def test_a_run_whose_venue_rejects_everything_buys_nothing(tmp_path: Path) -> None:
    runtime = built(tmp_path, reject_chance="1")
    await run_until_end(runtime)
    assert runtime.report.rejected > 0
    assert runtime.report.sent == 0
    assert {(filled, status) for _, filled, status in sent(tmp_path)} == {(0, "REJECTED")}


async def test_a_run_whose_venue_fills_market_orders_in_part_gets_less(tmp_path: Path) -> None:
    await run_until_end(built(tmp_path, market_partial_chance="1"))
    amount, filled, status = sent(tmp_path)[0]
    assert amount / 10 <= filled + Decimal("0.001") < amount
    assert status == "CANCELLED"


async def test_a_runs_venue_fills_limit_orders_in_part_where_it_is_told_to(tmp_path: Path) -> None:
    runtime = built(tmp_path, limit_partial_chance="1")
    runtime.board.set(SPOT, Decimal(100), runtime.clock.now())
    placed = await runtime.exchange.place(approved(order("A", "BUY", "1", price="101")))
    await runtime.exchange.close()
    assert isinstance(placed, Accepted)
    assert Decimal("0.1") <= placed.report.filled <= Decimal("0.9")
    assert placed.report.status is ReportStatus.OPEN


@pytest.mark.parametrize(
    ("latency", "jitter", "least", "most"),
    [("0.25", "0", 0.25, 0.25), ("0.25", "0.1", 0.25, 0.35), ("0", "0.1", 0.0, 0.1)],
)
async def test_a_run_whose_venue_is_slow_waits_for_each_answer(
    tmp_path: Path, latency: str, jitter: str, least: float, most: float
) -> None:
    runtime = built(tmp_path, replay=False, latency=latency, latency_jitter=jitter)
    sleeps = Sleeps()
    runtime.exchange._sleep = sleeps
    await runtime.exchange.account()
    (seconds,) = sleeps.seconds
    assert least <= seconds <= most
    assert seconds > 0
    await runtime.exchange.close()
