"""`tinywindow run` as a process: told to end, and started twice on one data directory."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from program import (
    assert_ledger_is_the_venues,
    assert_nothing_went_wrong,
    audit,
    forked,
    placements,
    query,
    tinywindow,
    wait_for,
)

pytestmark = pytest.mark.timeout(120)

IN_FLIGHT_S = 0.5
"""How long after a stop an order may arrive that had passed its last look before."""
SETTINGS = {
    "TINYWINDOW_RUN__CYCLE_INTERVAL": "0.02",
    # Below what the strategy wants, so that two processes compete for the limits.
    "TINYWINDOW_POSITION_LIMITS__MAX_POSITION_SIZE": "3000",
    "TINYWINDOW_POSITION_LIMITS__MAX_TOTAL_EXPOSURE": "5000",
    "TINYWINDOW_POSITION_LIMITS__MAX_SECTOR_EXPOSURE_PCT": "100",
}


@pytest.mark.parametrize("word", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_end_ends_in_order(tmp_path: Path, word: signal.Signals) -> None:
    data_dir, log = tmp_path / "data", tmp_path / "log"
    process = forked(
        "run", "--json", "--scenario", "trend", "--data-dir", data_dir, log=log, environ=SETTINGS
    )
    try:
        wait_for((data_dir / "paper.db").exists, "it starts")
        wait_for(lambda: placements(data_dir), "it trades", timeout_s=60)
        assert process.pid is not None
        os.kill(process.pid, word)
        process.join(timeout=20)
        assert process.exitcode == 0, log.read_text()[-3000:]
    finally:
        process.kill()
        process.join()
    said = log.read_text()
    assert "Traceback" not in said
    summary = json.loads(next(line for line in said.splitlines() if line.startswith('{"moments"')))
    # An order whose cycle was cut off is settled and not in the summary any more.
    assert 0 <= len(placements(data_dir)) - summary["orders"]["accepted"] <= 1
    assert_nothing_went_wrong(data_dir)
    assert_ledger_is_the_venues(data_dir)
    database = data_dir / "tinywindow.db"
    assert query(database, "SELECT COUNT(*) FROM orders WHERE state = 'INTENDED'") == [(0,)]
    # An end is no stop: a later start may trade, and the anchor is at the chain's end.
    status = tinywindow("status", "--json", "--data-dir", data_dir).document
    assert status["trading"] == "RUNNING"
    assert status["kill_switch"]["active"] is False
    anchored = (data_dir / "tinywindow.db.anchor").read_text().splitlines()[-1]
    assert json.loads(anchored)["seq"] == query(database, "SELECT audit_seq FROM head")[0][0]


@pytest.mark.concurrency
@pytest.mark.slow
def test_two_runs_on_one_directory_share_its_limits_and_its_stops(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    logs = [tmp_path / "one", tmp_path / "two", tmp_path / "three"]
    words = ("run", "--json", "--scenario", "trend", "--data-dir", data_dir)
    running = [forked(*words, log=log, environ=SETTINGS) for log in logs[:2]]
    try:
        wait_for((data_dir / "paper.db").exists, "they start")
        wait_for(lambda: len(placements(data_dir)) >= 4, "they trade", timeout_s=60)
        # A third one comes in while the others are at it.
        running.append(forked(*words, log=logs[2], environ=SETTINGS))
        wait_for(lambda: len(audit(data_dir, "RECOVERY")) == 3, "the third recovers")
        wait_for(lambda: len(placements(data_dir)) >= 8, "they trade on", timeout_s=60)
        said = tinywindow("kill", "--reason", "enough", "--json", "--data-dir", data_dir)
        assert said.code == 0, said.err
        marks = "SELECT COUNT(*) FROM marks"
        database = data_dir / "tinywindow.db"
        stopped_seq = query(database, "SELECT audit_seq FROM head")[0][0]
        until = time.monotonic() + IN_FLIGHT_S
        wait_for(lambda: time.monotonic() >= until, "what had passed its last look is there")
        before, sent = query(database, marks)[0][0], len(placements(data_dir))
        wait_for(lambda: query(database, marks)[0][0] >= before + 20, "they watch on")
        assert len(placements(data_dir)) == sent
        for process in running:
            assert process.is_alive()
            process.terminate()
            process.join(timeout=20)
            assert process.exitcode == 0, [log.read_text()[-1500:] for log in logs]
    finally:
        for process in running:
            process.kill()
            process.join()
    late = [row for row in audit(data_dir, "ORDER_APPROVED") if row["seq"] > stopped_seq]
    assert [row for row in late if not row["reduces"]] == []
    assert_nothing_went_wrong(data_dir, alone=False)
    assert_ledger_is_the_venues(data_dir)
    print(f"three runs at once: {sent} orders, none twice")
