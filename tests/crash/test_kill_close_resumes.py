"""A process is killed at random moments of a close, and another finishes it, to the last coin."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from decimal import Decimal as D
from pathlib import Path
from random import Random

import pytest
from closing_trader import MANAGED, prepare

from closing_desk import Desk, misdeeds_of, placed_twice, rows, steps
from program import SOAK, audit_faults
from tinywindow.safety.stores.sqlite import SqliteStore

pytestmark = pytest.mark.crash

TRADER = Path(__file__).with_name("closing_trader.py")
SEEDS = range(40) if SOAK else range(4)
AT_ONCE = 4


def start(folder: Path, seed: int) -> subprocess.Popen[str]:
    """A process that closes what `prepare` left in the folder."""
    with (folder / "stderr").open("a") as errors:
        return subprocess.Popen(
            [sys.executable, str(TRADER), str(folder), str(seed)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def dies_while_closing(folder: Path, seed: int, after_s: float) -> bool:
    """Kill a close a moment after its stop was latched; whether it had got to its end."""
    process = start(folder, seed)
    assert process.stdout is not None
    with process, process.stdout as told:
        begun = any(line == "closing\n" for line in told)
        assert begun, (folder / "stderr").read_text()
        time.sleep(after_s)
        process.kill()
        return "flat\n" in told.readlines()


async def finished_by_a_kill_switch(folder: Path) -> None:
    desk = Desk(folder)
    async with desk.switch() as switch:
        assert await switch.is_active()
        report = await switch.wait_flat(40)
        assert report.flat, report
    await desk.exchange.close()


def finished_by_the_command(folder: Path) -> dict[str, object]:
    done = subprocess.run(
        [
            sys.executable, "-m", "tinywindow.cli", "--json", "kill", "--data-dir", str(folder),
            "--mode", "CLOSE_POSITIONS", "--reason", "the first died", "--wait",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


async def audit_is_whole(folder: Path) -> None:
    store = await SqliteStore.open(folder / "tinywindow.db")
    try:
        await store.transact(lambda tx: tx.drain_outbox())
        audit = await store.read(lambda tx: tx.audit_rows(limit=10_000))
        holds = await store.read(lambda tx: dict(tx.book().holds))
        records = await store.read(lambda tx: tx.close_records())
    finally:
        await store.close()
    assert not audit_faults(folder)
    assert holds == {}
    assert [record.state for record in records] == ["FLAT"]
    sent = rows(
        folder / "paper.db",
        "SELECT client_order_id FROM placement WHERE client_order_id NOT LIKE 'SETUP-%'",
    )
    told = [row.order_id for row in steps(audit, "CLOSE")]
    assert len(set(told)) == len(told)
    assert {order_id for (order_id,) in sent} <= set(told)
    assert steps(audit, "FLAT")
    last_ms = rows(folder / "paper.db", "SELECT max(filled_ms) FROM fill")[0][0]
    assert records[0].updated_ms - last_ms >= 1000
    told_in_all = json.loads(records[0].report)["positions"]
    for position in told_in_all:
        if D(position["wanted"]):
            assert D(position["filled"]) == D(position["wanted"]), position
            assert D(position["left"]) == 0


async def check(folder: Path) -> None:
    assert misdeeds_of(folder / "paper.db", MANAGED) == []
    assert placed_twice(folder / "paper.db") == []
    left = {s: D(a) for s, a in rows(folder / "paper.db", "SELECT symbol, amount FROM holding")}
    assert {s: a for s, a in left.items() if a} == MANAGED
    assert rows(folder / "paper.db", "SELECT 1 FROM paper_order WHERE status = 'OPEN'") == []
    await audit_is_whole(folder)


@pytest.mark.parametrize("first", range(0, len(SEEDS), AT_ONCE))
async def test_whoever_resumes_finishes_and_never_sells_twice(tmp_path: Path, first: int) -> None:
    folders = {seed: tmp_path / str(seed) for seed in SEEDS[first : first + AT_ONCE]}
    for folder in folders.values():
        folder.mkdir()
        await prepare(folder)
    moments = {seed: Random(f"moment {seed}").uniform(0, 0.9) for seed in folders}
    got_to_the_end = await asyncio.gather(
        *(
            asyncio.to_thread(dies_while_closing, folder, seed, moments[seed])
            for seed, folder in folders.items()
        )
    )
    assert not all(got_to_the_end)
    by_command = [folder for seed, folder in folders.items() if seed % 2]
    by_switch = [folder for seed, folder in folders.items() if not seed % 2]
    await asyncio.gather(
        *(finished_by_a_kill_switch(folder) for folder in by_switch),
        *(asyncio.to_thread(finished_by_the_command, folder) for folder in by_command),
    )
    for folder in folders.values():
        await check(folder)


async def test_a_second_death_while_resuming_changes_nothing(tmp_path: Path) -> None:
    await prepare(tmp_path)
    assert not await asyncio.to_thread(dies_while_closing, tmp_path, 7, 0.1)
    sent = len(rows(tmp_path / "paper.db", "SELECT 1 FROM placement"))
    # The next one waits until the dead one's lease has lapsed, takes it, and dies as well.
    again = start(tmp_path, 8)
    assert again.stdout is not None
    with again, again.stdout:
        until = time.monotonic() + 30
        while len(rows(tmp_path / "paper.db", "SELECT 1 FROM placement")) < sent + 3:
            assert time.monotonic() < until, (tmp_path / "stderr").read_text()
            time.sleep(0.01)
        again.kill()
    await finished_by_a_kill_switch(tmp_path)
    await check(tmp_path)
