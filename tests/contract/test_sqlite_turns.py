"""Turns at an SQLite file: bounded waits, stops first, no job that runs after it was given up."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_worlds import World, hold, latch, raw

from tinywindow.safety.domain.book import DecisionIds, Draft
from tinywindow.safety.errors import LedgerBusy, StoreUnavailable
from tinywindow.safety.ports import Tx
from tinywindow.safety.stores import sqlite, worker
from tinywindow.safety.stores.sqlite import SqliteStore
from tinywindow.safety.stores.ticket import ticket_path


@contextmanager
def another_has_the_turn(world: World) -> Iterator[None]:
    handle = os.open(ticket_path(world.path), os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(handle)


async def test_an_order_that_gets_no_turn_is_busy_within_its_bound(sqlite_world: World) -> None:
    store = await sqlite_world.open()
    with another_has_the_turn(sqlite_world):
        began = time.monotonic()
        with pytest.raises(LedgerBusy):
            await store.decide(DecisionIds("a"), lambda _: Draft(1, hold=hold("a")))
        assert sqlite.DECISION_TIMEOUT_S <= time.monotonic() - began < 0.5


async def test_a_job_that_was_given_up_never_runs(sqlite_world: World) -> None:
    store = await sqlite_world.open()
    asked: list[str] = []

    def propose(name: str) -> Draft[int]:
        asked.append(name)
        return Draft(1, hold=hold(name))

    with another_has_the_turn(sqlite_world):
        answers = await asyncio.gather(
            *(store.decide(DecisionIds(n), lambda _, n=n: propose(n)) for n in "abc"),
            return_exceptions=True,
        )
        assert all(isinstance(answer, LedgerBusy) for answer in answers)
    await store.decide(DecisionIds("d"), lambda _: propose("d"))
    await asyncio.sleep(0.05)
    assert asked == ["d"]
    assert await store.read(lambda tx: [tx.hold(name) for name in "abc"]) == [None] * 3


async def test_a_reader_waits_for_no_writer(sqlite_world: World) -> None:
    store = await sqlite_world.open()
    with another_has_the_turn(sqlite_world):
        assert (await store.read(lambda tx: tx.head())).version == 0
        assert store.change_token() >= 0


async def test_a_stop_goes_before_orders_that_wait_for_the_same_turn(sqlite_world: World) -> None:
    store = await sqlite_world.open()
    done: list[str] = []

    def order(name: str) -> Draft[None]:
        done.append(name)
        return Draft(None, hold=hold(name))

    with another_has_the_turn(sqlite_world):
        orders = [
            asyncio.ensure_future(store.decide(DecisionIds(n), lambda _, n=n: order(n)))
            for n in "abc"
        ]
        await asyncio.sleep(0.05)
        stops = [
            asyncio.ensure_future(
                store.transact(
                    lambda tx, n=n: done.append(n) or tx.add_latch(latch(n)),  # type: ignore[func-returns-value]
                    stop=True,
                )
            )
            for n in ("stop-1", "stop-2")
        ]
        await asyncio.sleep(0.05)
    await asyncio.gather(*orders, *stops)
    assert done == ["stop-1", "stop-2", "a", "b", "c"]


async def test_an_order_whose_caller_went_away_is_given_up_and_a_stop_is_not(
    sqlite_world: World,
) -> None:
    store = await sqlite_world.open()
    with another_has_the_turn(sqlite_world):
        order = asyncio.ensure_future(
            store.decide(DecisionIds("a"), lambda _: Draft(1, hold=hold("a")))
        )
        stop = asyncio.ensure_future(store.transact(lambda tx: tx.add_latch(latch("k")), stop=True))
        await asyncio.sleep(0.05)
        order.cancel()
        stop.cancel()
        await asyncio.gather(order, stop, return_exceptions=True)
    await store.transact(lambda tx: tx.head())
    assert await store.read(lambda tx: tx.hold("a")) is None
    assert await store.read(lambda tx: tx.latch("k")) is not None


async def test_closing_refuses_what_waits_and_does_not_wait_for_the_turn(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CLOSE_TIMEOUT_S", 0.2)
    store = await sqlite_world.open()
    with another_has_the_turn(sqlite_world):
        waiting = [
            asyncio.ensure_future(store.transact(lambda tx: tx.add_latch(latch("k"))))
            for _ in range(3)
        ]
        await asyncio.sleep(0.05)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        await store.close()
        ticking.cancel()
        assert ticks > 5, "closing held up the loop"
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    again = await sqlite_world.open()
    assert await again.read(lambda tx: tx.latch("k")) is None


async def test_the_job_that_runs_ends_before_the_store_is_closed(sqlite_world: World) -> None:
    store = await sqlite_world.open()

    def slow(tx: object) -> str:
        time.sleep(0.2)
        return "done"

    running = asyncio.ensure_future(store.transact(slow))
    await asyncio.sleep(0.05)
    await store.close()
    assert await running == "done"


async def test_too_many_waiting_jobs_are_answered_busy(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "QUEUE_MAX", 3)
    store = await sqlite_world.open()
    with another_has_the_turn(sqlite_world):
        waiting = [
            asyncio.ensure_future(store.transact(lambda tx: tx.head().version)) for _ in range(5)
        ]
        await asyncio.sleep(0.05)
        stop = asyncio.ensure_future(store.transact(lambda tx: tx.add_latch(latch("k")), stop=True))
        await asyncio.sleep(0.05)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(answer, LedgerBusy) for answer in answers) == 2
    assert await stop


async def test_a_program_that_takes_no_ticket_makes_us_busy_not_wrong(sqlite_world: World) -> None:
    store = await sqlite_world.open()
    other = raw(sqlite_world.path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerBusy):
        await store.transact(lambda tx: tx.put_document("a", "1"))
    other.execute("ROLLBACK")
    other.close()
    await store.transact(lambda tx: tx.put_document("a", "2"))
    assert await store.read(lambda tx: tx.document("a")) == "2"


@pytest.mark.parametrize("inline", [False, True])
async def test_nothing_is_left_beside_the_file_after_closing(tmp_path: Path, inline: bool) -> None:
    """The file alone is whole, for whoever copies it; the turn's file is empty and stays."""
    path = tmp_path / "world.db"
    for number in range(10):
        store = await SqliteStore.open(path, inline=inline)
        await asyncio.gather(
            store.transact(lambda tx, n=number: tx.put_document("a", str(n))),
            store.read(lambda tx: tx.head()),
        )
        await store.close()
        assert sorted(tmp_path.glob("world.db*")) == [path, ticket_path(path)]
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    copied = await SqliteStore.open(copy, inline=inline)
    assert await copied.read(lambda tx: tx.document("a")) == "9"
    await copied.close()


