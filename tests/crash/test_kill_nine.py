"""kill -9 at random moments of a replay with trading: what is left is always a state to go on from.

One long-lived data directory goes through all rounds. Each round starts the program, lets it
trade for a random while, and kills it; some are stopped by an operator first.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from program import (
    SOAK,
    assert_ledger_is_the_venues,
    assert_nothing_went_wrong,
    audit,
    candles,
    forked,
    placements,
    query,
    tinywindow,
    wait_for,
)
from tinywindow.safety import KillSwitch

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(1800 if SOAK else 240)]

ROUNDS = 300 if SOAK else 50
STOP_EVERY = 10
"""In every tenth round an operator stops trading before the kill."""
ALIVE_S = (0.05, 0.8)
SPEED = 24_000
"""Four hundred bars of one minute a second, so that kills hit amid the work of a bar."""
LIMITS = {
    # Below what the strategy asks for, so that the limits have something to do.
    "TINYWINDOW_POSITION_LIMITS__MAX_POSITION_SIZE": "3000",
    "TINYWINDOW_POSITION_LIMITS__MAX_TOTAL_EXPOSURE": "5000",
    "TINYWINDOW_POSITION_LIMITS__MAX_SECTOR_EXPOSURE_PCT": "100",
    # The market goes up and down for the sake of orders, not of losses.
    "TINYWINDOW_CIRCUIT_BREAKER__DAILY_LOSS_LIMIT": "-60",
    "TINYWINDOW_CIRCUIT_BREAKER__DRAWDOWN_LIMIT": "-60",
}


@dataclass
class Scene:
    data_dir: Path
    words: list[str]
    log: Path

    @property
    def database(self) -> Path:
        return self.data_dir / "tinywindow.db"

    def killed(self, rng: random.Random, *, bars: int | None, stop: bool) -> None:
        """One life: ended a random while after its start, or after so many bars of trading."""
        before = self.marks()
        process = forked(*self.words, "--speed", SPEED, log=self.log, environ=LIMITS)
        if bars is None:
            time.sleep(rng.uniform(*ALIVE_S))
        else:
            wait_for(lambda: self.marks() >= before + bars or not process.is_alive(), "it trades")
            time.sleep(rng.uniform(0, 0.01))
        if stop:
            # It latches while the program works; the program is killed right behind it.
            said = tinywindow("kill", "--reason", "drill", "--data-dir", self.data_dir)
            assert said.code == 0, said.err
        process.kill()
        process.join()
        assert process.exitcode == -9, self.log.read_text()[-3000:]

    def marks(self) -> int:
        try:
            return self._marks()
        except sqlite3.OperationalError:
            return 0  # it is being made

    def _marks(self) -> int:
        return int(query(self.database, "SELECT COUNT(*) FROM marks")[0][0])


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    bars = ROUNDS * 120
    files = (
        candles(tmp_path / "BTCUSDT_chop.csv.gz", price=60_000, bars=bars, seed=3),
        candles(tmp_path / "ETHUSDT_chop.csv.gz", price=3_000, bars=bars, seed=4),
    )
    data_dir = tmp_path / "data"
    replays = [word for file in files for word in ("--replay", str(file))]
    words = ["run", *replays, "--strategy", "momentum", "--exit-at-end", "--json"]
    return Scene(data_dir, [*words, "--data-dir", str(data_dir)], tmp_path / "log")


async def _release(database: Path) -> None:
    async with KillSwitch(None, (), database) as switch:
        await switch.deactivate(reason="drill over", actor="test")
        assert await switch.start_trading(actor="test")


def _a_stop_stays_a_stop(scene: Scene, sent: int) -> None:
    """After the kill, a start that is let live stays stopped and sends nothing."""
    marks = scene.marks()
    process = forked(*scene.words, "--speed", SPEED, log=scene.log, environ=LIMITS)
    wait_for(lambda: scene.marks() >= marks + 20 or not process.is_alive(), "the market is watched")
    process.kill()
    process.join()
    assert scene.marks() >= marks + 20, scene.log.read_text()[-3000:]
    assert len(placements(scene.data_dir)) == sent
    status = tinywindow("status", "--json", "--data-dir", scene.data_dir).document
    assert status["kill_switch"]["active"] is True
    assert status["trading"] == "STOPPED"


def test_restart_recovers_whatever_was_killed_and_when(scene: Scene) -> None:
    rng = random.Random(9)
    began = time.monotonic()
    sent = stops = traded_rounds = 0
    for round_no in range(ROUNDS):
        stop = round_no % STOP_EVERY == STOP_EVERY - 1
        # On a busy machine a random while is over before the market is reached.
        bars = rng.randint(1, 60) if round_no % 2 == 0 else None
        scene.killed(rng, bars=bars, stop=stop)
        if not scene.database.exists() or not (scene.data_dir / "paper.db").exists():
            continue
        before, sent = sent, len(placements(scene.data_dir))
        traded_rounds += sent > before
        if round_no % 5 == 0 or stop or SOAK:
            assert_nothing_went_wrong(scene.data_dir)
        if stop:
            stops += 1
            _a_stop_stays_a_stop(scene, sent)
            asyncio.run(_release(scene.database))
    killed_s = time.monotonic() - began
    # Let one live, so that what the last kill left behind is settled, and compare everything.
    before = scene.marks()
    end = forked(*scene.words, "--speed", SPEED, log=scene.log, environ=LIMITS)
    wait_for(lambda: scene.marks() >= before + 30 or not end.is_alive(), "it goes on")
    end.terminate()
    end.join(timeout=30)
    assert end.exitcode == 0, scene.log.read_text()[-3000:]
    assert_nothing_went_wrong(scene.data_dir)
    assert_ledger_is_the_venues(scene.data_dir)
    open_orders = query(
        scene.database, "SELECT * FROM orders WHERE state IN ('HELD', 'INTENDED', 'UNKNOWN')"
    )
    assert open_orders == []
    print(
        f"{ROUNDS} kills in {killed_s:.0f} s, {stops} of them stopped before; {sent} orders "
        f"sent in {traded_rounds} rounds, {len(audit(scene.data_dir, 'RECOVERY'))} recoveries"
    )
    assert traded_rounds >= ROUNDS // 4, "the kills did not hit amid trading"
    assert stops == ROUNDS // STOP_EVERY
