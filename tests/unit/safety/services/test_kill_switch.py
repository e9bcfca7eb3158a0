"""Stopping and releasing: fast, durable, by name, and never weaker than what stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
import redis
from kill_worlds import QUICK, FakeBell, eventually, quick, rows_of, view_of

from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.domain.kill import KillState, KillSwitchMode, LatchSource
from tinywindow.safety.domain.records import TradingState, Trip
from tinywindow.safety.errors import (
    ConfigurationError,
    ReleaseRefused,
    StartRefused,
    StoreUnavailable,
)
from tinywindow.safety.services.context import ContextHandle
from tinywindow.safety.services.kill_report import KillSwitchStatus
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.release import PendingRelease
from tinywindow.testing import ScriptedExchange

HALT, CLOSE = KillSwitchMode.HALT_ONLY, KillSwitchMode.CLOSE_POSITIONS


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "t.db"


@pytest.fixture
def bell() -> FakeBell:
    return FakeBell()


@pytest.fixture
async def switch(database: Path, bell: FakeBell) -> AsyncIterator[KillSwitch]:
    async with KillSwitch(bell, None, database, config=QUICK) as made:
        yield made


async def trading(switch: KillSwitch) -> TradingState:
    return await switch._register.store.read(lambda tx: tx.head().trading)


async def test_a_fresh_switch_is_inactive(switch: KillSwitch) -> None:
    assert not await switch.is_active()
    status = await switch.get_status()
    assert status == KillSwitchStatus(active=False)
    assert await trading(switch) is TradingState.RUNNING
    assert await switch.deactivate() == status


async def test_a_stop_stands_in_file_database_and_redis(
    switch: KillSwitch, database: Path, bell: FakeBell
) -> None:
    report = await switch.activate(reason="too\nwild", actor="ann")
    assert report.durable
    assert (report.mode, report.state, report.errors) == (HALT, KillState.HALTED, ())
    assert report.latch_id in (database.parent / "KILL").read_text()
    assert bell.rung == [report.latch_id]
    assert await trading(switch) is TradingState.STOPPED
    status = await switch.get_status()
    assert (status.reason, status.actor, status.source) == ("too wild", "ann", LatchSource.PYTHON)
    assert status.latch_ids == (report.latch_id,)
    rows = await rows_of(database, "KILL_SWITCH_ACTIVATE")
    assert [row.actor for row in rows] == ["ann"]


async def test_a_release_clears_all_three_and_starts_nothing(
    switch: KillSwitch, database: Path, bell: FakeBell
) -> None:
    report = await switch.activate()
    status = await switch.deactivate(reason="calm", actor="bob")
    assert isinstance(status, KillSwitchStatus)
    assert not status.active
    assert bell.value is None
    assert not (database.parent / "KILL").exists()
    assert await trading(switch) is TradingState.STOPPED
    rows = await rows_of(database)
    assert [row.event_type for row in rows] == ["KILL_SWITCH_ACTIVATE", "KILL_SWITCH_DEACTIVATE"]
    assert report.latch_id in rows[1].data
    assert switch._register.local() == ()


async def test_trading_comes_back_by_an_explicit_start_only(
    switch: KillSwitch, database: Path
) -> None:
    await switch.activate()
    with pytest.raises(StartRefused, match="kill switch"):
        await switch.start_trading(actor="ann")
    await switch.deactivate()
    async with KillSwitch(None, None, database, config=QUICK) as restarted:
        assert await trading(restarted) is TradingState.STOPPED
        assert await restarted.start_trading(actor="ann", reason="all clear")
        assert not await restarted.start_trading(actor="ann")
        assert await trading(restarted) is TradingState.RUNNING
        assert await restarted.stop_trading(actor="ann")
        assert not await restarted.stop_trading(actor="ann")
    events = [row.event_type for row in await rows_of(database)]
    assert events[-2:] == ["TRADING_STARTED", "TRADING_STOPPED"]


async def test_trading_does_not_start_while_the_breaker_is_tripped(switch: KillSwitch) -> None:
    trip = Trip("T1", "drawdown", "-20", "-15", "DRAWDOWN: too deep", 1)
    await switch._register.store.write(lambda tx: tx.add_trip(trip))
    with pytest.raises(StartRefused, match="DRAWDOWN"):
        await switch.start_trading(actor="ann")


async def test_a_halt_escalates_and_a_close_is_never_lowered(switch: KillSwitch) -> None:
    first = await switch.activate(HALT)
    second = await switch.activate(CLOSE)
    third = await switch.activate("HALT_ONLY")
    assert [first.mode, second.mode, third.mode] == [HALT, CLOSE, CLOSE]
    assert len({first.latch_id, second.latch_id, third.latch_id}) == 3
    status = await switch.get_status()
    assert len(status.latches) == 3
    assert status.mode is CLOSE


async def test_an_unknown_mode_still_stops(switch: KillSwitch) -> None:
    report = await switch.activate("FLATTEN EVERYTHING")
    assert report.mode is HALT
    assert "not known" in report.errors[0]


async def test_a_release_clears_what_it_was_shown_and_nothing_later(switch: KillSwitch) -> None:
    await switch.activate(reason="first")
    shown = await switch.get_status()
    await switch.activate(CLOSE, reason="second")
    await switch.deactivate(seen=shown)
    status = await switch.get_status()
    assert status.active
    assert [latch.reason for latch in status.latches] == ["second"]
    assert (Path(switch._handle.data_dir) / "KILL").exists()


async def test_a_stop_during_a_release_stands(switch: KillSwitch, bell: FakeBell) -> None:
    await switch.activate(reason="first")
    shown = await switch.get_status()
    await asyncio.gather(switch.deactivate(seen=shown), switch.activate(reason="second"))
    assert await switch.is_active()
    latches = (await switch.get_status()).latches
    assert [latch.reason for latch in latches] == ["second"]
    await eventually(lambda: bell.value is not None)


async def test_a_cancelled_caller_does_not_take_the_stop_along(
    switch: KillSwitch, database: Path
) -> None:
    task = asyncio.ensure_future(switch.activate(reason="hurry"))
    await asyncio.sleep(0)
    assert (database.parent / "KILL").exists()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: _standing(switch))


async def _standing(switch: KillSwitch) -> bool:
    return bool((await view_of(switch)).standing)


async def test_a_restart_changes_nothing(database: Path) -> None:
    async with KillSwitch(None, None, database, config=QUICK) as first:
        await first.activate(reason="before")
    (database.parent / "KILL").unlink()
    async with KillSwitch(None, None, database, config=QUICK) as second:
        assert await second.is_active()
        assert (await second.get_status()).reason == "before"


async def test_two_switches_in_one_loop_share_the_stop(database: Path) -> None:
    async with (
        KillSwitch(None, None, database, config=QUICK) as one,
        KillSwitch(None, None, database, config=QUICK) as two,
    ):
        await one.activate()
        assert await two.is_active()
        await two.deactivate()
        assert not await one.is_active()


# What is broken.


async def break_store(switch: KillSwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    context = await switch._handle.open()

    async def unavailable(*_: object, **__: object) -> object:
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr(context.store, "transact", unavailable)
    monkeypatch.setattr(context.store, "read", unavailable)


async def test_without_the_database_a_stop_is_journalled_and_merged_later(
    switch: KillSwitch, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        await break_store(switch, broken)
        report = await switch.activate(CLOSE, reason="no disk")
        assert not report.durable
        assert report.mode is CLOSE
        assert "database" in report.errors[0]
        assert await switch.is_active()
        with pytest.raises(ReleaseRefused, match="STATE_UNKNOWN"):
            await switch.deactivate()
    await eventually(lambda: _standing(switch))
    assert [latch.id for latch in (await view_of(switch)).standing] == [report.latch_id]
    assert len(await rows_of(database, "KILL_SWITCH_ACTIVATE")) == 1
    assert (await switch.get_status()).mode is CLOSE


async def test_a_state_that_cannot_be_read_is_active_without_a_latch(
    switch: KillSwitch, bell: FakeBell, monkeypatch: pytest.MonkeyPatch
) -> None:
    bell.down = "LOADING"
    assert await switch.is_active()
    status = await switch.get_status()
    assert (status.mode, status.latches) == (HALT, ())
    assert status.reason == "STATE_UNKNOWN: LOADING"
    bell.down = None
    assert not await switch.is_active()
    with monkeypatch.context() as broken:
        await break_store(switch, broken)
        assert await switch.is_active()
        assert "disk is gone" in (await switch.get_status()).reason
    assert not await switch.is_active()


async def test_a_redis_that_hangs_costs_half_a_second(switch: KillSwitch, bell: FakeBell) -> None:
    bell.hangs = True
    begun = asyncio.get_running_loop().time()
    assert await switch.is_active()
    assert asyncio.get_running_loop().time() - begun < 1.0
    report = await switch.activate()
    assert report.durable
    assert "Redis" in report.errors[0]


async def test_the_order_path_asks_redis_within_its_bound(
    switch: KillSwitch, bell: FakeBell
) -> None:
    assert await switch.found() == ()
    bell.value = b"1"
    assert [breach.code for breach in await switch.found()] == [Reason.KILL_SWITCH_ACTIVE]
    bell.hangs = True
    begun = asyncio.get_running_loop().time()
    assert [breach.code for breach in await switch.found()] == [Reason.STATE_UNKNOWN]
    assert asyncio.get_running_loop().time() - begun < 0.3


async def test_a_release_needs_redis(switch: KillSwitch, bell: FakeBell) -> None:
    await switch.activate()
    bell.down = "READONLY"
    with pytest.raises(ReleaseRefused, match="READONLY"):
        await switch.deactivate()
    bell.down = None
    assert await switch.is_active()
    await switch.deactivate()
    assert not await switch.is_active()


async def test_a_release_that_redis_does_not_complete_leaves_a_stop(
    switch: KillSwitch, bell: FakeBell, monkeypatch: pytest.MonkeyPatch
) -> None:
    await switch.activate(CLOSE)

    async def breaks(*_: object) -> bool:
        bell.down = "connection lost"
        await bell._meet()
        return True

    monkeypatch.setattr(bell, "silence", breaks)
    with pytest.raises(ReleaseRefused, match="could not be completed"):
        await switch.deactivate(force=True)
    bell.down, bell.value = None, None
    monkeypatch.undo()
    status = await switch.get_status()
    assert status.active
    assert status.mode is HALT
    await switch.deactivate()
    assert not await switch.is_active()


async def test_a_release_that_cannot_remove_the_file_leaves_a_stop(
    switch: KillSwitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    await switch.activate()

    def denied(*_: object) -> bool:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(type(switch._register.store.kill_file), "remove", denied)
    with pytest.raises(ReleaseRefused, match="KILL"):
        await switch.deactivate()
    monkeypatch.undo()
    assert len((await switch.get_status()).latches) == 1


# Two persons.


async def two_person_release(
    database: Path, **changes: object
) -> tuple[KillSwitch, PendingRelease]:
    switch = KillSwitch(None, None, database, config=quick(two_person=True, **changes))
    await switch.activate()
    pending = await switch.deactivate(actor="Ann", reason="calm")
    return switch, cast("PendingRelease", pending)


async def test_a_second_operator_confirms_a_release(database: Path) -> None:
    switch, pending = await two_person_release(database)
    async with switch:
        assert await switch.is_active()
        assert switch.pending(pending.id) is pending
        for same in ("Ann", " ann ", ""):
            with pytest.raises(ReleaseRefused):
                await pending.confirm(same)
        status = await pending.confirm("Bob", "agreed")
        assert not status.active
        with pytest.raises(ReleaseRefused, match="before"):
            await pending.confirm("Bob")
    row = (await rows_of(database, "KILL_SWITCH_DEACTIVATE"))[0]
    assert row.actor == "Ann and Bob"


async def test_a_pending_release_covers_only_what_it_showed(database: Path) -> None:
    switch, pending = await two_person_release(database)
    async with switch:
        await switch.activate(reason="later")
        status = await pending.confirm("Bob")
        assert [latch.reason for latch in status.latches] == ["later"]


async def test_a_pending_release_expires(database: Path) -> None:
    switch, pending = await two_person_release(database)
    async with switch:
        pending.expires_at -= timedelta(seconds=601)
        with pytest.raises(ReleaseRefused, match="expired"):
            await pending.confirm("Bob")


async def test_nobody_asks_for_a_release_without_a_name(database: Path) -> None:
    async with KillSwitch(None, None, database, config=quick(two_person=True)) as switch:
        await switch.activate()
        with pytest.raises(ReleaseRefused, match="name"):
            await switch.deactivate()


# Construction.


@pytest.mark.parametrize(
    ("redis_client", "exchanges", "words"),
    [
        (redis.Redis(), None, "synchronous"),
        (42, None, "redis_client"),
        ("http://x", None, "redis://"),
        (None, 42, "exchanges"),
        (None, "binance", "exchanges"),
        (None, [object()], "no adapter"),
        (None, [ScriptedExchange], "instance"),
        (None, [ScriptedExchange("a"), ScriptedExchange("a")], "more than one"),
    ],
)
def test_what_cannot_work_is_refused_at_construction(
    database: Path, redis_client: object, exchanges: object, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        KillSwitch(redis_client, exchanges, database)


def test_a_synchronous_ccxt_instance_is_refused(database: Path) -> None:
    kind = type("binance", (), {"__module__": "ccxt.binance"})
    with pytest.raises(ConfigurationError, match="synchronous"):
        KillSwitch(None, {"binance": kind()}, database)


async def test_the_data_directory_holds_nothing_else_readable_by_others(
    switch: KillSwitch, database: Path
) -> None:
    await switch.activate(reason="secret plans")
    assert (database.parent / "KILL").stat().st_mode & 0o077 == 0


async def test_another_objects_context_sees_the_own_flag_at_once(database: Path) -> None:
    handle = ContextHandle(database)
    context = await handle.open()
    async with KillSwitch(None, None, database, config=QUICK) as switch:
        assert context.stop_probe() is None
        task = asyncio.ensure_future(switch.activate(reason="now"))
        await asyncio.sleep(0)
        assert context.local_stops
        assert context.stop_probe() is not None
        await task
        await switch.deactivate()
        assert context.stop_probe() is None
    await handle.close()
