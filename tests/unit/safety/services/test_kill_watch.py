"""What comes by Redis, file or journal: latched once, never lost, and never back from the dead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from kill_worlds import QUICK, FakeBell, eventually, rows_of, view_of

from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.kill_watch import KillWatch
from tinywindow.safety.services.stop_register import StopRegister, View
from tinywindow.safety.stores import fast_latch
from tinywindow.safety.stores.fast_files import append_journal, journal_entry
from tinywindow.safety.stores.latch_fields import latch_to_fields
from tinywindow.safety.stores.ring_value import envelope, ring_of
from tinywindow.safety.stores.sqlite import SqliteStore
from tinywindow.testing import ScriptedExchange

HALT, CLOSE = KillSwitchMode.HALT_ONLY, KillSwitchMode.CLOSE_POSITIONS
PERP = "BTC/USDT:USDT"


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


async def standing(switch: KillSwitch) -> tuple[Latch, ...]:
    return (await view_of(switch)).standing


async def latched(switch: KillSwitch, count: int = 1) -> tuple[Latch, ...]:
    async def check() -> bool:
        return len(await standing(switch)) == count

    await eventually(check)
    return await standing(switch)


def named(bell: FakeBell) -> str | None:
    return None if bell.value is None else ring_of(bell.value).latch_id


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        (b"1", HALT),
        (b"", HALT),
        (b"0", HALT),
        (b"false", HALT),
        (b"CLOSE_POSITIONS", CLOSE),
        (b'{"mode": "CLOSE_POSITIONS"}', CLOSE),
        (b'{"mode": "nonsense"}', HALT),
        (b"\xff" * 4096, HALT),
        (b"\0type:list", HALT),
    ],
)
async def test_R7_any_value_is_latched_and_replaced_by_an_envelope(
    switch: KillSwitch, bell: FakeBell, database: Path, value: bytes, mode: KillSwitchMode
) -> None:
    bell.value = value
    assert await switch.is_active()
    (latch,) = await latched(switch)
    assert (latch.mode, latch.source) == (mode, LatchSource.REDIS)
    await eventually(lambda: named(bell) == latch.id)
    assert len(await rows_of(database, "KILL_SWITCH_ACTIVATE")) == 1


async def test_many_that_see_one_value_latch_it_once(database: Path, bell: FakeBell) -> None:
    switches = [KillSwitch(bell, None, database, config=QUICK) for _ in range(4)]
    for made in switches:
        await made.is_active()
    bell.value = b"CLOSE_POSITIONS"
    await asyncio.gather(*(made._watch.look() for made in switches))
    assert len(await standing(switches[0])) == 1
    for made in switches:
        await made.close()
    assert len(await rows_of(database, "KILL_SWITCH_ACTIVATE")) == 1


async def test_R1_R2_R5_R6_R10_R12_the_keys_absence_clears_nothing_and_it_is_rung_again(
    switch: KillSwitch, bell: FakeBell
) -> None:
    bell.value = b"1"
    (latch,) = await latched(switch)
    await eventually(lambda: named(bell) == latch.id)
    bell.value = None
    assert await switch.is_active()
    await eventually(lambda: named(bell) == latch.id)


async def test_the_same_value_set_again_after_a_release_is_a_new_stop(
    switch: KillSwitch, bell: FakeBell
) -> None:
    bell.value = b"1"
    (first,) = await latched(switch)
    await switch.deactivate()
    assert not await switch.is_active()
    bell.value = b"1"
    (second,) = await latched(switch)
    assert first.id != second.id


async def test_a_release_right_after_a_foreign_value_releases_it(
    switch: KillSwitch, bell: FakeBell
) -> None:
    bell.value = b"1"
    await switch.deactivate()
    assert not await switch.is_active()
    assert bell.value is None


async def test_R4_R17_an_envelope_of_a_released_stop_halts_again_and_never_closes(
    switch: KillSwitch, bell: FakeBell, database: Path
) -> None:
    report = await switch.activate(CLOSE)
    old = bell.value
    assert old is not None
    await switch.deactivate()
    await age_releases(switch)
    bell.value = old
    assert await switch.is_active()
    (again,) = await latched(switch)
    assert again.mode is HALT
    assert report.latch_id in again.id
    await eventually(lambda: named(bell) == again.id)
    assert len(await rows_of(database, "KILL_SWITCH_ACTIVATE")) == 2
    await switch.deactivate()
    await age_releases(switch)
    bell.value = old
    (third,) = await latched(switch)
    assert third.id != again.id


async def age_releases(switch: KillSwitch) -> None:
    """Let the grace of a release that is just under way pass."""
    clock = switch._register.clock

    class Later:
        def now(self) -> object:
            return clock.now() + timedelta(seconds=10)

        def monotonic(self) -> float:
            return clock.monotonic()

    switch._register.clock = Later()  # type: ignore[assignment]


async def test_a_stop_that_is_latched_while_it_is_asked_about_is_in_force(
    database: Path, bell: FakeBell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was read before the watcher latched what it had seen, and settled it."""
    monkeypatch.setattr(KillWatch, "start", lambda _: None)
    async with KillSwitch(bell, None, database, config=QUICK) as switch:
        register = switch._register
        view = StopRegister._view_or_fault

        async def overtaken(self: StopRegister, asked: frozenset[str]) -> View | str:
            seen = await view(self, asked)
            for sighting in self.notes.pending():
                self.notes.settle(sighting)
            return seen

        register.notes.heard(ring_of(b"1"), register.clock.monotonic(), register.clock.now())
        monkeypatch.setattr(StopRegister, "_view_or_fault", overtaken)
        assert await switch.is_active()


