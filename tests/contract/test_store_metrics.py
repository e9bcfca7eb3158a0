"""Marks and executions: what the breaker measures survives, and is counted once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_worlds import World, mark, summary

from tinywindow.safety.domain.windows import ExecutionKind, Outcome
from tinywindow.safety.ports import Store, Tx

HOUR = 3_600_000


def attempt(tx: Tx, name: str | None, outcome: Outcome, *, ms: int = 0, kind: str = "order") -> int:
    resolved = None if outcome is Outcome.PENDING else ms
    return tx.put_execution(
        kind=kind, at_ms=ms, outcome=outcome, resolved_ms=resolved, client_order_id=name
    ).id


async def test_marks_are_appended_in_order_with_the_stores_own_ids(store: Store) -> None:
    first = await store.transact(lambda tx: tx.add_mark(mark(10, id=77)))
    second = await store.transact(lambda tx: tx.add_mark(mark(20, nav=None, trusted=False)))
    assert second > first
    marks = await store.read(lambda tx: tx.marks(since_ms=0, limit=10))
    assert marks == (mark(10, id=first), mark(20, id=second, nav=None, trusted=False))
    assert await store.read(lambda tx: tx.marks(since_ms=20, limit=10)) == marks[1:]
    assert await store.read(lambda tx: tx.marks(since_ms=0, limit=1)) == marks[:1]


async def test_the_newest_mark_is_the_last_received(store: Store) -> None:
    assert await store.read(lambda tx: tx.newest_mark_ms()) is None
    for ms in (10, 30, 20):
        await store.transact(lambda tx, ms=ms: tx.add_mark(mark(ms)))
    assert await store.read(lambda tx: tx.newest_mark_ms()) == 30


async def test_thinning_keeps_the_first_of_each_span_and_what_must_stay(store: Store) -> None:
    moments = [0, 10, 20, 100, 110, 120, 200, 210]
    ids = [await store.transact(lambda tx, ms=ms: tx.add_mark(mark(ms))) for ms in moments]

    def thin(tx: Tx) -> int:
        return tx.thin_marks(before_ms=200, keep_every_ms=100, keep_ids=[ids[2]])

    assert await store.transact(thin) == 3
    assert await store.transact(thin) == 0
    left = await store.read(lambda tx: tx.marks(since_ms=0, limit=100))
    assert [one.received_ms for one in left] == [0, 20, 100, 200, 210]


async def test_thinning_sees_spans_whatever_the_order_of_arrival(store: Store) -> None:
    for ms in (0, 100, 10, 110):
        await store.transact(lambda tx, ms=ms: tx.add_mark(mark(ms)))
    assert (
        await store.transact(
            lambda tx: tx.thin_marks(before_ms=1_000, keep_every_ms=100, keep_ids=())
        )
        == 2
    )
    left = await store.read(lambda tx: tx.marks(since_ms=0, limit=100))
    assert [one.received_ms for one in left] == [0, 100]


async def test_an_attempt_is_recorded_once_and_revised_by_its_order(store: Store) -> None:
    first = await store.transact(lambda tx: attempt(tx, "a", Outcome.PENDING, ms=5))
    again = await store.transact(lambda tx: attempt(tx, "a", Outcome.OK, ms=9))
    assert first == again
    found = await store.read(lambda tx: tx.execution("a"))
    assert found is not None
    assert (found.at_ms, found.outcome, found.resolved_ms) == (5, Outcome.OK, 9)
    assert await store.read(lambda tx: tx.execution("b")) is None


async def test_a_revision_keeps_the_kind(store: Store) -> None:
    await store.transact(lambda tx: attempt(tx, "a", Outcome.PENDING))
    await store.transact(lambda tx: attempt(tx, "a", Outcome.OK, kind="cancel"))
    found = await store.read(lambda tx: tx.execution("a"))
    assert found is not None
    assert found.kind is ExecutionKind.ORDER


async def test_the_same_revision_again_writes_nothing(store: Store) -> None:
    await store.transact(lambda tx: attempt(tx, "a", Outcome.OK, ms=5))
    before = await store.read(lambda tx: tx.head())
    await store.transact(lambda tx: attempt(tx, "a", Outcome.OK, ms=5))
    assert await store.read(lambda tx: tx.head()) == before


async def test_attempts_without_an_order_are_all_counted(store: Store) -> None:
    for _ in range(3):
        await store.transact(lambda tx: attempt(tx, None, Outcome.FAILED, kind="cancel"))
    book = await store.transact(lambda tx: summary(tx.book(), now_ms=1))
    assert book["errors"] == (3, 3)
    assert book["velocity"] == 0


async def test_a_restart_changes_no_count(world: World) -> None:
    store = await world.open()
    outcomes = [Outcome.OK, Outcome.FAILED, Outcome.UNKNOWN, Outcome.VOID, Outcome.PENDING]

    def script(tx: Tx) -> None:
        for number, outcome in enumerate(outcomes * 3):
            attempt(tx, f"o{number}", outcome, ms=number * 60_000)

    await store.transact(script)
    await store.transact(lambda tx: attempt(tx, "o2", Outcome.OK, ms=1_000_000))
    now_ms = 15 * 60_000
    warm = await store.transact(lambda tx: summary(tx.book(), now_ms=now_ms))
    await store.close()
    reopened = await world.open()
    cold = await reopened.transact(lambda tx: summary(tx.book(), now_ms=now_ms))
    assert cold == warm
    assert cold["velocity"] == 12


async def test_a_streak_of_failures_over_weeks_survives_a_restart(world: World) -> None:
    store = await world.open()
    for number in range(5):
        ms = number * 20 * HOUR
        await store.transact(
            lambda tx, n=number, ms=ms: attempt(tx, f"o{n}", Outcome.FAILED, ms=ms)
        )
    await store.close()
    reopened = await world.open()
    book = await reopened.transact(lambda tx: summary(tx.book(), now_ms=81 * HOUR))
    assert book["streak"] == 5


@pytest.mark.parametrize("count", [3])
async def test_a_mark_is_what_was_given_but_for_its_id(store: Store, count: int) -> None:
    for number in range(count):
        await store.transact(lambda tx, n=number: tx.add_mark(mark(n, account=f"a{n}")))
    marks = await store.read(lambda tx: tx.marks(since_ms=0, limit=10))
    assert [replace(one, id=0) for one in marks] == [
        mark(number, account=f"a{number}") for number in range(count)
    ]
