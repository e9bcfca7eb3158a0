"""How a store lives beside others, what it shows without I/O, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from store_worlds import Failing, World, hold, latch, summary, trip

from tinywindow.safety.domain.book import DecisionIds, Draft
from tinywindow.safety.domain.breaker_documents import RESET_MARK, NavPoint, ResetMark
from tinywindow.safety.domain.records import TradingState
from tinywindow.safety.domain.windows import Outcome
from tinywindow.safety.errors import LedgerBusy, SafetyError, StoreUnavailable
from tinywindow.safety.ports import Store, Tx


async def test_a_second_store_sees_what_the_first_committed(world: World) -> None:
    one, other = await world.open(), await world.open()
    await one.transact(lambda tx: tx.put_document("limits", "1"))
    assert (await other.read(lambda tx: summary(tx.book())))["documents"] == {"limits": "1"}
    await other.transact(lambda tx: tx.add_latch(latch("k")))
    await other.transact(lambda tx: tx.put_hold(hold("a")))
    shown = await one.transact(lambda tx: summary(tx.book()))
    assert shown["latches"] == (latch("k"),)
    assert shown["holds"] == {"a": hold("a")}
    assert await one.read(lambda tx: summary(tx.book())) == shown


async def test_peek_shows_nothing_before_the_first_transaction(store: Store) -> None:
    assert store.peek(lambda book: book is None)


async def test_peek_shows_the_book_of_the_last_transaction_or_read(world: World) -> None:
    one, other = await world.open(), await world.open()
    await one.transact(lambda tx: tx.put_document("a", "1"))
    assert one.peek(lambda book: book is not None and book.documents == {"a": "1"})
    await other.transact(lambda tx: tx.put_document("a", "2"))
    await one.read(lambda tx: tx.head())
    assert one.peek(lambda book: book is not None and book.documents == {"a": "2"})


async def moved_on(world: World, store: Store, token: int) -> bool:
    """Whether the token moves: at once on a file, within a poll or two on a server."""
    polls = 50 if world.kind == "postgres" else 0
    for _ in range(polls):
        if store.change_token() != token:
            return True
        await asyncio.sleep(0.01)
    return store.change_token() != token


async def test_the_change_token_moves_with_every_commit_of_anybody(world: World) -> None:
    one, other = await world.open(), await world.open()
    token = one.change_token()
    assert one.change_token() == token
    for store in (one, other):
        await store.transact(lambda tx: tx.put_document("a", "1"))
        assert await moved_on(world, one, token)
        token = one.change_token()
    await other.read(lambda tx: tx.head())
    await one.transact(lambda tx: tx.hold("nobody"))
    assert one.change_token() == token


async def test_whoever_waits_for_a_change_hears_of_anybodys_commit(world: World) -> None:
    one, other = await world.open(), await world.open()
    token = one.change_token()
    for store in (one, other):
        waiting = asyncio.ensure_future(one.changed(token))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await store.transact(lambda tx: tx.put_document("a", "1"))
        async with asyncio.timeout(5):
            moved = await waiting
        # And what has moved already is not waited for.
        assert moved != token
        assert await one.changed(token) != token
        token = one.change_token()


async def test_several_wait_for_a_change_and_one_may_give_up(world: World) -> None:
    one, other = await world.open(), await world.open()
    token = one.change_token()
    waiting = [asyncio.ensure_future(one.changed(token)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await other.transact(lambda tx: tx.put_document("a", "1"))
    async with asyncio.timeout(5):
        heard = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(heard[1], asyncio.CancelledError)
    assert token not in heard


async def test_whoever_waits_for_a_change_is_told_that_the_store_is_closed(world: World) -> None:
    store = await world.open()
    waiting = asyncio.ensure_future(store.changed(store.change_token()))
    await asyncio.sleep(0.05)
    await store.close()
    async with asyncio.timeout(5):
        assert await waiting == -1
    # And afterwards nothing changes any more, which holds up nobody.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store.changed(-1)


STOPPING: dict[str, Callable[[Tx], object]] = {
    "a latch": lambda tx: tx.add_latch(latch("k")),
    "a trip": lambda tx: tx.add_trip(trip("t")),
    "an operator": lambda tx: tx.set_trading(TradingState.STOPPED),
}


@pytest.mark.parametrize("stop", STOPPING.values(), ids=STOPPING)
@pytest.mark.parametrize("own", [True, False], ids=["own", "another's"])
async def test_the_stop_token_moves_with_whatever_stops_trading(
    world: World, stop: Callable[[Tx], object], own: bool
) -> None:
    one, other = await world.open(), await world.open()
    await one.transact(lambda tx: tx.set_trading(TradingState.RUNNING))
    token, stops = one.change_token(), one.stop_token()
    await (one if own else other).transact(stop, stop=True)
    assert await moved_on(world, one, token)
    assert one.stop_token() != stops


async def test_a_server_tells_stops_from_what_may_wait(world: World) -> None:
    one, other = await world.open(), await world.open()
    token, stops = one.change_token(), one.stop_token()
    await other.transact(lambda tx: tx.put_document("a", "1"))
    assert await moved_on(world, one, token)
    assert (one.stop_token() == stops) is (world.kind == "postgres")


async def test_a_failed_script_moves_no_token(store: Store) -> None:
    token = store.change_token()

    def script(tx: Tx) -> None:
        tx.put_document("a", "1")
        raise Failing

    with pytest.raises(Failing):
        await store.transact(script)
    assert store.change_token() == token


async def test_a_read_cannot_write(store: Store) -> None:
    with pytest.raises(SafetyError):
        await store.read(lambda tx: tx.put_document("a", "1"))
    assert await store.read(lambda tx: tx.document("a")) is None


async def test_a_read_that_fails_leaves_the_store_usable(store: Store) -> None:
    def script(_: Tx) -> None:
        raise Failing

    with pytest.raises(Failing):
        await store.read(script)
    assert (await store.read(lambda tx: tx.head())).version == 0


async def test_a_closed_store_answers_unavailable(store: Store) -> None:
    await store.transact(lambda tx: tx.put_document("a", "1"))
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.transact(lambda tx: tx.head())
    with pytest.raises(StoreUnavailable):
        await store.read(lambda tx: tx.head())
    with pytest.raises(StoreUnavailable):
        await store.decide(DecisionIds("a"), lambda _: Draft(1))
    assert store.change_token() == -1


async def test_what_was_committed_is_there_after_reopening(world: World) -> None:
    store = await world.open()
    await store.transact(lambda tx: tx.put_hold(hold("a")))
    await store.transact(lambda tx: tx.add_latch(latch("k")))
    before = await store.read(lambda tx: summary(tx.book()))
    await store.close()
    again = await world.open()
    assert await again.read(lambda tx: summary(tx.book())) == before
    assert await again.transact(lambda tx: summary(tx.book())) == before


async def test_many_callers_at_once_are_each_served_once(store: Store) -> None:
    async def one(number: int) -> int:
        while True:
            try:
                return await store.decide(
                    DecisionIds(str(number)),
                    lambda view: Draft(len(view.book.holds), hold=hold(str(number))),
                )
            except LedgerBusy:
                # Fair on a machine with other work: nothing was decided, so it is asked again.
                await asyncio.sleep(0.01)

    seen = await asyncio.gather(*(one(number) for number in range(50)))
    assert sorted(seen) == list(range(50))


async def test_a_store_without_attempts_says_that_nobody_can_count(world: World) -> None:
    """What the flattener opens at a stop: it neither decides nor measures."""
    if world.kind == "memory":
        pytest.skip("one book for all stores")
    one, other = await world.open(), await world.open(attempts=False)

    def attempt(name: str) -> Callable[[Tx], object]:
        return lambda tx: tx.put_execution(
            kind="order", at_ms=7, outcome=Outcome.FAILED, resolved_ms=8, client_order_id=name
        )

    await one.transact(attempt("a"))
    for look in (other.transact, other.read):
        counted = await look(lambda tx: tx.book().executions)
        assert (counted.size, counted.unread) == (0, True)
    await one.transact(attempt("b"))
    await one.transact(lambda tx: tx.put_document(RESET_MARK, ResetMark(1, NavPoint()).to_text()))
    for look in (other.transact, other.read):
        counted = await look(lambda tx: tx.book().executions)
        assert (counted.size, counted.unread) == (0, True)
    assert await one.transact(lambda tx: tx.book().executions.size) == 1
