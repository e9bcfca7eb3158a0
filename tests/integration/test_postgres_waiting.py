"""What a writer on PostgreSQL does while others have the turn: it holds nobody up, nor forgets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pg_drafts import REFUSED, decide, hold, latch, row
from pg_writers import assert_chain, raw

from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.records import Head, TradingState
from tinywindow.safety.errors import LedgerBusy
from tinywindow.safety.stores import postgres as module
from tinywindow.safety.stores.pg import writing
from tinywindow.safety.stores.pg.books import begin
from tinywindow.safety.stores.pg.sessions import ORDER
from tinywindow.safety.stores.pg.watch import POLL_INTERVAL_S, HeadWatch
from tinywindow.safety.stores.postgres import PostgresStore

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    made = await PostgresStore.open(postgres_url, require_durable=False)
    yield made
    await made.close()


def book_of(store: PostgresStore) -> Book | None:
    return store._books.writers


@pytest.fixture
def beginnings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """How each transaction began, and whether it had no book to begin with."""
    seen: list[tuple[str, bool]] = []

    def noting(
        connection: Any, beginning: Any, cached: Book | None, look: Any, *, attempts: bool
    ) -> Any:
        seen.append((beginning, cached is None))
        return begin(connection, beginning, cached, look, attempts=attempts)

    for place in (module, writing):
        monkeypatch.setattr(place, "begin", noting)
    return seen


async def test_a_whole_book_is_read_while_somebody_else_has_the_turn(
    store: PostgresStore, postgres_url: str
) -> None:
    """A long history would otherwise keep the turn from everybody for as long as it is read."""
    with raw(postgres_url) as other:
        other.execute(ORDER)
        with pytest.raises(LedgerBusy):
            await decide(store, "d1")
        book = book_of(store)
        assert book is not None
        other.execute("COMMIT")
    assert await decide(store, "d1") == "d1"
    # It went on from there.
    assert book_of(store) is book
    assert "d1" in book.holds


async def test_no_turn_begins_without_a_book(
    store: PostgresStore, beginnings: list[tuple[str, bool]]
) -> None:
    await decide(store, "d1")
    store._books.forget_writers()
    await store.transact(lambda tx: tx.put_document("a", "1"))
    store._books.forget_writers()
    await store.transact(lambda tx: tx.put_document("a", "2"), stop=True)
    without = [beginning for beginning, missing in beginnings if missing]
    assert len(without) == 3
    assert all("READ ONLY" in beginning and "lock" not in beginning for beginning in without)
    assert all("FOR UPDATE" in beginning for beginning, missing in beginnings if not missing)


@pytest.mark.parametrize("straight", [True, False])
async def test_whoever_waits_in_vain_keeps_what_it_knows(
    store: PostgresStore, postgres_url: str, straight: bool
) -> None:
    """Processes that read the whole history after every wait in vain wait ever longer."""
    await decide(store, "d1")
    book = book_of(store)
    store._writing.alone = straight
    with raw(postgres_url) as other:
        other.execute(ORDER)
        with pytest.raises(LedgerBusy):
            await decide(store, "d2")
        other.execute("COMMIT")
    assert book_of(store) is book
    assert await decide(store, "d2") == "d2"
    assert_chain(postgres_url)


async def test_what_came_after_a_whole_book_is_caught_up_with_under_the_lock(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the snapshot and the turn somebody else commits: the decision sees it."""
    other = await PostgresStore.open(postgres_url, require_durable=False)
    fill = store._fill
    filled, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        fill()
        filled.set()
        assert go_on.wait(10)

    monkeypatch.setattr(store, "_fill", slowly)

    def script(tx: Any) -> tuple[bool, int]:
        return "d9" in tx.book().holds, tx.head().version

    reading = asyncio.ensure_future(store.transact(script))
    await asyncio.to_thread(filled.wait, 10)
    await other.transact(lambda tx: tx.add_hold(hold("d9")))
    go_on.set()
    seen, version = await reading
    assert seen
    assert version == (await other.read(lambda tx: tx.head())).version
    await other.close()


