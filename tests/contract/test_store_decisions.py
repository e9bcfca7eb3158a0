"""`decide`: a draft is committed whole or not at all."""

from __future__ import annotations

import itertools
from dataclasses import replace
from decimal import Decimal

import pytest
from store_worlds import Failing, World, all_rows, hold, row, trip

from tinywindow.safety.domain.book import DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.records import Hold, HoldState
from tinywindow.safety.domain.windows import Outcome
from tinywindow.safety.errors import InvariantBroken
from tinywindow.safety.ports import Store

CAPS = {"exposure_cap_micros": 500, "symbol_cap_micros": 100}


def draft(name: str, **changes: object) -> Draft[str]:
    made = Draft(
        result=f"yes to {name}",
        hold=hold(name),
        entry=True,
        exposure_micros=500,
        symbol_micros=100,
        take_slot=True,
        audit=(row(f"row-{name}"),),
        at_ms=7,
        documents={"nav": "{}"},
        **CAPS,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_a_draft_is_committed_whole(store: Store) -> None:
    answer = await store.decide(DecisionIds("a"), lambda _: draft("a"))
    assert answer == "yes to a"
    assert await store.read(lambda tx: tx.hold("a")) == hold("a")
    slot = await store.read(lambda tx: tx.execution("a"))
    assert slot is not None
    assert (slot.outcome, slot.at_ms) == (Outcome.PENDING, 7)
    assert [one.id for one in await all_rows(store)] == ["row-a"]
    assert await store.read(lambda tx: tx.document("nav")) == "{}"
    head = await store.read(lambda tx: tx.head())
    assert (head.version, head.audit_seq, head.exposure_micros) == (1, 1, 500)


async def test_a_decision_sees_book_hold_and_spent_decision(store: Store) -> None:
    await store.transact(lambda tx: tx.put_hold(hold("a", decision_id="d")))

    async def seen(ids: DecisionIds) -> tuple[Hold | None, bool, int]:
        def look(view: DecisionView) -> Draft[tuple[Hold | None, bool, int]]:
            return Draft((view.existing, view.decision_spent, len(view.book.holds)))

        return await store.decide(ids, look)

    assert await seen(DecisionIds("a", "d")) == (hold("a", decision_id="d"), False, 1)
    assert await seen(DecisionIds("b", "d")) == (None, True, 1)
    assert await seen(DecisionIds("b", "e")) == (None, False, 1)
    assert await seen(DecisionIds("b")) == (None, False, 1)


async def test_an_ended_hold_is_shown_to_a_decision(store: Store) -> None:
    ended = hold("a", state=HoldState.RELEASED)
    await store.transact(lambda tx: tx.put_hold(ended))
    shown = await store.decide(DecisionIds("a"), lambda view: Draft(view.existing))
    assert shown == ended


async def test_the_same_hold_may_be_moved_on_by_a_decision(store: Store) -> None:
    await store.decide(DecisionIds("a"), lambda _: draft("a", take_slot=False))
    intended = hold("a", state=HoldState.INTENDED, intent_ms=9)
    await store.decide(
        DecisionIds("a"), lambda _: Draft("again", hold=intended, take_slot=True, at_ms=9)
    )
    assert await store.read(lambda tx: tx.hold("a")) == intended


@pytest.mark.parametrize(
    "changes",
    [
        {"exposure_micros": 501},
        {"symbol_micros": 101},
        {"hold": hold("a", "0")},
        {"audit": (row("row-a"), row("row-a"))},
        {"audit": (row("row-a", data={"x": object()}),)},
    ],
    ids=["total", "symbol", "hold", "rows", "unwritable row"],
)
async def test_a_draft_that_breaks_an_invariant_writes_nothing(
    store: Store, changes: dict[str, object]
) -> None:
    await store.decide(DecisionIds("z"), lambda _: draft("z"))
    before = await store.read(lambda tx: (tx.head(), tx.audit_rows()))
    with pytest.raises((InvariantBroken, TypeError)):
        await store.decide(DecisionIds("a"), lambda _: draft("a", **changes))
    assert await store.read(lambda tx: (tx.head(), tx.audit_rows())) == before
    assert await store.read(lambda tx: tx.hold("a")) is None
    assert await store.read(lambda tx: tx.execution("a")) is None
    await store.decide(DecisionIds("a"), lambda _: draft("a"))


async def test_sums_are_guarded_for_entries_only(store: Store) -> None:
    await store.decide(DecisionIds("a"), lambda _: draft("a", entry=False, exposure_micros=999))
    assert (await store.read(lambda tx: tx.head())).exposure_micros == 0


@pytest.mark.parametrize(("total", "symbol"), [*list(itertools.product((0, 500), (0, 100)))])
async def test_exactly_at_a_cap_passes(store: Store, total: int, symbol: int) -> None:
    await store.decide(
        DecisionIds("a"), lambda _: draft("a", exposure_micros=total, symbol_micros=symbol)
    )
    assert (await store.read(lambda tx: tx.head())).exposure_micros == total


async def test_caps_that_mean_none_may_be_larger_than_the_database_can_hold(store: Store) -> None:
    huge = 10**24
    await store.decide(
        DecisionIds("a"),
        lambda _: draft("a", exposure_cap_micros=huge, symbol_cap_micros=huge),
    )
    assert await store.read(lambda tx: tx.hold("a")) is not None


async def test_sums_larger_than_the_database_can_hold_are_compared_all_the_same(
    store: Store,
) -> None:
    huge = 10**24
    caps = {"exposure_cap_micros": huge, "symbol_cap_micros": huge}
    with pytest.raises(InvariantBroken):
        await store.decide(
            DecisionIds("a"), lambda _: draft("a", **{**caps, "exposure_micros": huge + 1})
        )
    await store.decide(
        DecisionIds("b"),
        lambda _: draft("b", **{**caps, "exposure_micros": huge, "symbol_micros": huge}),
    )
    assert await store.read(lambda tx: tx.hold("b")) is not None


async def test_a_trip_comes_with_its_refusal_and_stops_once(store: Store) -> None:
    refusal = Draft("no", trip=trip("t"), audit=(row("t"), row("refused")))
    assert await store.decide(DecisionIds("a"), lambda _: refusal) == "no"
    head = await store.read(lambda tx: tx.head())
    assert (head.stop_epoch, head.audit_seq) == (1, 2)
    assert await store.read(lambda tx: tx.standing_trip()) == trip("t")
    second = Draft("no", trip=trip("t2"), audit=(row("refused-2"),))
    await store.decide(DecisionIds("b"), lambda _: second)
    assert (await store.read(lambda tx: tx.head())).stop_epoch == 1


async def test_a_decision_that_raises_decides_nothing(store: Store) -> None:
    def propose(_: DecisionView) -> Draft[str]:
        raise Failing

    with pytest.raises(Failing):
        await store.decide(DecisionIds("a"), propose)
    assert (await store.read(lambda tx: tx.head())).version == 0
    assert await store.decide(DecisionIds("a"), lambda _: draft("a")) == "yes to a"


async def test_a_decision_of_another_store_is_in_the_next_book(world: World) -> None:
    one, other = await world.open(), await world.open()
    for number in range(6):
        store = (one, other)[number % 2]
        seen = await store.decide(
            DecisionIds(str(number)),
            lambda view, n=number: replace(
                draft(str(n), documents={}), result=len(view.book.holds)
            ),
        )
        assert seen == number
    held = await one.transact(lambda tx: sum(h.remaining for h in tx.book().holds.values()))
    assert held == Decimal(6)
