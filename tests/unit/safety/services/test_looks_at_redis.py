"""Looks at Redis: shared by whoever asks at once, never older than the question, and few."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from breaker_world import FakeClock
from kill_worlds import FakeBell, quick

from tinywindow.safety.errors import DoorbellUnavailable
from tinywindow.safety.services.bell_watch import BellWatch
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.kill_watch import KillWatch
from tinywindow.safety.services.stop_register import StopRegister
from tinywindow.safety.stores.ring_value import RingValue

START = datetime(2026, 1, 1, tzinfo=UTC)


class CountingBell(FakeBell):
    """Counts the looks, and lets them wait until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def look(self, *, timeout_s: float) -> RingValue | None:
        self.looks += 1
        found = await super().look(timeout_s=timeout_s)
        await self.go_on.wait()
        return found


@pytest.fixture
def bell() -> CountingBell:
    return CountingBell()


@pytest.fixture
async def register(
    bell: CountingBell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StopRegister]:
    monkeypatch.setattr(KillWatch, "start", lambda _: None)
    clock = FakeClock(START)
    async with KillSwitch(bell, None, tmp_path / "t.db", config=quick(), clock=clock) as switch:
        bell.looks = 0
        yield switch._register


async def test_all_who_ask_at_once_share_a_look(register: StopRegister, bell: CountingBell) -> None:
    found = await asyncio.gather(*(register.look(timeout_s=1) for _ in range(5)))
    assert (found, bell.looks) == ([None] * 5, 1)
    bell.value = b"1"
    rings = await asyncio.gather(*(register.look(timeout_s=1) for _ in range(5)))
    assert all(ring is not None and ring.raw == b"1" for ring in rings)
    assert bell.looks == 2


async def test_a_look_that_began_before_the_question_is_no_answer_to_it(
    register: StopRegister, bell: CountingBell
) -> None:
    bell.go_on.clear()
    early = asyncio.ensure_future(register.look(timeout_s=1))
    while bell.looks == 0:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    bell.value = b"1"
    late = asyncio.ensure_future(register.look(timeout_s=1))
    await asyncio.sleep(0.01)
    assert bell.looks == 2
    bell.go_on.set()
    assert await early is None
    assert await late is not None
    assert register.notes.breach() is not None


async def test_each_waits_for_its_own_time_and_takes_no_other_along(
    register: StopRegister, bell: CountingBell
) -> None:
    bell.go_on.clear()
    patient = asyncio.ensure_future(register.look(timeout_s=5))
    hasty = asyncio.ensure_future(register.look(timeout_s=0.02))
    gone = asyncio.ensure_future(register.look(timeout_s=5))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(DoorbellUnavailable, match=r"within 0\.02 s"):
        await hasty
    bell.go_on.set()
    assert await patient is None
    assert bell.looks == 1


async def test_all_are_told_that_a_look_failed_and_the_next_one_looks_again(
    register: StopRegister, bell: CountingBell
) -> None:
    bell.down = "away"
    answers = await asyncio.gather(
        *(register.look(timeout_s=1) for _ in range(3)), return_exceptions=True
    )
    assert [str(answer) for answer in answers] == ["away"] * 3
    bell.down = None
    assert await register.look(timeout_s=1) is None
    assert bell.looks == 2


async def test_a_look_lasts_no_longer_than_the_most_patient_of_those_who_asked(
    register: StopRegister, bell: CountingBell
) -> None:
    bounds: list[float] = []
    look = bell.look

    async def noted(*, timeout_s: float) -> RingValue | None:
        bounds.append(timeout_s)
        return await look(timeout_s=timeout_s)

    bell.look = noted  # type: ignore[method-assign]
    await asyncio.gather(register.look(timeout_s=0.3), register.look(timeout_s=0.7))
    await register.look(timeout_s=0.2)
    assert bounds == [0.7, 0.2]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_look_that_is_given_up_is_no_end_for_whoever_asked(
    register: StopRegister, bell: CountingBell, begun: bool
) -> None:
    """An end of the program cancels every task, one after another."""
    bell.go_on.clear()
    asking = asyncio.ensure_future(register.look(timeout_s=1))
    await asyncio.sleep(0.01 if begun else 0)
    (look,) = register._looks
    assert bell.looks == begun
    look.cancel()
    with pytest.raises(DoorbellUnavailable, match="given up"):
        await asking
    bell.go_on.set()
    assert await register.look(timeout_s=1) is None


async def test_whoever_asks_can_be_given_up_itself(
    register: StopRegister, bell: CountingBell
) -> None:
    bell.go_on.clear()
    asking = asyncio.ensure_future(register.look(timeout_s=1))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    bell.go_on.set()


async def test_no_look_outlives_the_register(register: StopRegister, bell: CountingBell) -> None:
    bell.go_on.clear()
    asking = asyncio.ensure_future(register.look(timeout_s=1))
    await asyncio.sleep(0.01)
    register.leave()
    with pytest.raises(DoorbellUnavailable):
        await asking
    assert not register._looks


class Waits:
    """The ear's pauses, on a clock that each of them moves on; `meanwhile` acts in each."""

    def __init__(self, watch: BellWatch, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.watch, self.clock = watch, clock
        self.waited_s: list[float] = []
        self.meanwhile: list[float | None] = []

        async def until(event: asyncio.Event, timeout_s: float) -> None:
            self.waited_s.append(round(timeout_s, 6))
            self.clock.advance(timeout_s)
            if not self.meanwhile:
                event.set()
                return
            heard_s = self.meanwhile.pop(0)
            if heard_s is not None:
                now_s = self.clock.monotonic()
                watch._register.notes.heard(None, now_s - heard_s, self.clock.now())

        monkeypatch.setattr("tinywindow.safety.services.bell_watch._until", until)


@pytest.fixture
def waits(register: StopRegister, monkeypatch: pytest.MonkeyPatch) -> Waits:
    clock = register.clock
    assert isinstance(clock, FakeClock)
    return Waits(BellWatch(register, None), clock, monkeypatch)  # type: ignore[arg-type]


async def test_while_orders_look_the_ear_need_not(waits: Waits) -> None:
    # Twice somebody looked 0.03 s before the pause ended, then nobody.
    waits.meanwhile = [0.03, 0.03, None]
    await waits.watch._until_due(waits.clock.monotonic(), 0.1)
    assert waits.waited_s == [0.1, 0.07, 0.07]


async def test_where_no_look_succeeds_the_ear_keeps_its_pauses(
    waits: Waits, register: StopRegister
) -> None:
    register.notes.heard(None, waits.clock.monotonic(), waits.clock.now())
    waits.clock.advance(60)
    waits.meanwhile = [None]
    await waits.watch._until_due(waits.clock.monotonic(), 0.1)
    assert waits.waited_s == [0.1]
