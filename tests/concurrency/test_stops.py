"""Stops under fire: seen at once by every process, committed soon, and no order in between.

The machine may be busy with something else while these run, so figures are taken as the best of a
few rounds; what must never happen is asserted in every round.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from writers import StopClock, Writers, approvals_after, newest_seq

from program import FORKS, SOAK, audit_faults, query, tinywindow, wait_for
from tinywindow.safety import CircuitBreaker, KillSwitch, KillSwitchMode
from tinywindow.safety.domain.kill import Latch, LatchSource
from tinywindow.safety.domain.records import Trip
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.context import ContextHandle

pytestmark = [
    pytest.mark.alone,
    pytest.mark.concurrency,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

ROUNDS = 10 if SOAK else 3
WAIT_ROUNDS = 10 if SOAK else 6
"""More, since of 32 writers each waits for all the others on what may be a crowded machine."""
SEEN_S_MAX = 0.05
LATCHED_S_MAX = 0.25
WAIT_S_MAX = 0.5


def by_python(folder: Path) -> None:
    async def stop() -> None:
        switch = KillSwitch(None, (), folder / "tinywindow.db")
        report = await switch.activate(KillSwitchMode.HALT_ONLY, "test", actor="test")
        assert report.mode is KillSwitchMode.HALT_ONLY
        await switch.close()

    asyncio.run(stop())


def by_command(folder: Path) -> None:
    said = tinywindow("kill", "--reason", "test", "--data-dir", folder, "--json")
    assert said.code == 0, said.err
    assert said.document["durable"] is True


def by_hand(folder: Path) -> None:
    (folder / "KILL").touch()


def stopped_under_fire(folder: Path, stop: Callable[[Path], None]) -> tuple[float, float, float]:
    """One stop among eight writers; how long until seen, until answered, and until latched."""
    folder.mkdir()
    with Writers(folder=folder, number=8, watch=True) as writers, StopClock(folder) as clock:
        writers.wait_for_turns(10)
        stop(folder)
        returned_s = time.monotonic()
        wait_for(clock.both, "file and latch")
        # Once a stop has been asked for and is committed, nothing is approved any more.
        seq = newest_seq(folder)
        wait_for(lambda: time.monotonic() > (clock.file_s or 0) + SEEN_S_MAX, "the bound")
        before = writers.turns()
        wait_for(
            lambda: all(n >= b + 5 for n, b in zip(writers.turns(), before, strict=True)),
            "five more turns each",
        )
        answers = writers.stop()
    file_s, latch_s = clock.file_s, clock.latch_s
    assert file_s is not None
    assert latch_s is not None
    assert approvals_after(folder, seq) == []
    assert audit_faults(folder) == []
    assert query(folder / "tinywindow.db", "SELECT trading FROM head") == [("STOPPED",)]
    allowed = [d for made in answers for d in made if d.allowed]
    assert len(allowed) >= 8
    assert [d for d in allowed if d.asked_s > returned_s] == []
    for made in answers:
        after = [d for d in made if d.asked_s > file_s + SEEN_S_MAX]
        assert len(after) >= 3
        assert {d.code for d in after} == {"KILL_SWITCH_ACTIVE"}
    seen_s = max(d.probed_s for d in allowed) - file_s
    answered_s = max(d.answered_s for d in allowed) - file_s
    return seen_s, answered_s, latch_s - file_s


@pytest.mark.parametrize("stop", [by_python, by_command, by_hand])
def test_a_stop_among_eight_writers(tmp_path: Path, stop: Callable[[Path], None]) -> None:
    rounds: list[tuple[float, float, float]] = []
    for n in range(ROUNDS):
        rounds.append(stopped_under_fire(tmp_path / str(n), stop))
        _, answered_s, latched_s = rounds[-1]
        if not SOAK and answered_s <= SEEN_S_MAX and latched_s <= LATCHED_S_MAX:
            break
    seen, answered, latched = (max(column) * 1000 for column in zip(*rounds, strict=True))
    print(
        f"{stop.__name__}: {len(rounds)} rounds, at worst the last yes was read {seen:+.1f} ms and "
        f"given {answered:+.1f} ms after the file, the latch committed {latched:.1f} ms after it"
    )
    assert all(one[0] <= SEEN_S_MAX for one in rounds)
    assert min(one[1] for one in rounds) <= SEEN_S_MAX
    assert min(one[2] for one in rounds) <= LATCHED_S_MAX


@dataclass(frozen=True)
class Waits:
    """One round of writers that are left alone; times in seconds.

    An answer LEDGER_BUSY is no turn: it is what a writer gets that waited in vain.
    """

    longest_s: float
    longest_release_s: float
    busy: int
    turns: list[int]

    @property
    def keeps_the_promise(self) -> bool:
        return (
            max(self.longest_s, self.longest_release_s) <= WAIT_S_MAX
            and self.busy == 0
            and 4 * min(self.turns) >= max(self.turns) > 0
        )


def waited(folder: Path, number: int) -> Waits:
    """Let so many writers ask as fast as they can, and see how long each decision took."""
    folder.mkdir()
    with Writers(folder=folder, number=number) as writers:
        writers.wait_for_turns(1)
        begun_s = time.monotonic()
        wait_for(lambda: time.monotonic() - begun_s > (10 if SOAK else 1.5), "time")
        answers = writers.stop()
    asked = [[d for d in made if d.asked_s >= begun_s] for made in answers]
    decisions = [d for made in asked for d in made]
    assert {d.code for d in decisions} <= {"", "LEDGER_BUSY"}
    assert audit_faults(folder) == []
    return Waits(
        longest_s=max(d.waited_s for d in decisions),
        longest_release_s=max(d.release_s for d in decisions),
        busy=sum(d.code == "LEDGER_BUSY" for d in decisions),
        turns=[sum(d.code == "" for d in made) for made in asked],
    )


@pytest.mark.parametrize("number", [8, 32])
def test_no_writer_waits_long_and_none_starves(tmp_path: Path, number: int) -> None:
    """In one round all of it holds: nobody is told LEDGER_BUSY, which comes before 500 ms are over.

    A machine that others use as well lets a writer wait in vain now and then; that is a refusal,
    as it should be, and makes the round one that shows nothing.
    """
    rounds: list[Waits] = []
    for n in range(WAIT_ROUNDS):
        rounds.append(waited(tmp_path / str(n), number))
        one = rounds[-1]
        print(
            f"{number} writers: {sum(one.turns)} decisions, longest wait "
            f"{one.longest_s * 1000:.0f} ms, to release {one.longest_release_s * 1000:.0f} ms, "
            f"turns from {min(one.turns)} to {max(one.turns)}, {one.busy} answered busy"
        )
        if one.keeps_the_promise and not SOAK:
            break
    assert any(one.keeps_the_promise for one in rounds), rounds


# --- what one process latches in the database, another sees -------------------------------------


def _look_out(database: str, seen: Any) -> None:
    """Tell of every stop and trip, when the state in memory has it; reads nothing by itself."""

    async def watch() -> None:
        handle = ContextHandle(Path(database))
        context = await handle.open()
        breaker = CircuitBreaker(None, Path(database))
        await breaker.check_all_metrics()
        latches, tripped = 0, False
        seen.send(("ready", time.monotonic()))
        while True:
            await asyncio.sleep(0.001)
            book = context.store.peek(lambda book: book and (len(book.latches), book.trip))
            if book is not None and book[0] != latches:
                latches = book[0]
                seen.send(("stop", time.monotonic()))
            if breaker.is_tripped is not tripped:
                tripped = breaker.is_tripped
                seen.send(("trip" if tripped else "clear", time.monotonic()))

    asyncio.run(watch())


async def test_two_processes_see_each_others_stops_and_trips(tmp_path: Path) -> None:
    database = tmp_path / "tinywindow.db"
    handle = ContextHandle(database)
    store = (await handle.open()).store
    mine, its = FORKS.Pipe()
    watcher = FORKS.Process(target=_look_out, args=(str(database), its), daemon=True)
    watcher.start()

    async def told(what: str) -> float:
        def arrived() -> tuple[str, float] | None:
            return mine.recv() if mine.poll(0.001) else None

        name, at_s = await asyncio.to_thread(wait_for, arrived, what, timeout_s=15)
        assert name == what
        return float(at_s)

    try:
        await told("ready")
        rounds: list[list[float]] = []
        now = SystemClock().now()
        for m in range(ROUNDS):
            took: list[float] = []
            for n in range(100 if SOAK else 12):
                name = f"{m}-{n}"
                latch = Latch(
                    f"K{name}", KillSwitchMode.HALT_ONLY, "x", "a", LatchSource.PYTHON, now
                )
                await store.transact(lambda tx, latch=latch: tx.add_latch(latch), stop=True)
                took.append(-time.monotonic() + await told("stop"))
                trip = Trip(f"T{name}", "drawdown", "-16", "-15", "DRAWDOWN: x", 1)
                assert await store.transact(lambda tx, trip=trip: tx.add_trip(trip), stop=True)
                took.append(-time.monotonic() + await told("trip"))
                await store.transact(
                    lambda tx, name=name: tx.clear_trip(f"T{name}", at_ms=2, by="a")
                )
                await told("clear")
            rounds.append(took)
            middle, worst = statistics.median(took) * 1000, max(took) * 1000
            print(f"a stop or trip of another process: {middle:.0f} ms, at worst {worst:.0f} ms")
            if max(took) <= SEEN_S_MAX and not SOAK:
                break
    finally:
        watcher.kill()
        watcher.join()
        await handle.close()
    assert all(statistics.median(took) <= SEEN_S_MAX for took in rounds)
    assert min(max(took) for took in rounds) <= SEEN_S_MAX


async def test_another_processs_stop_refuses_the_very_next_decision(tmp_path: Path) -> None:
    """No poll is needed for it: the decision reads under the lock."""
    from writers import SYMBOL, prepared

    from tinywindow.safety import PositionLimitEnforcer
    from tinywindow.safety.stores.fast_latch import latch_in_database

    database = tmp_path / "tinywindow.db"
    await prepared(database)
    order = {"symbol": SYMBOL, "side": "BUY", "amount": "0.01", "type": "MARKET"}
    async with PositionLimitEnforcer(database) as limits:
        assert (await limits.check_order_allowed(order)).allowed
        fields: dict[str, object] = {
            "id": "K1",
            "mode": "HALT_ONLY",
            "reason": "x",
            "actor": "a",
            "source": "CLI",
            "activated_ms": 1,
        }
        process = FORKS.Process(
            target=latch_in_database, args=(str(database), fields, "2026-01-01T00:00:00.000000Z")
        )
        process.start()
        process.join()
        assert process.exitcode == 0
        result = await limits.check_order_allowed(order)
        assert result.reason_code == "KILL_SWITCH_ACTIVE", result
