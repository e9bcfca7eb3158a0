"""Head, latches, trips: a stop is state that only its own name removes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_worlds import Failing, at, latch, summary, trip

from tinywindow.safety.domain.kill import KillSwitchMode
from tinywindow.safety.domain.records import TradingState
from tinywindow.safety.ports import Store, Tx


async def test_a_fresh_store_is_running_at_version_zero(store: Store) -> None:
    head = await store.read(lambda tx: tx.head())
    assert (head.version, head.stop_epoch, head.audit_seq) == (0, 0, 0)
    assert head.trading is TradingState.RUNNING
    assert head.exposure_micros == 0


async def test_a_transaction_that_changes_the_book_grows_the_version_by_one(store: Store) -> None:
    def script(tx: Tx) -> None:
        tx.put_document("a", "1")
        tx.put_document("b", "2")
        tx.set_trading(TradingState.STOPPED)
        assert tx.head().version == 1

    await store.transact(script)
    assert (await store.read(lambda tx: tx.head())).version == 1


async def test_a_transaction_that_changes_nothing_leaves_the_head(store: Store) -> None:
    before = await store.read(lambda tx: tx.head())
    await store.transact(lambda tx: tx.hold("nobody"))
    assert await store.read(lambda tx: tx.head()) == before


async def test_a_latch_stands_grows_the_epoch_and_stops_trading(store: Store) -> None:
    assert await store.transact(lambda tx: tx.add_latch(latch("k")), stop=True)
    head = await store.read(lambda tx: tx.head())
    assert (head.stop_epoch, head.trading) == (1, TradingState.STOPPED)
    assert await store.read(lambda tx: tx.standing_latches()) == (latch("k"),)
    assert await store.read(lambda tx: tx.latch("k")) == latch("k")
    assert await store.read(lambda tx: tx.latch("other")) is None


async def test_a_latch_that_is_known_changes_nothing(store: Store) -> None:
    await store.transact(lambda tx: tx.add_latch(latch("k")))
    before = await store.read(lambda tx: tx.head())
    stronger = latch("k", mode=KillSwitchMode.CLOSE_POSITIONS)
    assert not await store.transact(lambda tx: tx.add_latch(stronger))
    assert await store.read(lambda tx: tx.head()) == before
    assert await store.read(lambda tx: tx.latch("k")) == latch("k")


async def test_standing_latches_come_oldest_first(store: Store) -> None:
    for name, ms in (("c", 3), ("a", 2), ("b", 2)):
        await store.transact(lambda tx, name=name, ms=ms: tx.add_latch(latch(name, ms=ms)))
    standing = await store.read(lambda tx: tx.standing_latches())
    assert [one.id for one in standing] == ["a", "b", "c"]


async def test_a_released_latch_is_a_tombstone_and_others_stand(store: Store) -> None:
    await store.transact(lambda tx: tx.add_latch(latch("a")))
    await store.transact(lambda tx: tx.add_latch(latch("b", ms=2_000)))
    assert await store.read(lambda tx: tx.last_release_ms()) is None

    def release(tx: Tx) -> bool:
        return tx.release_latch("a", at_ms=9_000, by="bob", reason="all clear")

    assert await store.transact(release)
    assert not await store.transact(release)
    assert not await store.transact(
        lambda tx: tx.release_latch("nobody", at_ms=1, by="bob", reason="")
    )
    assert [one.id for one in await store.read(lambda tx: tx.standing_latches())] == ["b"]
    tombstone = await store.read(lambda tx: tx.latch("a"))
    assert tombstone == replace(
        latch("a"), released_at=at(9_000), released_by="bob", release_reason="all clear"
    )
    assert await store.read(lambda tx: tx.last_release_ms()) == 9_000
    head = await store.read(lambda tx: tx.head())
    assert (head.stop_epoch, head.trading) == (2, TradingState.STOPPED)
    assert not await store.transact(lambda tx: tx.add_latch(latch("a")))


async def test_a_tombstone_that_arrives_first_stops_nothing(store: Store) -> None:
    history = replace(latch("a"), released_at=at(2_000), released_by="bob", release_reason="old")
    assert await store.transact(lambda tx: tx.add_latch(history))
    head = await store.read(lambda tx: tx.head())
    assert (head.stop_epoch, head.trading) == (0, TradingState.RUNNING)
    assert await store.read(lambda tx: tx.standing_latches()) == ()
    assert await store.read(lambda tx: tx.latch("a")) == history


async def test_of_many_trips_one_stands(store: Store) -> None:
    assert await store.transact(lambda tx: tx.add_trip(trip("t1")))
    assert not await store.transact(lambda tx: tx.add_trip(trip("t2")))
    assert not await store.transact(lambda tx: tx.add_trip(trip("t1")))
    head = await store.read(lambda tx: tx.head())
    assert (head.stop_epoch, head.trading) == (1, TradingState.STOPPED)
    assert await store.read(lambda tx: tx.standing_trip()) == trip("t1")


async def test_a_trip_is_cleared_by_its_name_only(store: Store) -> None:
    await store.transact(lambda tx: tx.add_trip(trip("t1", ms=10)))
    assert not await store.transact(lambda tx: tx.clear_trip("t2", at_ms=20, by="bob"))
    assert await store.transact(lambda tx: tx.clear_trip("t1", at_ms=20, by="bob"))
    assert not await store.transact(lambda tx: tx.clear_trip("t1", at_ms=21, by="bob"))
    assert await store.read(lambda tx: tx.standing_trip()) is None
    cleared = replace(trip("t1", ms=10), cleared_ms=20, cleared_by="bob")
    assert await store.read(lambda tx: tx.last_trip()) == cleared
    assert await store.transact(lambda tx: tx.add_trip(trip("t2", ms=30)))
    assert await store.read(lambda tx: tx.last_trip()) == trip("t2", ms=30)
    assert (await store.read(lambda tx: tx.head())).stop_epoch == 2


async def test_the_book_shows_stops_as_they_stood_when_the_transaction_began(store: Store) -> None:
    def script(tx: Tx) -> tuple[int, int]:
        tx.add_latch(latch("k"))
        tx.add_trip(trip("t"))
        return len(tx.book().latches), len(tx.standing_latches())

    assert await store.transact(script) == (0, 1)
    shown = await store.transact(lambda tx: summary(tx.book()))
    assert shown["latches"] == (latch("k"),)
    assert shown["trip"] == trip("t")
    await store.transact(lambda tx: tx.release_latch("k", at_ms=1, by="b", reason=""))
    await store.transact(lambda tx: tx.clear_trip("t", at_ms=1, by="b"))
    shown = await store.transact(lambda tx: summary(tx.book()))
    assert (shown["latches"], shown["trip"]) == ((), None)


async def test_a_stop_whose_script_fails_does_not_stand(store: Store) -> None:
    def script(tx: Tx) -> None:
        tx.add_latch(latch("k"))
        raise Failing

    with pytest.raises(Failing):
        await store.transact(script, stop=True)
    assert await store.read(lambda tx: tx.latch("k")) is None
    assert (await store.read(lambda tx: tx.head())).stop_epoch == 0
