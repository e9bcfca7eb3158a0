"""Holds, fills, positions, prices, leases, closing records and documents."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from store_worlds import BTC, ETH, Failing, everything, hold, latch, mark, row, summary, trip

from tinywindow.safety.domain.order import OrderType, Side
from tinywindow.safety.domain.records import (
    CloseRecord,
    Hold,
    HoldState,
    Lease,
    Position,
    ReferencePrice,
)
from tinywindow.safety.domain.windows import Outcome
from tinywindow.safety.errors import InvariantBroken
from tinywindow.safety.ports import Store, Tx

FULL = hold(
    "a",
    "0.000000000000000001",
    side=Side.SELL,
    type=OrderType.LIMIT,
    price=Decimal("123456789012345678.123456789012345678"),
    state=HoldState.WORKING,
    filled=Decimal("0.1"),
    average_price=Decimal("99.5"),
    fee=Decimal("-0.25"),
    intent_ms=7,
    reduces=True,
    reduce_only=True,
    decision_id="d1",
    agent_id="claude",
    flatten=True,
)


@pytest.mark.parametrize("kept", [hold("a"), FULL])
async def test_a_hold_comes_back_as_it_was_put(store: Store, kept: Hold) -> None:
    await store.transact(lambda tx: tx.put_hold(kept))
    assert await store.read(lambda tx: tx.hold("a")) == kept
    assert await store.read(lambda tx: tx.hold("b")) is None


async def test_a_hold_is_seen_by_its_own_transaction(store: Store) -> None:
    def script(tx: Tx) -> Hold | None:
        tx.put_hold(hold("a"))
        return tx.hold("a")

    assert await store.transact(script) == hold("a")


async def test_the_book_sums_open_holds_and_forgets_ended_ones(store: Store) -> None:
    def script(tx: Tx) -> None:
        tx.put_hold(hold("a", "2"))
        tx.put_hold(hold("b", "3", side=Side.SELL, type=OrderType.LIMIT, price=Decimal(9)))
        tx.put_hold(hold("c", "5", key=ETH))

    await store.transact(script)
    sums = (await store.transact(lambda tx: summary(tx.book())))["sums"]
    assert isinstance(sums, dict)
    assert (sums[BTC].buys, sums[BTC].sells, sums[BTC].price_max) == (2, 3, 9)
    await store.transact(lambda tx: tx.put_hold(hold("a", "2", filled=Decimal("0.5"))))
    sums = (await store.transact(lambda tx: summary(tx.book())))["sums"]
    assert sums[BTC].buys == Decimal("1.5")
    await store.transact(lambda tx: tx.put_hold(hold("a", "2", state=HoldState.RELEASED)))
    await store.transact(lambda tx: tx.put_hold(hold("c", "5", key=ETH, state=HoldState.LAPSED)))
    shown = await store.transact(lambda tx: summary(tx.book()))
    assert set(shown["by_key"]) == {BTC}
    assert shown["sums"][BTC].buys == 0


@pytest.mark.parametrize(
    "broken",
    [
        hold("x", "0"),
        hold("x", "-1"),
        hold("x", filled=Decimal(-1)),
        hold("x", price=Decimal(0)),
        hold("x", intent_ms=1),
    ],
    ids=["no amount", "negative amount", "negative fill", "no price", "held with intent"],
)
async def test_a_hold_that_cannot_be_is_refused_whole(store: Store, broken: Hold) -> None:
    def script(tx: Tx) -> None:
        tx.put_document("limits", "{}")
        tx.put_hold(broken)

    with pytest.raises(InvariantBroken):
        await store.transact(script)
    assert await store.read(lambda tx: tx.hold("x")) is None
    assert await store.read(lambda tx: tx.document("limits")) is None


async def test_a_decision_is_spent_on_one_hold(store: Store) -> None:
    await store.transact(lambda tx: tx.put_hold(hold("a", decision_id="d")))
    await store.transact(lambda tx: tx.put_hold(hold("a", decision_id="d", state=HoldState.LAPSED)))
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.put_hold(hold("b", decision_id="d")))


async def test_fills_are_kept_and_move_nothing_by_themselves(store: Store) -> None:
    await store.transact(lambda tx: tx.add_fill(hold("a", filled=Decimal(1)), at_ms=3))
    assert (await store.read(lambda tx: tx.head())).version == 0


async def test_positions_come_and_go_flat(store: Store) -> None:
    long = Position(BTC, Decimal("-1.5"), Decimal("100.25"), 10, 9)
    await store.transact(lambda tx: tx.put_position(long))
    assert (await store.read(lambda tx: summary(tx.book())))["positions"] == {BTC: long}
    await store.transact(lambda tx: tx.put_position(replace(long, amount=Decimal(0))))
    assert (await store.read(lambda tx: summary(tx.book())))["positions"] == {}


async def test_prices_are_replaced(store: Store) -> None:
    for number in ("1.10", "2"):
        price = ReferencePrice("BTC/USDT", Decimal(number), 5)
        await store.transact(lambda tx, price=price: tx.put_price(price))
    prices = (await store.read(lambda tx: summary(tx.book())))["prices"]
    assert prices == {"BTC/USDT": ReferencePrice("BTC/USDT", Decimal(2), 5)}


async def test_a_price_of_zero_is_refused(store: Store) -> None:
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.put_price(ReferencePrice("BTC/USDT", Decimal(0), 5)))


async def test_leases_are_replaced_and_do_not_touch_the_book(store: Store) -> None:
    assert await store.read(lambda tx: tx.lease("flattener")) is None
    for fence in (1, 2):
        lease = Lease("flattener", f"owner-{fence}", fence, fence * 10)
        await store.transact(lambda tx, lease=lease: tx.put_lease(lease))
    assert await store.read(lambda tx: tx.lease("flattener")) == Lease(
        "flattener", "owner-2", 2, 20
    )
    assert (await store.read(lambda tx: tx.head())).version == 0


async def test_close_records_come_by_venue(store: Store) -> None:
    for venue, state in (("z", "CLOSING"), ("a", "FLAT"), ("z", "FLAT")):
        record = CloseRecord(venue, state, "{}", 1)
        await store.transact(lambda tx, record=record: tx.put_close_record(record))
    records = await store.read(lambda tx: tx.close_records())
    assert [(one.venue, one.state) for one in records] == [("a", "FLAT"), ("z", "FLAT")]


async def test_documents_are_replaced_and_reach_the_book(store: Store) -> None:
    def script(tx: Tx) -> str | None:
        tx.put_document("limits", "1")
        tx.put_document("limits", "2")
        return tx.document("limits")

    assert await store.transact(script) == "2"
    assert await store.read(lambda tx: tx.document("other")) is None
    assert (await store.read(lambda tx: summary(tx.book())))["documents"] == {"limits": "2"}


async def test_a_script_that_fails_leaves_nothing_of_any_kind(store: Store) -> None:
    await store.transact(lambda tx: tx.add_mark(mark(1)))
    await store.transact(lambda tx: tx.outbox(row("waiting")))
    before = await everything(store)

    def script(tx: Tx) -> None:
        tx.add_latch(latch("k"))
        tx.add_trip(trip("t"))
        tx.put_hold(hold("a", decision_id="d"))
        tx.add_fill(hold("a"), at_ms=1)
        tx.put_position(Position(BTC, Decimal(1), Decimal(1), 1))
        tx.put_price(ReferencePrice("BTC/USDT", Decimal(1), 1))
        tx.add_mark(mark(2))
        tx.thin_marks(before_ms=10, keep_every_ms=100, keep_ids=())
        tx.put_execution(
            kind="order", at_ms=1, outcome=Outcome.OK, resolved_ms=1, client_order_id="a"
        )
        tx.audit(row("r"))
        tx.outbox(row("o"))
        tx.drain_outbox()
        tx.put_lease(Lease("flattener", "me", 1, 1))
        tx.put_close_record(CloseRecord("z", "FLAT", "{}", 1))
        tx.put_document("limits", "{}")
        raise Failing

    with pytest.raises(Failing):
        await store.transact(script)
    assert store.peek(lambda book: book is None or book.head.version == 0)
    assert await everything(store) == before
    book = await store.transact(lambda tx: summary(tx.book()))
    assert (book["holds"], book["positions"], book["prices"]) == ({}, {}, {})
    assert await store.transact(lambda tx: tx.drain_outbox()) == 1
    await store.transact(lambda tx: tx.put_hold(hold("b", decision_id="d")))