async def test_the_writer_closes_after_a_reader_that_takes_its_time(sqlite_world: World) -> None:
    store = await sqlite_world.open()
    assert isinstance(store, SqliteStore)
    open_at_the_end: list[bool] = []

    def slow(tx: Tx) -> None:
        tx.head()
        time.sleep(0.1)
        open_at_the_end.append(store._writer.total_changes >= 0)

    await store.transact(lambda tx: tx.put_document("a", "1"))
    reading = asyncio.ensure_future(store.read(slow))
    await asyncio.sleep(0.03)
    await store.close()
    await reading
    assert open_at_the_end == [True]
    with pytest.raises(sqlite3.ProgrammingError):
        store._writer.execute("SELECT 1")
    assert sorted(sqlite_world.path.parent.glob("world.db*")) == [
        sqlite_world.path,
        ticket_path(sqlite_world.path),
    ]


def test_a_loop_that_ended_leaves_the_thread_alive(sqlite_world: World) -> None:
    """Its jobs have nobody to be handed to, and the next loop is served all the same."""

    async def leave() -> object:
        store = await sqlite_world.open()
        task = asyncio.ensure_future(store.transact(lambda tx: time.sleep(0.1), stop=True))
        await asyncio.sleep(0.02)
        task.cancel()
        return store

    store = asyncio.run(leave())

    async def go_on() -> int:
        return (await store.transact(lambda tx: tx.head())).version  # type: ignore[attr-defined]

    assert asyncio.run(go_on()) == 0