async def test_nobody_waits_for_a_long_history_to_be_read(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders are refused meanwhile, and a stop commits; whoever comes afterwards finds it read."""
    fill, go_on = store._fill, threading.Event()

    def slowly() -> None:
        assert go_on.wait(10)
        fill()

    monkeypatch.setattr(store, "_fill", slowly)
    with pytest.raises(LedgerBusy):
        await decide(store, "d1")
    assert await store.transact(lambda tx: tx.add_latch(latch("k1")), stop=True)
    with raw(postgres_url) as looking:
        assert looking.execute("SELECT id FROM latches").fetchall() == [("k1",)]
    store._books.forget_writers()
    with pytest.raises(LedgerBusy):
        await decide(store, "d1")
    go_on.set()
    # The answer of a refused order is lost, and not what was read for it.
    await store.read(lambda tx: tx.head())
    assert book_of(store) is not None
    assert await decide(store, "d1") == REFUSED


@pytest.mark.parametrize("stop", [True, False])
async def test_what_is_no_order_waits_longer_than_an_order_may_last(
    store: PostgresStore, postgres_url: str, stop: bool
) -> None:
    """From PostgreSQL 17 on a transaction that waits has a clock of its own, set for orders."""
    wait_s = 1.5 if stop else 0.9
    with raw(postgres_url) as other:
        other.execute(ORDER)
        held = asyncio.ensure_future(store.transact(lambda tx: tx.add_latch(latch("k")), stop=stop))
        await asyncio.sleep(wait_s)
        assert not held.done()
        other.execute("COMMIT")
    assert await held


async def test_the_order_s_own_bounds_hold_again_afterwards(store: PostgresStore) -> None:
    await store.transact(lambda tx: tx.put_document("a", "1"), stop=True)
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    connection = store._writing.link.get()
    shown = {name: connection.execute(f"SHOW {name}").fetchone() for name in names}  # type: ignore[arg-type]
    assert shown == {
        "lock_timeout": ("240ms",),
        "statement_timeout": ("250ms",),
        "idle_in_transaction_session_timeout": ("250ms",),
    }


async def test_a_decision_leaves_a_row_and_no_mark(store: PostgresStore, postgres_url: str) -> None:
    """Under the lock too: its audit row says that it stands, after a lost answer."""
    await decide(store, "d1")
    store._writing.alone = False
    await decide(store, "d2")
    with raw(postgres_url) as looking:
        assert looking.execute("SELECT count(*) FROM writer_marks").fetchone() == (0,)
        await store.transact(lambda tx: tx.audit(row("other")))
        assert looking.execute("SELECT count(*) FROM writer_marks").fetchone() == (1,)


class CountingLink:
    """A database whose head does not move, and which counts how often it was asked."""

    polls = 0

    def get(self) -> CountingLink:
        return self

    def run_prepared(self, *_: str) -> CountingLink:
        self.polls += 1
        return self

    def fetchone(self) -> tuple[int, int]:
        return (7, 0)

    def drop(self) -> None:
        return


class Steps:
    """Stands for the watch's end: does something in each pause, and ends after the last."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = iter(steps)
        self.pauses: list[float] = []

    def is_set(self) -> bool:
        return False

    def wait(self, pause_s: float) -> bool:
        self.pauses.append(pause_s)
        step = next(self.steps, None)
        if step is not None:
            step()
        return step is None


def test_a_writer_that_sees_the_head_all_the_time_need_not_ask_for_it() -> None:
    """And once it sees it no more, it asks sooner, so that news keep their 50 ms."""
    head = Head(5, 1, TradingState.RUNNING, 1, "", 0)
    link = CountingLink()
    watching = HeadWatch(link, head)  # type: ignore[arg-type]
    asked: list[int] = []

    def sees() -> None:
        asked.append(link.polls)
        watching.saw(head)

    steps = Steps(sees, sees, lambda: asked.append(link.polls), lambda: asked.append(link.polls))
    watching._ended = steps  # type: ignore[assignment]
    watching._poll()
    assert asked == [0, 0, 0, 1]
    assert link.polls == 2
    whole = POLL_INTERVAL_S
    assert steps.pauses == [whole, whole / 2, whole / 2, whole, whole]


async def test_whoever_waits_no_longer_for_a_change_leaves_nothing_behind(
    store: PostgresStore,
) -> None:
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await store.changed(store.change_token())
    assert store._watch._waiting == []
