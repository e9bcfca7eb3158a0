"""A program that hangs is stopped from a second terminal, and sends nothing when it wakes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from program import (
    FORKS,
    assert_nothing_went_wrong,
    audit,
    candles,
    forked,
    placements,
    query,
    tinywindow,
    wait_for,
)
from tinywindow.safety import KillSwitch, PositionLimitEnforcer
from tinywindow.safety.stores.sqlite import SqliteStore

pytestmark = [pytest.mark.crash, pytest.mark.timeout(90)]

KILL_S_MAX = 3.0
"""Process start included, on a machine that is busy; on a quiet one it is 0.1 s, or 0.35 s where
the database is held."""


def state_of(process: BaseProcess) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]


def frozen(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    wait_for(lambda: state_of(process) == "T", "it stands still")


def thawed(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)


@pytest.fixture
def trading(tmp_path: Path) -> Iterator[tuple[BaseProcess, Path, Path]]:
    """A run that trades; its process, data directory and log."""
    file = candles(tmp_path / "BTCUSDT_chop.csv.gz", price=60_000, bars=4_000, seed=5)
    data_dir, log = tmp_path / "data", tmp_path / "log"
    words = ["run", "--replay", file, "--strategy", "momentum", "--speed", 12_000, "--json"]
    process = forked(*words, "--exit-at-end", "--data-dir", data_dir, log=log)
    wait_for((data_dir / "paper.db").exists, "it starts")
    wait_for(lambda: len(placements(data_dir)) >= 3, "it trades", timeout_s=60)
    yield process, data_dir, log
    if process.is_alive():
        process.kill()
    process.join()


def test_a_hung_run_is_stopped_and_sends_nothing_when_it_wakes(
    trading: tuple[BaseProcess, Path, Path],
) -> None:
    process, data_dir, log = trading
    frozen(process)
    sent = len(placements(data_dir))
    said = tinywindow("kill", "--reason", "it hangs", "--json", "--data-dir", data_dir)
    assert said.took_s < KILL_S_MAX
    assert said.document["latched"] is True
    assert said.document["in_file"] is True
    # Where it froze decides whether the database could be had at once; one of the two has it.
    assert said.document["durable"] is not said.document["journalled"]
    assert said.code == (0 if said.document["durable"] else 3)
    print(
        f"kill while run is hung: {said.took_s * 1000:.0f} ms, durable={said.document['durable']}"
    )
    assert (data_dir / "KILL").exists()

    # Before it wakes, one order may stand between its approval and the venue, in the same loop
    # turn; its approval has long expired, so not even that one is sent.
    marks = "SELECT COUNT(*) FROM marks"
    database = data_dir / "tinywindow.db"
    before = query(database, marks)[0][0]
    thawed(process)
    wait_for(lambda: query(database, marks)[0][0] >= before + 30, "it watches the market on")
    assert len(placements(data_dir)) == sent
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(timeout=20)
    assert process.exitcode == 0, log.read_text()[-3000:]
    assert len(placements(data_dir)) == sent
    latch_ids = [row["latch_id"] for row in audit(data_dir, "KILL_SWITCH_ACTIVATE")]
    assert latch_ids == [said.document["latch_id"]]
    assert_nothing_went_wrong(data_dir)


def _freeze_inside(database: str, folder: str) -> None:
    """Stand still in the middle of a write transaction; afterwards ask for an order."""

    async def work() -> None:
        store = await SqliteStore.open(Path(database))

        def script(tx: object) -> None:
            (Path(folder) / "inside").touch()
            # To this thread, which then goes no further: sent to the process, another may take it,
            # and this one would commit before it stands still.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

        await store.transact(script)
        await store.close()
        async with (
            KillSwitch(None, (), Path(database)) as switch,
            PositionLimitEnforcer(Path(database)) as limits,
        ):
            order = {"symbol": "BTC/USDT", "side": "BUY", "amount": "0.01", "type": "MARKET"}
            result = await limits.check_order_allowed(order)
            active = await switch.is_active()
            until = time.monotonic() + 10
            while not (await switch.get_status()).latch_ids and time.monotonic() < until:
                await asyncio.sleep(0.02)
        (Path(folder) / "answer").write_text(f"{active} {result.reason_code}")

    asyncio.run(work())


def test_a_process_that_hangs_with_the_write_lock_delays_no_stop(tmp_path: Path) -> None:
    database = tmp_path / "tinywindow.db"
    assert tinywindow("db", "upgrade", "--data-dir", tmp_path).code == 0
    process = FORKS.Process(target=_freeze_inside, args=(str(database), str(tmp_path)), daemon=True)
    process.start()
    try:
        wait_for((tmp_path / "inside").exists, "it is inside its transaction")
        wait_for(lambda: state_of(process) == "T", "it stands still")
        said = tinywindow("kill", "--reason", "it hangs", "--json", "--data-dir", tmp_path)
        print(f"kill while the write lock is held: {said.took_s * 1000:.0f} ms")
        assert said.took_s < KILL_S_MAX
        assert said.code == 3
        answer = said.document
        assert (answer["latched"], answer["in_file"]) == (True, True)
        assert (answer["durable"], answer["journalled"]) == (False, True)
        assert "no turn" in " ".join(answer["errors"])
        # Status needs no lock, and tells the truth at once.
        status = tinywindow("status", "--json", "--data-dir", tmp_path).document
        assert status["kill_switch"]["active"] is True
        thawed(process)
        process.join(timeout=30)
        assert process.exitcode == 0
    finally:
        if process.is_alive():
            process.kill()
            process.join()
    assert (tmp_path / "answer").read_text() == "True KILL_SWITCH_ACTIVE"
    # What the journal took is in the database now, once, under its own identity.
    rows = query(database, "SELECT id FROM latches WHERE released_ms IS NULL")
    assert rows == [(answer["latch_id"],)]


async def test_activate_with_the_write_lock_held_elsewhere_is_bounded(tmp_path: Path) -> None:
    """In-process the same: own flag and file at once, the journal in place of the database."""
    database = tmp_path / "tinywindow.db"
    async with KillSwitch(None, (), database) as switch:
        process = FORKS.Process(
            target=_freeze_inside, args=(str(database), str(tmp_path)), daemon=True
        )
        process.start()
        try:
            await asyncio.to_thread(wait_for, (tmp_path / "inside").exists, "it is inside")
            await asyncio.to_thread(wait_for, lambda: state_of(process) == "T", "it stands still")
            begun = time.monotonic()
            report = await switch.activate("HALT_ONLY", "it hangs", actor="test")
            took_s = time.monotonic() - begun
            print(f"activate while the write lock is held: {took_s * 1000:.0f} ms")
            assert took_s < KILL_S_MAX
            assert report.durable is False
            assert (tmp_path / "KILL").exists()
            assert await switch.is_active()
            thawed(process)
            await asyncio.to_thread(process.join, 30)
            assert process.exitcode == 0
        finally:
            if process.is_alive():
                process.kill()
                process.join()
        assert (tmp_path / "answer").read_text() == "True KILL_SWITCH_ACTIVE"
        rows = query(database, "SELECT COUNT(*) FROM latches WHERE released_ms IS NULL")
        assert rows == [(1,)]
