"""The interleaving that must be impossible: latch read as clear, stop commits, reservation commits.

Each test holds a transaction open at the worst moment, by a hook in what runs under the lock, and
lets another process stop trading meanwhile. Either the stop has to wait until the reservation is
committed, and then nothing is sent, or the order is refused.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from program import FORKS, audit, placements, query, wait_for
from tinywindow.exchanges.paper import PaperExchange, PriceBoard
from tinywindow.safety import (
    CircuitBreaker,
    KillSwitch,
    OrderGate,
    OrderValidator,
    PositionLimitEnforcer,
    Refused,
)
from tinywindow.safety.domain.approval import Approved
from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.book import DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.decision import Refusal
from tinywindow.safety.domain.order import OrderType, PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState
from tinywindow.safety.domain.venue import Placed
from tinywindow.safety.services.anchor import Anchor, AnchorPoint
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.context import ContextHandle, SafetyContext
from tinywindow.safety.stores import fast_latch
from tinywindow.safety.stores.sqlite import SqliteStore
from tinywindow.safety.stores.ticket import ticket_path

pytestmark = [pytest.mark.concurrency, pytest.mark.timeout(60)]

NOW = "2026-01-01T00:00:00.000000Z"
WHILE_OPEN_S = 0.12
"""How long a transaction is held open: long enough for a stop that could slip in to do so."""
ORDER = {"symbol": "BTC/USDT", "side": "BUY", "amount": "0.01", "type": "MARKET"}


def _latch_only(database: str) -> None:
    """What a stop does in the database alone: no file that any gate could see."""
    latch: dict[str, object] = {"id": "K1", "mode": "HALT_ONLY", "reason": "x", "actor": "a"}
    latch |= {"source": "CLI", "activated_ms": 1}
    fast_latch.latch_in_database(database, latch, NOW)


def _whole_stop(database: str) -> None:
    """What the command `kill` does."""
    fast_latch.stop(
        data_dir=str(Path(database).parent),
        database=database,
        mode="HALT_ONLY",
        reason="x",
        actor="a",
        now_ms=1,
        time_text=NOW,
    )


def _activate(database: str) -> None:
    """What `KillSwitch.activate` does."""

    async def stop() -> None:
        await KillSwitch(None, (), Path(database)).activate("HALT_ONLY", "x", actor="a")

    asyncio.run(stop())


STOPS = pytest.mark.parametrize("stop", [_latch_only, _whole_stop, _activate])


def _when_told(stop: Callable[[str], None], database: str, told: str) -> None:
    Path(told + ".ready").touch()
    while not Path(told).exists():
        time.sleep(0.0005)
    stop(database)


class Stopper:
    """Another process that is ready to stop trading, and does so at once when told."""

    def __init__(self, stop: Callable[[str], None], database: Path) -> None:
        self._told = database.with_name("stop-now")
        self.begun = False
        self._process = FORKS.Process(
            target=_when_told, args=(stop, str(database), str(self._told)), daemon=True
        )
        self._process.start()
        wait_for(self._told.with_name("stop-now.ready").exists, "the stopper is ready")

    def begin(self) -> None:
        self.begun = True
        self._told.touch()

    def join(self) -> None:
        self._process.join(timeout=20)
        assert self._process.exitcode == 0


def latches(database: Path) -> int:
    return int(query(database, "SELECT COUNT(*) FROM latches")[0][0])


def waits_for_the_turn(database: Path) -> bool:
    """Whether somebody stands in the kernel's queue for the ticket (`->` in /proc/locks)."""
    inode = f":{ticket_path(database).stat().st_ino} "
    with Path("/proc/locks").open(encoding="ascii") as locks:
        return any("->" in line and inode in line for line in locks)


def hold(name: str) -> Hold:
    return Hold(
        client_order_id=name,
        key=PositionKey("paper", "default", "BTC/USDT"),
        side=Side.BUY,
        type=OrderType.MARKET,
        amount=Decimal(1),
        price=None,
        state=HoldState.HELD,
        created_ms=5,
    )