async def test_a_release_under_way_elsewhere_is_no_new_stop(
    switch: KillSwitch, bell: FakeBell
) -> None:
    await switch.activate()
    old = bell.value
    await switch.deactivate()
    bell.value = old
    assert await switch.is_active()
    await switch._watch.look()
    assert await standing(switch) == ()


async def test_a_ring_that_crosses_a_release_is_taken_back(
    switch: KillSwitch, bell: FakeBell
) -> None:
    report = await switch.activate()
    (latch,) = await standing(switch)
    await switch.deactivate()
    bell.value = envelope(latch)
    await switch._watch._take_back_if_released(latch)
    assert report.latch_id == latch.id
    assert bell.value is None


async def test_an_observer_that_slept_through_a_release_looks_again(
    switch: KillSwitch, bell: FakeBell
) -> None:
    bell.value = b"CLOSE_POSITIONS"
    begun = switch._register.clock.now()
    seen = await switch._register.read()
    assert seen.view is not None
    await switch._watch.look()
    await switch.deactivate()
    assert await switch._watch._merge(seen, seen.view, begun) == ()
    assert await standing(switch) == ()


async def test_an_envelope_that_nobody_knows_is_latched_under_its_own_name(
    switch: KillSwitch, bell: FakeBell
) -> None:
    now = switch._register.clock.now()
    latch = Latch("Kfar", CLOSE, "elsewhere", "ann", LatchSource.API, now)
    bell.value = envelope(latch)
    (found,) = await latched(switch)
    assert (found.id, found.mode, found.actor) == ("Kfar", CLOSE, "ann")


