"""The whole graph: a run from its start to its end, a replay, a restart, a signal."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tinywindow.cli import kill_wait
from tinywindow.cli.output import Output
from tinywindow.cli.session import Session
from tinywindow.run_report import RunReport
from tinywindow.runtime import Runtime, build, run_until_end
from tinywindow.safety import KillSwitch
from tinywindow.safety.config.layers import Layers
from tinywindow.safety.domain.audit import AuditRow
from tinywindow.safety.errors import ConfigurationError, LimitsDiffer, StoreUnavailable
from tinywindow.safety.ports import Clock
from tinywindow.safety.stores.sqlite import SqliteStore
from tinywindow.settings import RunOptions, RunSettings, Settings

DAY_MS = 86_400_000
NOON_MS = 1_772_625_600_000


def candles(folder: Path, closes: list[float], symbol: str = "BTCUSDT") -> Path:
    """A file of one-minute bars with these closes."""
    rows = [
        f"{NOON_MS + 60_000 * number},{close},{close},{close},{close},1"
        for number, close in enumerate(closes)
    ]
    path = folder / f"{symbol}_1m.csv.gz"
    text = "\n".join(["timestamp_ms,open,high,low,close,volume", *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()))
    return path


def settings(folder: Path, **given: Any) -> Settings:
    return Settings.load(environ={}, data_dir=folder / "data", **given)


def replaying(folder: Path, *files: Path, **options: Any) -> tuple[Runtime, list[str]]:
    said: list[str] = []
    given = {"replay": files, "speed": None, "exit_at_end": True, "strategy": "hold", **options}
    report = RunReport(say=said.append)
    return build(settings(folder), RunOptions(**given), report), said


async def rows(folder: Path, event: str | None = None) -> tuple[AuditRow, ...]:
    store = await SqliteStore.open(folder / "data" / "tinywindow.db")
    try:
        return await store.read(lambda tx: tx.audit_rows(limit=100_000, event_type=event))
    finally:
        await store.close()


CRASH = [100.0] * 5 + [100 - 3 * n for n in range(1, 25)] + [28.0] * 5


async def test_a_replay_buys_trips_on_the_crash_and_watches_to_the_end(tmp_path: Path) -> None:
    runtime, said = replaying(tmp_path, candles(tmp_path, CRASH))
    await run_until_end(runtime)
    summary = runtime.report.summary()
    assert summary["moments"] == len(CRASH)
    assert summary["orders"]["accepted"] == 1  # type: ignore[index]
    assert any("HALTED    DAILY_PNL: " in line for line in said)
    assert len(await rows(tmp_path, "CIRCUIT_BREAKER_TRIP")) == 1


async def test_the_rows_of_a_replay_carry_the_walls_time_beside_the_markets(
    tmp_path: Path,
) -> None:
    runtime, _ = replaying(tmp_path, candles(tmp_path, CRASH))
    before = wall(runtime).now()
    await run_until_end(runtime)
    found = await rows(tmp_path)
    assert len(found) > 3
    for row in found:
        assert row.time.startswith("2026-03-04T12:")
        assert json.loads(row.data)["wall_time"] >= before.strftime("%Y-%m-%dT%H:%M:%S")


def wall(runtime: Runtime) -> Clock:
    location = runtime.orchestrator.limits._handle._location
    assert location is not None
    assert location.wall is not None
    return location.wall


async def test_a_second_signal_does_not_cut_the_shutdown_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, _ = replaying(tmp_path, candles(tmp_path, CRASH))
    close = runtime.exchange.close
    closed: list[bool] = []

    async def signalled() -> None:
        # Now two signals have come: one would have begun the shutdown, and this is the other.
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10):
            await asyncio.sleep(0)
        await close()
        closed.append(True)

    monkeypatch.setattr(runtime.exchange, "close", signalled)
    await run_until_end(runtime)
    assert closed


async def test_the_same_files_give_the_same_decisions(tmp_path: Path) -> None:
    summaries = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        runtime, _ = replaying(tmp_path / name, candles(tmp_path, CRASH))
        await run_until_end(runtime)
        summaries.append(runtime.report.summary())
    assert summaries[0] == summaries[1]


async def test_a_replay_that_is_started_again_goes_on_and_stays_halted(tmp_path: Path) -> None:
    path = candles(tmp_path, CRASH)
    runtime, _ = replaying(tmp_path, path)
    await run_until_end(runtime)
    again, said = replaying(tmp_path, path)
    await run_until_end(again)
    assert again.report.moments == 0
    assert again.report.sent == 0
    assert any("goes on behind" in line for line in said)
    assert len(await rows(tmp_path, "CIRCUIT_BREAKER_TRIP")) == 1


async def test_a_process_that_restarts_tripped_stays_halted(tmp_path: Path) -> None:
    given = settings(tmp_path, run={"cycle_interval": 0.01})
    first = build(given, RunOptions(), RunReport())
    await first.orchestrator.start()
    await first.orchestrator.circuit_breaker.record_equity(1_000)
    await first.orchestrator.close()

    said: list[str] = []
    again = build(given, RunOptions(), RunReport(say=said.append))
    running = asyncio.create_task(run_until_end(again))
    while again.report.moments < 3:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 20)
    assert again.report.sent == 0
    assert "HALTED    DAILY_PNL: -95.00 %" in said[0]


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_run_in_order(tmp_path: Path, name: signal.Signals) -> None:
    runtime = build(settings(tmp_path, run={"cycle_interval": 0.01}), RunOptions(), RunReport())
    running = asyncio.create_task(run_until_end(runtime))
    while runtime.report.moments < 3:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), name)
    await asyncio.wait_for(running, 20)
    assert runtime.orchestrator.limits.opened is None
    assert signal.getsignal(name) in {signal.default_int_handler, signal.SIG_DFL}
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not {one for one in names if one.startswith(("tinywindow", "circuit-breaker"))}


async def test_a_signal_during_a_start_that_hangs_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = build(settings(tmp_path), RunOptions(), RunReport())
    reached = asyncio.Event()

    async def hang() -> object:
        reached.set()
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(runtime.orchestrator.recovery, "run", hang)
    running = asyncio.create_task(run_until_end(runtime))
    await reached.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 10)


async def test_a_stop_is_told_and_so_is_what_stands_after_its_release(tmp_path: Path) -> None:
    said: list[str] = []
    given = settings(tmp_path, run={"cycle_interval": 0.01})
    runtime = build(given, RunOptions(strategy="hold"), RunReport(say=said.append))
    running = asyncio.create_task(run_until_end(runtime))
    async with KillSwitch(None, None, runtime.orchestrator.limits._handle._location) as switch:

        async def until(word: str) -> None:
            while not any(word in line for line in said):
                await asyncio.sleep(0.01)

        await until("accepted")
        await switch.activate(reason="enough", actor="ada")
        await until("HALTED    kill switch: enough")
        await switch.deactivate(reason="looked", actor="ada", force=True)
        await until("HALTED    trading is stopped until an operator starts it")
        await switch.start_trading(actor="ada")
        await until("RUNNING   trading goes on")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 20)


async def test_a_store_that_is_away_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, _ = replaying(tmp_path, candles(tmp_path, [100.0] * 3))
    work, failing = runtime.may_trade, [True]

    async def sometimes() -> str | None:
        if failing:
            failing.pop()
            raise StoreUnavailable("away")
        return await work()

    monkeypatch.setattr(Runtime, "may_trade", lambda _self: sometimes())
    await asyncio.wait_for(run_until_end(runtime), 20)
    assert runtime.report.moments == 3


async def test_a_run_that_is_not_to_end_waits_at_the_end_of_its_market(tmp_path: Path) -> None:
    runtime, said = replaying(tmp_path, candles(tmp_path, [100.0] * 3), exit_at_end=False)
    running = asyncio.create_task(run_until_end(runtime))
    while not any("waiting until told to end" in line for line in said):
        await asyncio.sleep(0.01)
    assert not running.done()
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(running, 10)


async def test_other_limits_than_the_stores_keep_a_process_from_starting(tmp_path: Path) -> None:
    path = candles(tmp_path, [100.0] * 3)
    runtime, _ = replaying(tmp_path, path)
    await run_until_end(runtime)
    smaller = settings(tmp_path, position_limits={"max_leverage": 3})
    options = replace(runtime.options)
    with pytest.raises(LimitsDiffer):
        await run_until_end(build(smaller, options, RunReport()))
    await run_until_end(build(smaller, replace(options, adopt_limits=True), RunReport()))
    await run_until_end(build(smaller, replace(options, change_limits=True), RunReport()))
    assert len(await rows(tmp_path, "CONFIG_CHANGED")) == 2


def test_live_venues_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="live"):
        build(settings(tmp_path), RunOptions(live="binance"), RunReport())
    assert not (tmp_path / "data").exists()


def test_a_replay_has_a_database_of_its_own(tmp_path: Path) -> None:
    elsewhere = settings(tmp_path, database=f"sqlite:///{tmp_path}/real.db")
    options = RunOptions(replay=(candles(tmp_path, [100.0] * 3),), speed=None)
    with pytest.raises(ConfigurationError, match="database of its own"):
        build(elsewhere, options, RunReport())
    assert not (tmp_path / "data").exists()


def test_a_replay_neither_hears_nor_rings_the_bell_of_trading(tmp_path: Path) -> None:
    given = settings(tmp_path, redis="redis://127.0.0.1:1/0")
    options = RunOptions(replay=(candles(tmp_path, [100.0] * 3),), speed=None)
    runtime = build(given, options, RunReport())
    assert runtime.orchestrator.kill_switch._register.doorbell is None


def test_trading_in_real_time_has_one_time_only(tmp_path: Path) -> None:
    runtime = build(settings(tmp_path), RunOptions(), RunReport())
    location = runtime.orchestrator.limits._handle._location
    assert location is not None
    assert location.wall is None


async def test_accounts_that_share_a_database_are_told_apart_by_venue(tmp_path: Path) -> None:
    """Each data directory has an account of its own, whose positions are no other's."""
    made = {}
    for name in ("paper-a", "paper-b", None):
        given = {} if name is None else {"run": RunSettings(venue=name)}
        one = settings(tmp_path / str(name), **given)
        runtime = build(one, RunOptions(strategy="hold"), RunReport(say=str))
        made[name] = (runtime.exchange.name, runtime.orchestrator.account)
        await runtime.exchange.close()
    assert made == {
        "paper-a": ("paper-a", "paper-a"),
        "paper-b": ("paper-b", "paper-b"),
        None: ("paper", "default"),
    }


@pytest.mark.parametrize("name", ["", "a b", "x" * 33, "a/b", 7])
def test_a_venues_name_is_one_that_an_order_can_carry(name: object) -> None:
    with pytest.raises(ConfigurationError, match="venue"):
        RunSettings(venue=name)


async def test_kill_wait_closes_the_account_under_the_name_that_it_trades_under(
    tmp_path: Path,
) -> None:
    one = settings(tmp_path, run=RunSettings(venue="paper-a"))
    runtime = build(one, RunOptions(strategy="hold"), RunReport(say=str))
    await runtime.exchange.account()
    await runtime.exchange.close()
    venues = kill_wait._venues(Session(one, Layers(), Output(as_json=True)))
    assert list(venues) == [runtime.exchange.name] == ["paper-a"]
    for venue in venues.values():
        await venue.close()