@STOPS
async def test_a_stop_cannot_commit_between_the_look_and_the_reservation(
    tmp_path: Path, stop: Callable[[str], None]
) -> None:
    database = tmp_path / "t.db"
    store = await SqliteStore.open(database)
    stopper = Stopper(stop, database)

    def propose(view: DecisionView) -> Draft[bool]:
        clear = not view.book.latches
        stopper.begin()
        wait_for(lambda: waits_for_the_turn(database), "the stop waits for its turn")
        time.sleep(WHILE_OPEN_S)
        assert latches(database) == 0, "a stop was committed inside another's transaction"
        return Draft(clear, hold=hold("a") if clear else None)

    assert await store.decide(DecisionIds("a"), propose) is True
    await asyncio.to_thread(wait_for, lambda: latches(database) == 1, "the stop is committed")
    await asyncio.to_thread(stopper.join)

    # From the stop's commit on, every decision sees it, in this process and without a poll.
    seen = await store.decide(DecisionIds("b"), lambda view: Draft(len(view.book.latches)))
    assert seen == 1
    await store.close()


async def test_a_decision_that_waits_for_a_stop_sees_it(tmp_path: Path) -> None:
    """The other order: the stop has the turn and has written, but has not committed."""
    database = tmp_path / "t.db"
    store = await SqliteStore.open(database)
    await store.decide(DecisionIds("a"), lambda _: Draft(1, hold=hold("a")))
    ticket = os.open(ticket_path(database), os.O_RDWR)
    fcntl.flock(ticket, fcntl.LOCK_EX)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO latches VALUES ('K1','HALT_ONLY','x','a','CLI',1,NULL,NULL,NULL)")
    other.execute("UPDATE head SET version = version + 1, stop_epoch = stop_epoch + 1")
    asked = asyncio.ensure_future(
        store.decide(DecisionIds("b"), lambda view: Draft(len(view.book.latches)))
    )
    await asyncio.to_thread(wait_for, lambda: waits_for_the_turn(database), "it waits")
    assert not asked.done()
    other.execute("COMMIT")
    os.close(ticket)
    other.close()
    assert await asked == 1
    await store.close()


# --- the whole way of an order -------------------------------------------------------------------


@dataclass
class Desk:
    database: Path
    venue: PaperExchange
    gate: OrderGate
    limits: PositionLimitEnforcer

    @property
    def folder(self) -> Path:
        return self.database.parent

    def nothing_was_sent(self) -> bool:
        return placements(self.folder) == {}


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    database, clock, board = folder / "tinywindow.db", SystemClock(), PriceBoard()
    board.set("BTC/USDT", Decimal(50_000), clock.now())
    venue = PaperExchange(folder / "paper.db", board, clock=clock)
    breaker = CircuitBreaker(None, database)
    switch = KillSwitch(None, {"paper": venue}, database)
    limits = PositionLimitEnforcer(database, prices=board)
    gate = OrderGate(breaker, switch, limits, OrderValidator(default_venue="paper"), venue)
    await venue.account()
    await breaker.record_equity(20_000)
    await breaker.check_all_metrics()
    yield Desk(database, venue, gate, limits)
    await switch.close()
    await limits.close()
    await breaker.close()
    await venue.close()


async def test_the_desk_trades_when_nothing_stops_it(tmp_path: Path) -> None:
    """Without this, every test below could pass for another reason."""
    async with desk(tmp_path) as at:
        sent = await at.gate.submit(ORDER)
        assert getattr(sent, "accepted", False), sent
        assert list(placements(tmp_path).values()) == [1]


