"""A watcher at peace leaves the database alone, until anything at all may have come."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from breaker_world import FakeClock
from kill_worlds import FakeBell, quick

from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.domain.records import Trip
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.kill_watch import QUIET_S, KillWatch
from tinywindow.safety.services.stop_register import Seen, StopRegister
from tinywindow.safety.stores.fast_files import append_journal, journal_entry
from tinywindow.safety.stores.latch_fields import latch_to_fields
from tinywindow.safety.stores.ring_value import ring_of
from tinywindow.safety.stores.sqlite import SqliteStore

START = datetime(2026, 1, 1, tzinfo=UTC)
LATCH = Latch("k1", KillSwitchMode.HALT_ONLY, "why", "alice", LatchSource.PYTHON, START)
TRIP = Trip("t1", "drawdown", "-16", "-15", "DRAWDOWN", 1_000)


class Peace:
    """A switch whose watcher is asked by hand, and which has looked until nothing was new."""

    def __init__(self, switch: KillSwitch, bell: FakeBell, clock: FakeClock, path: Path) -> None:
        self.switch, self.bell, self.clock, self.path = switch, bell, clock, path

    @property
    def watch(self) -> KillWatch:
        return self.switch._watch

    async def other(self, script: Callable[..., object]) -> None:
        """What another process commits."""
        store = await SqliteStore.open(self.path)
        await store.transact(script)
        await store.close()

    async def latch(self) -> None:
        await self.other(lambda tx: tx.add_latch(LATCH))

    async def trip(self) -> None:
        await self.other(lambda tx: tx.add_trip(TRIP))

    async def file(self) -> None:
        (self.path.parent / "KILL").touch()

    async def flag(self) -> None:
        self.switch._register.hold(LATCH)

    async def ring(self) -> None:
        self.bell.value = b"1"
        await self.switch.found()

    async def silence_of_redis(self) -> None:
        """Redis was not heard for longer than an order may commit on."""
        self.clock.advance(0.3)

    async def journal(self) -> None:
        append_journal(
            str(self.path.parent / "journal.jsonl"),
            journal_entry(latch_to_fields(LATCH)),
        )

    async def unreadable_journal(self) -> None:
        (self.path.parent / "journal.jsonl").mkdir()

    async def time(self) -> None:
        self.clock.advance(QUIET_S)
        # Redis is heard again at once, so that only the database's age is left.
        await self.switch.found()


@pytest.fixture
async def peace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Peace]:
    monkeypatch.setattr(KillWatch, "start", lambda _: None)
    bell, clock, path = FakeBell(), FakeClock(START), tmp_path / "t.db"
    async with KillSwitch(bell, None, path, config=quick(), clock=clock) as switch:
        made = Peace(switch, bell, clock, path)
        await made.watch.look()
        await made.watch.look()
        yield made


@pytest.mark.parametrize(
    "come",
    [
        Peace.latch,
        Peace.trip,
        Peace.file,
        Peace.flag,
        Peace.ring,
        Peace.silence_of_redis,
        Peace.journal,
        Peace.unreadable_journal,
        Peace.time,
    ],
    ids=lambda come: come.__name__,
)
async def test_whatever_may_be_a_stop_ends_the_peace(
    peace: Peace, come: Callable[[Peace], Awaitable[None]]
) -> None:
    assert peace.watch._still_quiet()
    await come(peace)
    assert not peace.watch._still_quiet()


async def test_while_a_stop_stands_every_look_reads_the_database(peace: Peace) -> None:
    await peace.latch()
    for _ in range(3):
        assert (await peace.watch.look()).active
        assert not peace.watch._still_quiet()
    assert ring_of(peace.bell.value or b"").latch_id == "k1"


async def test_a_database_that_cannot_be_asked_is_no_peace(
    peace: Peace, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = peace.switch._register.store.handle.glance()
    assert context is not None
    monkeypatch.setattr(context.store, "stop_token", lambda: -1)
    assert not peace.watch._still_quiet()
    await peace.watch.look()
    assert not peace.watch._still_quiet()


async def test_a_stop_that_comes_while_a_look_reads_ends_the_peace(
    peace: Peace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is taken before the database is read: what moves it in between is not missed."""
    read = StopRegister.read

    async def overtaken(self: StopRegister, *, ordered: bool = True) -> Seen:
        seen = await read(self, ordered=ordered)
        await peace.latch()
        return seen

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(StopRegister, "read", overtaken)
        assert not (await peace.watch.look()).active
    assert not peace.watch._still_quiet()


async def test_there_is_no_peace_while_a_trip_cancels_entries(peace: Peace) -> None:
    await peace.trip()
    for _ in range(3):
        seen = await peace.watch.look()
        assert seen.view is not None
        assert seen.view.cancels_entries
    assert not peace.watch._still_quiet()


async def test_there_is_no_peace_before_a_ring_is_known_to_be_taken_back(
    peace: Peace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_yet(_: KillWatch, __: Latch) -> None:
        return

    monkeypatch.setattr(KillWatch, "_take_back_if_released", not_yet)
    peace.watch._unchecked["k1"] = LATCH
    await peace.watch.look()
    assert not peace.watch._still_quiet()


async def test_one_look_makes_no_peace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changed since the look before is told to those who act on it, and looked at again."""
    monkeypatch.setattr(KillWatch, "start", lambda _: None)
    async with KillSwitch(None, None, tmp_path / "t.db", config=quick()) as switch:
        await switch._watch.look()
        assert not switch._watch._still_quiet()
        await switch._watch.look()
        assert switch._watch._still_quiet()


async def test_there_is_no_peace_while_another_look_goes_on(peace: Peace) -> None:
    async with peace.watch._one:
        assert not peace.watch._still_quiet()


async def test_a_watcher_at_peace_reads_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time stands still, so that peace lasts: one look, one to see no change, and no more."""
    switch = KillSwitch(None, None, tmp_path / "t.db", config=quick(), clock=FakeClock(START))
    watch = switch._watch
    look, still, done = watch.look, watch._still_quiet, asyncio.Event()
    looks: list[Seen] = []
    asked = itertools.count(1)

    async def noted() -> Seen:
        looks.append(await look())
        return looks[-1]

    def counted() -> bool:
        if next(asked) == 8:
            done.set()
        return still()

    monkeypatch.setattr(watch, "look", noted)
    monkeypatch.setattr(watch, "_still_quiet", counted)
    async with switch, asyncio.timeout(10):
        assert not await switch.is_active()
        await done.wait()
    assert len(looks) == 2