async def test_R11_without_the_database_a_foreign_close_flattens_and_is_merged_later(
    database: Path, bell: FakeBell, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = ScriptedExchange("venue", {PERP: 2})
    async with KillSwitch(bell, [venue], database, config=QUICK) as switch:
        with monkeypatch.context() as broken:

            async def unavailable(*_: object, **__: object) -> object:
                raise StoreUnavailable("the disk is gone")

            broken.setattr(SqliteStore, "transact", unavailable)
            broken.setattr(SqliteStore, "read", unavailable)
            bell.value = b"CLOSE_POSITIONS"
            await eventually(lambda: venue.position(PERP) == 0)
            bell.value = None
            assert await switch.is_active()
        (latch,) = await latched(switch)
        assert (latch.mode, latch.source) == (CLOSE, LatchSource.REDIS)
        await switch.wait_flat(5)
        await switch.deactivate(force=True)


async def test_without_the_database_an_envelope_can_only_halt(
    switch: KillSwitch, bell: FakeBell, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = switch._register.clock.now()
    with monkeypatch.context() as broken:

        async def unavailable(*_: object, **__: object) -> object:
            raise StoreUnavailable("the disk is gone")

        broken.setattr(SqliteStore, "transact", unavailable)
        broken.setattr(SqliteStore, "read", unavailable)
        bell.value = envelope(Latch("Kold", CLOSE, "r", "a", LatchSource.API, now))
        await eventually(lambda: bool(switch._register.local()))
        await asyncio.sleep(0.1)
        assert [latch.mode for latch in switch._register.local()] == [HALT]


async def test_a_file_made_by_hand_is_latched_once_and_deleting_it_releases_nothing(
    switch: KillSwitch, database: Path
) -> None:
    path = database.parent / "KILL"
    path.write_text("CLOSE_POSITIONS\n")
    assert await switch.is_active()
    (latch,) = await latched(switch)
    assert (latch.mode, latch.source) == (CLOSE, LatchSource.FILE)
    await eventually(lambda: latch.id in path.read_text())
    path.unlink()
    assert await switch.is_active()
    await switch.deactivate()
    assert not await switch.is_active()
    assert len(await rows_of(database, "KILL_SWITCH_ACTIVATE")) == 1


async def test_a_release_elsewhere_clears_the_file_here(
    switch: KillSwitch, database: Path, bell: FakeBell
) -> None:
    report = await switch.activate()
    store = await SqliteStore.open(database)
    await store.transact(
        lambda tx: tx.release_latch(report.latch_id, at_ms=9**13, by="x", reason="y")
    )
    await store.close()
    bell.value = None
    await eventually(lambda: not (database.parent / "KILL").exists())
    assert not await switch.is_active()


async def test_the_fast_kill_of_another_process_is_seen_and_audited(
    switch: KillSwitch, database: Path
) -> None:
    answer = fast_latch.stop(
        data_dir=str(database.parent),
        database=str(database),
        mode="HALT_ONLY",
        reason="cli",
        actor="uid 0",
        now_ms=1767323045678,
        time_text="2026-01-02T03:04:05.678000Z",
    )
    assert answer["durable"]
    assert await switch.is_active()
    assert (await switch.get_status()).source is LatchSource.CLI
    await eventually(lambda: _rows(database, 1))
    await switch.deactivate()
    assert not await switch.is_active()


async def _rows(database: Path, count: int) -> bool:
    return len(await rows_of(database, "KILL_SWITCH_ACTIVATE")) == count


# The journal.


def journal(database: Path, latch: Latch) -> None:
    append_journal(str(database.parent / "journal.jsonl"), journal_entry(latch_to_fields(latch)))


def made(switch: KillSwitch, latch_id: str, *, hours: float = 0) -> Latch:
    at = switch._register.clock.now() + timedelta(hours=hours)
    return Latch(latch_id, CLOSE, "while it was away", "ann", LatchSource.PYTHON, at)


async def test_a_journalled_stop_is_merged_once(switch: KillSwitch, database: Path) -> None:
    latch = made(switch, "Kj")
    journal(database, latch)
    journal(database, latch)
    (found,) = await latched(switch)
    assert (found.id, found.mode) == ("Kj", CLOSE)
    async with KillSwitch(None, None, database, config=QUICK) as other:
        await other._watch.look()
        assert len(await standing(other)) == 1
    assert len(await rows_of(database, "KILL_SWITCH_ACTIVATE")) == 1


async def test_R18_a_journalled_stop_that_was_released_is_history_only(
    switch: KillSwitch, database: Path
) -> None:
    latch = made(switch, "Kj")
    await switch._register.commit(latch)
    await switch.deactivate()
    journal(database, latch)
    await switch._watch.look()
    assert await standing(switch) == ()
    assert len(await rows_of(database, "KILL_SWITCH_ACTIVATE")) == 1


async def test_a_tombstone_in_the_journal_keeps_its_stop_from_standing(
    switch: KillSwitch, database: Path
) -> None:
    path = database.parent / "journal.jsonl"
    append_journal(str(path), {"kind": "release", "id": "Kj"})
    journal(database, made(switch, "Kj"))
    await switch._watch.look()
    assert await standing(switch) == ()
    found = await switch._register.store.read(lambda tx: tx.latch("Kj"))
    assert found is None or not found.standing


async def test_a_journalled_stop_older_than_the_last_release_halts_only(
    switch: KillSwitch, database: Path
) -> None:
    await switch.activate()
    await switch.deactivate()
    journal(database, made(switch, "Kold", hours=-1))
    (found,) = await latched(switch)
    assert found.mode is HALT
    assert "CLOSE_POSITIONS" in found.reason


async def test_a_release_leaves_tombstones_where_there_is_a_journal(
    switch: KillSwitch, database: Path
) -> None:
    journal(database, made(switch, "Kj"))
    await latched(switch)
    await switch.deactivate()
    lines = (database.parent / "journal.jsonl").read_text().splitlines()
    assert json.loads(lines[-1]) == {"id": "Kj", "kind": "release"}


async def test_junk_in_the_journal_stops_nothing_else(switch: KillSwitch, database: Path) -> None:
    path = str(database.parent / "journal.jsonl")
    append_journal(path, {"kind": "latch", "id": 5})
    append_journal(path, {"kind": "audit", "id": "x", "body": "nonsense"})
    append_journal(path, {"kind": "what"})
    journal(database, replace(made(switch, "Kj"), mode=HALT))
    (found,) = await latched(switch)
    assert found.id == "Kj"


async def test_a_watcher_that_meets_a_bug_goes_on(
    switch: KillSwitch, monkeypatch: pytest.MonkeyPatch, bell: FakeBell
) -> None:
    with monkeypatch.context() as broken:

        async def breaks(*_: object) -> object:
            raise ZeroDivisionError

        broken.setattr(type(switch._register), "read", breaks)
        await asyncio.sleep(0.1)
    bell.value = b"1"
    await latched(switch)


async def test_a_ring_that_nobody_can_judge_stays_until_the_database_can_say(
    switch: KillSwitch, bell: FakeBell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look goes on with the rest: what else stands, and whoever waits for what was seen."""
    view, looked = StopRegister.view, []

    async def fails(register: StopRegister, asked: frozenset[str], *, timeout_s: float) -> View:
        if "Kforeign" in asked:
            raise StoreUnavailable("no answer in time")
        return await view(register, asked, timeout_s=timeout_s)

    await switch.is_active()
    monkeypatch.setattr(StopRegister, "view", fails)
    on_look = switch._watch._on_look
    monkeypatch.setattr(
        switch._watch, "_on_look", lambda seen, **kw: (looked.append(seen), on_look(seen, **kw))
    )
    now = switch._clock.now()
    bell.value = envelope(Latch("Kforeign", HALT, "r", "a", LatchSource.API, now))
    seen = await switch._watch.look()
    assert seen.active
    assert seen in looked
    assert await standing(switch) == ()
    assert (await switch.found())[0].code == "KILL_SWITCH_ACTIVE"
    monkeypatch.setattr(StopRegister, "view", view)
    (latch,) = await latched(switch)
    assert latch.id == "Kforeign"