@pytest.mark.parametrize("stop", [_whole_stop, _activate])
async def test_a_stop_during_the_reservation_keeps_the_order_from_being_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Callable[[str], None]
) -> None:
    """The stops are read as clear, then a stop begins, then the reservation is committed."""
    look = SafetyContext.stop_probe

    async with desk(tmp_path) as at:
        stopper = Stopper(stop, at.database)

        def looked(context: SafetyContext) -> Refusal | None:
            found = look(context)
            if found is None and not stopper.begun:
                stopper.begin()
                wait_for(lambda: waits_for_the_turn(at.database), "the stop waits for its turn")
                assert latches(at.database) == 0
            return found

        monkeypatch.setattr(SafetyContext, "stop_probe", looked)
        answer = await at.gate.submit(ORDER)
        assert isinstance(answer, Refused), answer
        assert answer.reason_code == "KILL_SWITCH_ACTIVE"
        assert len(audit(tmp_path, "ORDER_APPROVED")) == 1, "the hook was not where it should be"
        assert at.nothing_was_sent()
        await asyncio.to_thread(stopper.join)
        # What was reserved is given back, the velocity slot too, and nothing more is approved.
        database = at.database
        assert query(database, "SELECT state FROM orders") == [("RELEASED",)]
        assert query(database, "SELECT outcome FROM executions") == [("VOID",)]
        assert (await at.gate.submit(ORDER)).reason_code == "KILL_SWITCH_ACTIVE"
        assert len(audit(tmp_path, "ORDER_APPROVED")) == 1


class Held:
    """A venue in front of which an approved order waits until something has happened."""

    def __init__(self, venue: PaperExchange, meanwhile: Callable[[], Any]) -> None:
        self._venue, self._meanwhile = venue, meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venue, name)

    async def place(self, approved: Approved) -> Placed:
        self._meanwhile()
        await asyncio.sleep(0.05)
        return await self._venue.place(approved)


@STOPS
async def test_the_last_look_catches_a_stop_between_commit_and_send(
    tmp_path: Path, stop: Callable[[str], None]
) -> None:
    async with desk(tmp_path) as at:
        stopper = Stopper(stop, at.database)

        def stopped() -> None:
            stopper.begin()
            wait_for(lambda: latches(at.database) == 1, "the stop is committed")

        at.gate._exchange = Held(at.venue, stopped)  # type: ignore[assignment]
        answer = await at.gate.submit(ORDER)
        assert isinstance(answer, Refused), answer
        assert len(audit(tmp_path, "ORDER_APPROVED")) == 1
        assert at.nothing_was_sent()
        assert query(at.database, "SELECT state FROM orders") == [("RELEASED",)]


async def test_an_approval_that_waited_too_long_is_void(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.gate._exchange = Held(at.venue, lambda: time.sleep(0.3))  # type: ignore[assignment]
        answer = await at.gate.submit(ORDER)
        assert isinstance(answer, Refused), answer
        assert answer.reason_code == "APPROVAL_EXPIRED", answer
        assert at.nothing_was_sent()


async def test_checks_that_run_at_once_owe_one_row_once(tmp_path: Path) -> None:
    """The monitor and the loop both check; what both owe the audit log is written once."""
    database = tmp_path / "tinywindow.db"
    breaker = CircuitBreaker(None, database)
    await breaker.check_all_metrics()
    owed = breaker._row(EventType.MONITOR_FAILED, SystemClock().now(), {"failures": 1})
    breaker._watch.owed.append(owed)
    await asyncio.gather(*(breaker.check_all_metrics() for _ in range(5)))
    assert breaker.failed_checks == 0
    assert len(audit(tmp_path, "MONITOR_FAILED")) == 1
    await breaker.close()


async def test_a_start_beside_a_writer_takes_a_fresh_anchor_for_no_rollback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process adds a row and anchors it just before the anchor is read here."""
    database = tmp_path / "tinywindow.db"
    other = await SqliteStore.open(database, inline=True)
    added = 0
    last = Anchor.last

    def meanwhile(anchor: Anchor) -> AnchorPoint | None:
        nonlocal added
        added += 1
        now = SystemClock().now()
        row = AuditDraft(f"row-{added}", now, EventType.KILL_STEP, "a", {})
        commit = other.transact(lambda tx: (tx.audit(row), tx.head())[1])
        with pytest.raises(StopIteration) as ended:
            commit.send(None)  # inline: it awaits nothing
        head = ended.value.value
        Anchor(anchor.path).append(head.audit_seq, head.audit_hash, now)
        return last(anchor)

    monkeypatch.setattr(Anchor, "last", meanwhile)
    handle = ContextHandle(database)
    context = await handle.open()
    assert added == 1
    assert context.faults == {}
    await handle.close()
    await other.close()
