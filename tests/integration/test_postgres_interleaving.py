"""A stop that no database knows of yet, forced between an order's look and its commit.

An order on PostgreSQL is decided from the cached book and committed by one call, which may wait
for the lock. A `KILL` file that appears meanwhile shares no lock with it: the commit stands, and
what it approved is neither sent nor given out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pg_writers import assert_chain, query, raw

from program import placements
from tinywindow.exchanges.paper import PaperExchange, PriceBoard
from tinywindow.safety import (
    CircuitBreaker,
    KillSwitch,
    OrderGate,
    OrderValidator,
    PositionLimitEnforcer,
)
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.kill_watch import KillWatch
from tinywindow.safety.stores import fast_latch
from tinywindow.safety.stores.pg.sessions import ORDER
from tinywindow.safety.stores.postgres import PostgresStore

pytestmark = [pytest.mark.alone, pytest.mark.concurrency, pytest.mark.timeout(60)]

ENTRY = {"symbol": "BTC/USDT", "side": "BUY", "amount": "0.01", "type": "MARKET"}
WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def touch(folder: Path) -> None:
    (folder / "KILL").touch()


def kill_without_the_database(folder: Path) -> None:
    """What the command `kill` does where it cannot reach the bot's database."""
    answer = fast_latch.stop(
        data_dir=str(folder),
        database=str(folder / "none" / "tinywindow.db"),
        mode="HALT_ONLY",
        reason="x",
        actor="a",
        now_ms=1,
        time_text="2026-01-01T00:00:00.000000Z",
    )
    assert not answer["durable"]
    assert (folder / "KILL").exists()


STOPS = pytest.mark.parametrize("stop", [touch, kill_without_the_database])


@dataclass
class Desk:
    """One bot on PostgreSQL; its kill switch does not watch, so that nobody latches the file."""

    url: str
    folder: Path
    gate: OrderGate
    limits: PositionLimitEnforcer

    @property
    def context(self) -> SafetyContext:
        opened = self.limits.opened
        assert opened is not None
        return opened

    @property
    def store(self) -> PostgresStore:
        assert isinstance(self.context.store, PostgresStore)
        return self.context.store

    async def while_it_waits(
        self, ask: Callable[[], Awaitable[Any]], act: Callable[[], None], *, straight: bool
    ) -> Any:
        """Ask for an order, and act while its transaction waits for the lock."""
        self.store._writing.alone = straight
        with raw(self.url) as other:
            other.execute(ORDER)
            asking = asyncio.ensure_future(ask())
            async with asyncio.timeout(0.2):  # the order itself waits for 0.24 s at most
                while not query(self.url, WAITING):
                    await asyncio.sleep(0.001)
            act()
            other.execute("COMMIT")
            return await asking


@asynccontextmanager
async def desk(url: str, folder: Path) -> AsyncIterator[Desk]:
    clock, board = SystemClock(), PriceBoard()
    board.set("BTC/USDT", Decimal(50_000), clock.now())
    venue = PaperExchange(folder / "paper.db", board, clock=clock)
    breaker = CircuitBreaker(None, url)
    switch = KillSwitch(None, {"paper": venue}, url)
    limits = PositionLimitEnforcer(url, prices=board)
    gate = OrderGate(breaker, switch, limits, OrderValidator(default_venue="paper"), venue)
    await venue.account()
    await breaker.record_equity(20_000)
    await breaker.check_all_metrics()
    # Claimed before, as recovery does: the first wait for the lock is then the order's own.
    await gate.account.claim(await limits.admitter.open())
    try:
        yield Desk(url, folder, gate, limits)
    finally:
        for part in (switch, limits, breaker, venue):
            await part.close()


