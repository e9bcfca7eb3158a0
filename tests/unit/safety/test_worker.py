"""The thread that does one job after another: stops first, and alike ones together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tinywindow.safety.errors import InvariantBroken, StoreUnavailable
from tinywindow.safety.stores.ticket import NoTurn
from tinywindow.safety.stores.worker import TOGETHER_MAX, InlineWorker, Worker


class Desk:
    """A worker whose first job waits until `go`, and the groups of what it did together."""

    def __init__(self) -> None:
        self.worker = Worker("test", turn=NoTurn(), on_stop=lambda: None)
        self.groups: list[list[Any]] = []
        self.free = threading.Event()

    async def hold(self) -> asyncio.Task[bool]:
        begun = threading.Event()

        def first() -> bool:
            begun.set()
            return self.free.wait(10)

        task = asyncio.ensure_future(self.worker.run(first, timeout_s=10))
        assert await asyncio.to_thread(begun.wait, 10)
        return task

    def together(self, line: Iterator[int]) -> Iterator[Callable[[], int]]:
        parts = list(line)
        self.groups.append(parts)
        for part in parts:
            yield lambda part=part: 10 * part  # type: ignore[misc]

    def others(self, line: Iterator[int]) -> Iterator[Callable[[], int]]:
        yield from self.together(line)

    def job(self, name: str, *, first: bool = False) -> asyncio.Task[None]:
        def work() -> None:
            self.groups.append([name])

        return asyncio.ensure_future(self.worker.run(work, timeout_s=10, first=first))

    def part(self, part: int, together: Any = None) -> asyncio.Task[int]:
        sharing = self.worker.share(part, together or self.together, timeout_s=10)
        return asyncio.ensure_future(sharing)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    made.free.set()
    made.worker.stop()
    await made.worker.ended(timeout_s=10)


async def test_what_waits_in_line_together_is_done_together(desk: Desk) -> None:
    await desk.hold()
    tasks: list[Any] = [desk.part(1), desk.part(2), desk.job("x"), desk.part(3)]
    tasks += [desk.part(4, desk.others), desk.part(5, desk.others), desk.part(6)]
    await asyncio.sleep(0)
    desk.free.set()
    assert await asyncio.gather(*tasks) == [10, 20, None, 30, 40, 50, 60]
    assert desk.groups == [[1, 2], ["x"], [3], [4, 5], [6]]


async def test_a_stop_goes_first_and_no_more_than_the_bound_at_once(desk: Desk) -> None:
    await desk.hold()
    parts = [desk.part(number) for number in range(TOGETHER_MAX + 2)]
    await asyncio.sleep(0)
    stop = desk.job("stop", first=True)
    await asyncio.sleep(0)
    desk.free.set()
    await asyncio.gather(*parts, stop)
    assert desk.groups[0] == ["stop"]
    assert [len(group) for group in desk.groups] == [1, TOGETHER_MAX, 2]


async def test_what_comes_while_they_are_done_is_taken_along_until_a_stop_waits(
    desk: Desk,
) -> None:
    taken: list[int] = []
    stops: list[asyncio.Task[None]] = []
    asked, answered = threading.Event(), threading.Event()

    def together(line: Iterator[int]) -> Iterator[Callable[[], int]]:
        for part in line:
            taken.append(part)
            asked.set()
            assert answered.wait(10)
            answered.clear()
        desk.groups.append(list(taken))
        for part in taken:
            yield lambda part=part: part  # type: ignore[misc]
        taken.clear()

    tasks: list[asyncio.Task[int]] = []
    for number in range(4):
        tasks.append(desk.part(number, together))
        if number == 3:
            stops.append(desk.job("stop", first=True))
        await asyncio.sleep(0)
        if number:
            answered.set()
        assert await asyncio.to_thread(asked.wait, 10)
        asked.clear()
    for task in (*stops, *tasks):
        answered.set()
        await task
    assert desk.groups == [[0, 1, 2], ["stop"], [3]]


async def test_each_has_its_outcome_as_soon_as_it_is_known(desk: Desk) -> None:
    go_on = threading.Event()

    def together(line: Iterator[int]) -> Iterator[Callable[[], int]]:
        parts = list(line)
        yield lambda: parts[0]
        assert go_on.wait(10)
        yield lambda: 1 // 0
        yield lambda: parts[2]

    await desk.hold()
    tasks = [desk.part(number, together) for number in range(3)]
    await asyncio.sleep(0)
    desk.free.set()
    assert await tasks[0] == 0
    assert not tasks[1].done()
    go_on.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[1], ZeroDivisionError)
    assert answers[2] == 2


async def test_a_fault_of_the_whole_is_that_of_all_without_an_outcome(desk: Desk) -> None:
    def together(line: Iterator[int]) -> Iterator[Callable[[], int]]:
        parts = list(line)
        yield lambda: parts[0]
        raise StoreUnavailable("away")

    await desk.hold()
    tasks = [desk.part(number, together) for number in range(3)]
    await asyncio.sleep(0)
    desk.free.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [int, StoreUnavailable, StoreUnavailable]
    assert await desk.part(7) == 70


async def test_nobody_waits_for_ever_for_an_outcome_that_never_comes(desk: Desk) -> None:
    def together(line: Iterator[int]) -> Iterator[Callable[[], int]]:
        parts = list(line)
        yield lambda: parts[0]

    await desk.hold()
    tasks = [desk.part(number, together) for number in range(2)]
    await asyncio.sleep(0)
    desk.free.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [int, InvariantBroken]


async def test_what_was_given_up_is_not_among_them(desk: Desk) -> None:
    await desk.hold()
    tasks = [desk.part(number) for number in range(4)]
    await asyncio.sleep(0)
    for number in (0, 2):
        tasks[number].cancel()
    await asyncio.sleep(0)
    desk.free.set()
    assert [await tasks[1], await tasks[3]] == [10, 30]
    assert desk.groups == [[1, 3]]


class NoTurnAtAll(NoTurn):
    def take(self) -> None:
        raise OSError("no locks")


async def test_where_no_turn_is_handed_out_all_of_them_are_told() -> None:
    worker = Worker("test", turn=NoTurnAtAll(), on_stop=lambda: None)
    waiting = [worker.share(number, _never, timeout_s=10) for number in range(3)]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    worker.stop()
    await worker.ended(timeout_s=10)


def _never(line: Iterator[int]) -> Iterator[Callable[[], int]]:
    raise AssertionError(list(line))


async def test_in_a_simulated_world_each_is_by_itself() -> None:
    groups: list[list[int]] = []

    def together(line: Iterator[int]) -> Iterator[Callable[[], int]]:
        parts = list(line)
        groups.append(parts)
        for part in parts:
            yield lambda part=part: 10 * part  # type: ignore[misc]

    worker = InlineWorker(NoTurn())
    waiting = (worker.share(number, together, timeout_s=1) for number in range(3))
    assert await asyncio.gather(*waiting) == [0, 10, 20]
    assert groups == [[0], [1], [2]]
