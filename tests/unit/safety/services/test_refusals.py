"""A flood of refusals: twenty a second are written one by one, the rest in counted rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from breaker_world import FakeClock
from gate_world import BTC, ETH, code, opened

from tinywindow.safety.domain.admission import Admission
from tinywindow.safety.domain.book import DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.errors import LedgerBusy, StoreUnavailable
from tinywindow.safety.services.refusals import AGENTS_MAX, KINDS_MAX, RefusalCounter

Proposing = Callable[[DecisionView], Draft[Admission]]


async def test_identical_refusals_above_twenty_a_second_share_one_row(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        for number in range(100):
            answer = await desk.buy(101, agent_id="bot", client_order_id=f"o{number}")
            assert code(answer) == "POSITION_SIZE"
        assert len(await desk.rows("ORDER_REJECTED_LIMITS")) == 20
        desk.clock.advance(1)
        await desk.buy(1)
        rows = await desk.rows("ORDER_REJECTED_LIMITS")
        assert len(rows) == 21
        data = json.loads(rows[-1].data)
        assert (rows[-1].agent_id, rows[-1].order_id) == ("bot", "o20")
        assert (data["count"], data["symbol"], data["side"]) == (80, BTC, "BUY")
        assert data["reason"].startswith("POSITION_SIZE: ")


async def test_twenty_a_second_are_written_for_as_long_as_they_come(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        for _ in range(3):
            for _ in range(20):
                await desk.buy(101)
            desk.clock.advance(1)
        assert len(await desk.rows("ORDER_REJECTED_LIMITS")) == 60


async def test_what_differs_has_a_row_of_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        for _ in range(30):
            await desk.buy(101)
        await desk.buy(101, symbol=ETH)
        await desk.kill_switch.activate(reason="enough")
        await desk.buy(101)
        desk.clock.advance(1)
        await desk.limits.admitter.flush_refusals(desk.context)
        counted = [d for d in await desk.data("ORDER_REJECTED_LIMITS") if "count" in d]
        assert [(d["symbol"], d["count"]) for d in counted] == [(BTC, 10), (ETH, 1)]
        halted = [d for d in await desk.data("ORDER_REJECTED_HALTED") if "count" in d]
        assert [d["count"] for d in halted] == [1]


async def test_one_agents_flood_hides_no_others_refusal(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        for _ in range(30):
            await desk.buy(101, agent_id="noisy")
        await desk.buy(101, agent_id="quiet")
        assert [r.agent_id for r in await desk.rows("ORDER_REJECTED_LIMITS")].count("quiet") == 1


async def test_a_flood_of_malformed_orders_is_counted_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        for _ in range(50):
            await desk.gate.submit({"symbol": "nonsense"})
        assert len(await desk.rows("ORDER_VALIDATION_FAILED")) == 20
        desk.clock.advance(1)
        await desk.gate.submit(None)
        rows = await desk.data("ORDER_VALIDATION_FAILED")
        assert [row.get("count") for row in rows[20:]] == [30, None]


async def test_the_refused_order_that_trips_always_has_its_trip_written(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        for number in range(50):
            await desk.breaker.record_execution(ok=True, client_order_id=f"o{number}")
        for _ in range(25):
            await desk.buy(101, symbol="DOGE/USDT")
        assert len(await desk.rows("CIRCUIT_BREAKER_TRIP")) == 1


async def test_closing_writes_what_is_still_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        for _ in range(25):
            await desk.buy(101)
    async with opened(tmp_path) as desk:
        assert (await desk.data("ORDER_REJECTED_LIMITS"))[-1]["count"] == 5


async def test_counts_that_cannot_be_written_are_kept_and_decide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as desk:
        for _ in range(25):
            await desk.buy(101)
        desk.clock.advance(1)

        async def full(*_: object, **__: object) -> object:
            raise StoreUnavailable("the disk is full")

        monkeypatch.setattr(desk.context.store, "transact", full)
        assert code(await desk.buy(1, client_order_id="a")) == "STATE_UNKNOWN"
        monkeypatch.undo()
        assert await desk.read(lambda tx: tx.hold("a")) is None
        assert code(await desk.buy(1, client_order_id="a")) == "ACCEPTED"
        counted = [d["count"] for d in await desk.data("ORDER_REJECTED_LIMITS") if "count" in d]
        assert counted == [5]


async def test_a_store_that_asks_twice_counts_a_refusal_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL asks from the cached book first, and again under the lock where that moved on."""
    async with opened(tmp_path) as desk:
        decide = desk.context.store.decide

        async def twice(ids: DecisionIds, propose: Proposing) -> object:
            def again(view: DecisionView) -> Draft[Admission]:
                propose(view)
                return propose(view)

            return await decide(ids, again)

        monkeypatch.setattr(desk.context.store, "decide", twice)
        for _ in range(30):
            await desk.buy(101)
        assert len(await desk.rows("ORDER_REJECTED_LIMITS")) == 20
        desk.clock.advance(1)
        await desk.limits.admitter.flush_refusals(desk.context)
        assert (await desk.data("ORDER_REJECTED_LIMITS"))[-1]["count"] == 10


async def test_a_decision_that_was_not_committed_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as desk:
        decide = desk.context.store.decide

        async def busy(ids: DecisionIds, propose: Proposing) -> object:
            await decide(ids, lambda view: replace(propose(view), audit=()))
            raise LedgerBusy("the commit was refused")

        for asked in (15, 15):
            with monkeypatch.context() as patched:
                patched.setattr(desk.context.store, "decide", busy)
                for _ in range(asked):
                    assert code(await desk.buy(101)) == "LEDGER_BUSY"
            for _ in range(asked):
                assert code(await desk.buy(101)) == "POSITION_SIZE"
        assert len(await desk.rows("ORDER_REJECTED_LIMITS")) == 20
        await desk.limits.admitter.flush_refusals(desk.context, everything=True)
        assert (await desk.data("ORDER_REJECTED_LIMITS"))[-1]["count"] == 10


def refusal(message: str = "x") -> Refusal:
    return Refusal((Breach(Reason.POSITION_SIZE, message),))


def test_what_is_remembered_is_bounded() -> None:
    counter = RefusalCounter(FakeClock())
    for number in range(20 + 3 * KINDS_MAX):
        counter.counts_invalid((f"error {number}",))
    assert len(counter.due(everything=True)) == KINDS_MAX
    assert len(counter._recent) <= AGENTS_MAX


def test_rows_that_are_put_back_join_those_that_came_meanwhile() -> None:
    counter = RefusalCounter(FakeClock())
    for _ in range(23):
        counter.counts_invalid(("wrong",))
    rows = counter.due(everything=True)
    counter.counts_invalid(("wrong",))
    counter.put_back(rows)
    assert [row.count for row in counter.due(everything=True)] == [4]