@pytest.fixture
async def at(
    durable_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    monkeypatch.setenv("TINYWINDOW_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(KillWatch, "start", lambda _: None)
    async with desk(durable_url, tmp_path) as made:
        yield made


@pytest.mark.parametrize("straight", [True, False], ids=["straight", "under the lock"])
async def test_an_order_that_waits_for_the_lock_is_sent_when_nothing_stops_it(
    at: Desk, straight: bool
) -> None:
    """Without this, the tests below could pass for another reason."""
    answer = await at.while_it_waits(lambda: at.gate.submit(ENTRY), lambda: None, straight=straight)
    assert getattr(answer, "accepted", False), answer
    assert list(placements(at.folder).values()) == [1]


@STOPS
async def test_an_approval_that_a_file_overtook_is_not_sent(
    at: Desk, stop: Callable[[Path], None]
) -> None:
    answer = await at.while_it_waits(
        lambda: at.gate.submit(ENTRY), lambda: stop(at.folder), straight=True
    )
    assert answer.reason_code == "KILL_SWITCH_ACTIVE", answer
    assert placements(at.folder) == {}
    # The commit itself could not know; what it took is given back, the velocity slot too.
    approved = "SELECT 1 FROM audit_log WHERE event_type = 'ORDER_APPROVED'"
    assert query(at.url, approved) == [(1,)], "the file was not where it should be"
    assert query(at.url, "SELECT state FROM orders") == [("RELEASED",)]
    assert query(at.url, "SELECT outcome FROM executions") == [("VOID",)]
    assert (await at.gate.submit(ENTRY)).reason_code == "KILL_SWITCH_ACTIVE"
    assert query(at.url, approved) == [(1,)]
    assert_chain(at.url)


@STOPS
async def test_an_enforcer_by_itself_does_not_give_out_what_a_file_overtook(
    at: Desk, stop: Callable[[Path], None]
) -> None:
    answer = await at.while_it_waits(
        lambda: at.limits.check_order_allowed(ENTRY), lambda: stop(at.folder), straight=True
    )
    assert not answer.allowed
    assert answer.reason_code == "KILL_SWITCH_ACTIVE"
    events = [row[0] for row in query(at.url, "SELECT event_type FROM audit_log ORDER BY seq")]
    assert events[-2:] == ["ORDER_APPROVED", "ORDER_RELEASED"]
    assert query(at.url, "SELECT state FROM orders") == [("RELEASED",)]


@STOPS
async def test_an_order_that_is_decided_under_the_lock_sees_the_file(
    at: Desk, stop: Callable[[Path], None]
) -> None:
    """It looks after it has the lock, so that nothing is approved at all."""
    answer = await at.while_it_waits(
        lambda: at.gate.submit(ENTRY), lambda: stop(at.folder), straight=False
    )
    assert answer.reason_code == "KILL_SWITCH_ACTIVE", answer
    assert query(at.url, "SELECT 1 FROM audit_log WHERE event_type = 'ORDER_APPROVED'") == []
    assert placements(at.folder) == {}


async def test_a_refusal_that_is_decided_twice_is_counted_once(at: Desk) -> None:
    """Somebody writes between every look and its commit: each order is decided again."""
    asked = 30
    large = {**ENTRY, "amount": "1000"}
    decide = at.store._orders._under_lock
    again = 0

    def counted(*given: Any) -> Any:
        nonlocal again
        again += 1
        return decide(*given)

    at.store._orders._under_lock = counted  # type: ignore[method-assign]
    with raw(at.url) as other:
        for _ in range(asked):
            other.execute("UPDATE head SET version = version + 1")
            at.store._writing.alone = True
            refused = await at.limits.check_order_allowed(large)
            assert refused.reason_code == "POSITION_SIZE", refused
    assert again == asked
    await at.limits.admitter.flush_refusals(at.context, everything=True)
    data = query(
        at.url,
        "SELECT data::json ->> 'count' FROM audit_log"
        " WHERE event_type = 'ORDER_REJECTED_LIMITS' ORDER BY seq",
    )
    # Within one second twenty have a row each; a slower machine has more of them.
    single = [count for (count,) in data if count is None]
    together = sum(int(count) for (count,) in data if count is not None)
    assert len(single) >= 20
    assert len(single) + together == asked
