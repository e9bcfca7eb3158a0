"""The command of the README on the real crash of August 2024, and what a second start does."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from program import (
    MARKET,
    audit,
    audit_faults,
    candles,
    forked,
    placements,
    started,
    tinywindow_forked,
)

FILES = tuple(MARKET / f"{name}_binance_spot_1m_aug2024.csv.gz" for name in ("BTCUSDT", "ETHUSDT"))

needs_data = pytest.mark.skipif(
    not all(file.exists() for file in FILES),
    reason=f"NO MARKET DATA: {MARKET} is not here; the crash of August 2024 was not shown",
)


def command(data_dir: Path, files: tuple[Path, ...] = FILES, strategy: str = "hold") -> list[str]:
    replays = [word for file in files for word in ("--replay", str(file))]
    rest = ["--speed", "max", "--exit-at-end", "--json", "--data-dir", str(data_dir)]
    return ["run", *replays, "--strategy", strategy, *rest]


def ms_of(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def decided(data_dir: Path) -> list[tuple[Any, ...]]:
    """What a run decided, without the ids that chance gives."""
    approved = audit(data_dir, "ORDER_APPROVED")
    outcomes = audit(data_dir, "ORDER_OUTCOME")
    trips = audit(data_dir, "CIRCUIT_BREAKER_TRIP")
    return [
        *((row["time"], row["order"], row.get("exposure")) for row in approved),
        *((row["time"], row["filled"], row["average_price"], row["fee"]) for row in outcomes),
        *((row["time"], row["metric"], row["value"], row["metrics"]) for row in trips),
    ]


def refusals(data_dir: Path) -> dict[str, int]:
    """The refusals of the audit log by reason code; a row may stand for several of a kind."""
    found: Counter[str] = Counter()
    for event in ("ORDER_REJECTED_LIMITS", "ORDER_REJECTED_HALTED"):
        for row in audit(data_dir, event):
            found[row["reason"].partition(":")[0]] += row.get("count", 1)
    return dict(found)


def recomputed_trip_ms(data_dir: Path) -> int:
    """The bar at which what was bought has lost 15 % from its peak, without any of our code."""
    bought = audit(data_dir, "ORDER_OUTCOME")
    cash = 20_000.0 - sum(
        float(row["filled"]) * float(row["average_price"]) + float(row["fee"]) for row in bought
    )
    amounts = {row["symbol"]: float(row["filled"]) for row in bought}
    bars: list[list[float]] = []
    for file in FILES:
        with gzip.open(file, "rt") as lines:
            bars.append([float(row["close"]) for row in csv.DictReader(lines)])
    with gzip.open(FILES[0], "rt") as lines:
        opens_ms = [int(row["timestamp_ms"]) for row in csv.DictReader(lines)]
    peak = 20_000.0
    for open_ms, btc, eth in zip(opens_ms, *bars, strict=True):
        equity = cash + amounts["BTC/USDT"] * btc + amounts["ETH/USDT"] * eth
        peak = max(peak, equity)
        if equity / peak - 1 <= -0.15:
            return open_ms
    raise AssertionError("no such bar")


@needs_data
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_crash_is_survived_and_a_second_start_is_still_halted(tmp_path: Path) -> None:
    first = tmp_path / "first"
    process = started(*command(first))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert summary["moments"] == 10_080
    assert summary["orders"]["accepted"] == 2, out
    assert summary["halted"]["reason"].startswith("DRAWDOWN: -15.")

    # The trip, and every decision, is in the log; nothing was decided after the trip.
    (trip,) = audit(first, "CIRCUIT_BREAKER_TRIP")
    approved = audit(first, "ORDER_APPROVED")
    assert {row["order_id"] for row in approved} == set(placements(first))
    assert len(approved) == 2
    assert refusals(first) == summary["orders"]["refused"]
    assert all(row["seq"] < trip["seq"] for row in approved)
    verified = tinywindow_forked("audit", "verify", "--data-dir", first, folder=tmp_path)
    assert verified.code == 0, verified.err

    # The trip came at the bar that an independent computation finds, and where one would expect
    # it between the two symbols' own first breaches.
    assert ms_of(trip["time"]) == recomputed_trip_ms(first) + 59_999
    whatif = json.loads(started("replay", *FILES, "--json").communicate(timeout=60)[0])
    breaches = sorted(entry["drawdown"]["first_breach_ms"] for entry in whatif)
    assert breaches[0] <= recomputed_trip_ms(first) <= breaches[1]

    # A second start is still halted and sends nothing.
    again = tinywindow_forked(*command(first), folder=tmp_path)
    assert again.code == 0, again.err
    assert again.document["orders"]["accepted"] == 0
    assert again.document["halted"]["reason"] == trip["reason"]
    assert len(placements(first)) == 2
    assert len(audit(first, "CIRCUIT_BREAKER_TRIP")) == 1
    status = tinywindow_forked("status", "--json", "--data-dir", first, folder=tmp_path).document
    assert status["circuit_breaker"]["is_halted"] is True
    assert status["trading"] == "STOPPED"
    assert audit_faults(first) == []


@pytest.fixture
def short(tmp_path: Path) -> tuple[Path, ...]:
    return (
        candles(tmp_path / "BTCUSDT_short.csv.gz", price=60_000, bars=40, seed=1),
        candles(tmp_path / "ETHUSDT_short.csv.gz", price=3_000, bars=40, seed=2),
    )


def test_a_replay_goes_on_where_it_ended(tmp_path: Path, short: tuple[Path, ...]) -> None:
    data_dir = tmp_path / "data"
    whole = tinywindow_forked(*command(data_dir, short, "momentum"), folder=tmp_path)
    assert (whole.code, whole.document["moments"]) == (0, 40), whole.err
    again = tinywindow_forked(*command(data_dir, short, "momentum"), folder=tmp_path)
    assert (again.code, again.document["moments"]) == (0, 0), again.err
    assert "clock_untrusted" not in again.err
    assert audit(data_dir, "CLOCK_UNTRUSTED") == []


def test_every_refusal_that_a_run_counts_is_in_the_audit_log(
    tmp_path: Path, short: tuple[Path, ...]
) -> None:
    """Of the two orders that `hold` asks for at once, the breaker lets one pass."""
    few = {"TINYWINDOW_CIRCUIT_BREAKER__MAX_TRADES_PER_HOUR": "1"}
    data_dir = tmp_path / "data"
    run = tinywindow_forked(*command(data_dir, short), folder=tmp_path, environ=few)
    assert run.code == 0, run.err
    orders = run.document["orders"]
    assert orders["refused"] == {"TRADE_VELOCITY": 1}
    assert refusals(data_dir) == orders["refused"]
    assert len(audit(data_dir, "ORDER_APPROVED")) == orders["accepted"] == 1


def test_the_same_market_gives_the_same_decisions_fills_and_trip(
    tmp_path: Path, short: tuple[Path, ...]
) -> None:
    """At whatever speed, and whatever comes later in the files."""
    longer = candles(tmp_path / "BTCUSDT_longer.csv.gz", price=60_000, bars=60, seed=1), short[1]
    few = {"TINYWINDOW_CIRCUIT_BREAKER__MAX_TRADES_PER_HOUR": "2"}
    twins = tmp_path / "fast", tmp_path / "slow"
    for data_dir, files, speed in zip(twins, (short, longer), ("max", "6000"), strict=True):
        words = command(data_dir, files, "momentum")
        words[words.index("max")] = speed
        process = forked(*words, log=tmp_path / "log", environ=few)
        process.join(timeout=60)
        assert process.exitcode == 0
    assert len(audit(twins[0], "ORDER_OUTCOME")) == 3
    assert len(audit(twins[0], "CIRCUIT_BREAKER_TRIP")) == 1
    assert decided(twins[0]) == decided(twins[1])


def test_a_replays_directory_serves_nothing_else(tmp_path: Path, short: tuple[Path, ...]) -> None:
    data_dir = tmp_path / "data"
    assert tinywindow_forked(*command(data_dir, short), folder=tmp_path).code == 0
    sent = placements(data_dir)
    for words in (
        ["run"],
        ["start"],
        ["stop"],
        ["release", "--reason", "x"],
        ["reset", "--operator", "a", "--reason", "x", "--yes"],
        command(data_dir, short[:1]),
    ):
        said = tinywindow_forked(*words, "--data-dir", data_dir, folder=tmp_path)
        assert said.code == 2, (words, said)
        assert "replay" in said.err
        assert "Traceback" not in said.err
    for words in (["status"], ["audit", "verify"], ["audit", "tail"]):
        assert tinywindow_forked(*words, "--data-dir", data_dir, folder=tmp_path).code == 0
    assert placements(data_dir) == sent


def test_a_live_directory_serves_no_replay(tmp_path: Path, short: tuple[Path, ...]) -> None:
    data_dir = tmp_path / "data"
    assert tinywindow_forked("db", "upgrade", "--data-dir", data_dir, folder=tmp_path).code == 0
    said = tinywindow_forked(*command(data_dir, short), folder=tmp_path)
    assert said.code == 2
    assert "real time" in said.err
    assert not (data_dir / "REPLAY").exists()
    assert placements(data_dir) == {}
