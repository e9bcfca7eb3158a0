"""Connections that are lost, above all at the commit: the answer is the truth, and never twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from pg_drafts import Cut, decide, draft, hold, latch, row, stands, told, tripping
from pg_writers import assert_chain, query, raw
from postgres import PostgresServer
from psycopg.pq import TransactionStatus

from program import SOAK
from tinywindow.safety.domain.book import DecisionIds
from tinywindow.safety.errors import LedgerBusy, StoreUnavailable
from tinywindow.safety.ports import Tx
from tinywindow.safety.stores.pg import orders as module
from tinywindow.safety.stores.pg.link import BoundedConnection
from tinywindow.safety.stores.pg.sessions import ORDER
from tinywindow.safety.stores.postgres import PostgresStore

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]

KILLS = 200 if SOAK else 20
WRITERS = "application_name LIKE 'tinywindow-writer%'"


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    made = await PostgresStore.open(postgres_url, require_durable=False)
    yield made
    await made.close()


async def straight(store: PostgresStore, name: str) -> str:
    assert store._writing.alone
    return await decide(store, name)


async def under_lock(store: PostgresStore, name: str) -> str:
    store._writing.alone = False
    return await decide(store, name)


async def row_by_row(store: PostgresStore, name: str) -> str:
    return await store.decide(DecisionIds(name), lambda _: tripping(name))


async def script(store: PostgresStore, name: str) -> str:
    def work(tx: Tx) -> str:
        tx.put_hold(hold(name))
        tx.put_document("a", name)
        return name

    return await store.transact(work)


async def stop(store: PostgresStore, name: str) -> str:
    await store.transact(lambda tx: tx.add_latch(latch(name)), stop=True)
    return name


async def cleared(store: PostgresStore, trip_id: str) -> None:
    await store.transact(lambda tx: tx.clear_trip(trip_id, at_ms=2, by="x"))


SAYS: dict[Any, str] = {
    straight: "SELECT count(*) FROM audit_log WHERE order_id = %s",
    under_lock: "SELECT count(*) FROM orders WHERE client_order_id = %s",
    row_by_row: "SELECT count(*) FROM audit_log WHERE order_id = %s",
    script: "SELECT count(*) FROM documents WHERE value = %s",
    stop: "SELECT count(*) FROM latches WHERE id = %s",
}


@pytest.mark.parametrize("act", SAYS, ids=lambda act: act.__name__)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_wherever_the_connection_is_lost_the_answer_is_the_truth(
    postgres_url: str, act: Callable[..., Any], after: bool
) -> None:
    store = await PostgresStore.open(postgres_url, require_durable=False)
    points = 0
    while True:
        await cleared(store, f"trip-p{points - 1}")
        await store.transact(lambda tx: tx.head())
        cut = Cut(store, points + 1, after=after)
        name = f"p{points}"
        said = ""
        try:
            yes = await act(store, name) == name
        except StoreUnavailable as error:
            said, yes = str(error), False
        assert "nobody can say" not in said
        assert query(postgres_url, SAYS[act], name) == [(int(yes),)]
        assert_chain(postgres_url)
        if not cut.happened:
            assert yes
            cut.mend()
            break
        points += 1
        # The next one is served, on a new connection.
        if act is not stop:
            assert await act(store, f"next-{name}") in {f"next-{name}", "refused"}
        if act is row_by_row:
            await cleared(store, f"trip-next-{name}")
    await store.close()
    print(f"{act.__name__}: {points} points")
    assert points >= 1
    assert query(postgres_url, "SELECT count(*) FROM writer_marks") == [(0,)]


def _killer(server: PostgresServer, database: str, ended: threading.Event, hits: list[int]) -> None:
    rng = random.Random(1)
    with raw(server.url(database, "postgres")) as admin:
        while len(hits) < KILLS and not ended.is_set():
            time.sleep(rng.uniform(0, 0.02))
            done = admin.execute(
                f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {WRITERS}"
                " AND datname = current_database() AND state = 'active'"
            ).fetchone()
            if done is not None and done[0]:
                hits.append(done[0])


@pytest.mark.crash
async def test_sessions_ended_at_random_moments(
    durable_postgres_server: PostgresServer,
) -> None:
    database = durable_postgres_server.new_database()
    url = durable_postgres_server.url(database)
    stores = [await PostgresStore.open(url) for _ in range(3)]
    ended, hits = threading.Event(), []
    thread = threading.Thread(
        target=_killer, args=(durable_postgres_server, database, ended, hits), daemon=True
    )
    thread.start()
    answers: dict[str, bool | None] = {}

    async def ask(number: int, store: PostgresStore) -> None:
        turn = 0
        while thread.is_alive():
            name = f"o{number}-{turn}"
            turn += 1
            answers[name] = await told(store, name)

    try:
        await asyncio.gather(*(ask(n, stores[n % 3]) for n in range(6)))
    finally:
        ended.set()
        thread.join()
    assert len(hits) == KILLS
    seen = {answer: sum(a is answer for a in answers.values()) for answer in (True, False, None)}
    print(f"{KILLS} sessions ended: {seen[True]} yes, {seen[False]} no, {seen[None]} not known")
    for name, answer in answers.items():
        if answer is not None:
            assert stands(url, name) is answer, name
    # Only where the sessions that were to find out were ended as well, three times running.
    assert seen[None] <= max(KILLS // 20, 2)
    assert_chain(url)
    # Whoever asks again with the same id learns the truth, and is never given a second approval.
    unknown = [name for name, answer in answers.items() if answer is None]
    for name in (*list(answers)[-20:], *unknown):
        before = stands(url, name)
        assert await decide(stores[0], name) == ("known" if before else name)
    for store in stores:
        await store.close()
    durable_postgres_server.drop(database)


@pytest.mark.crash
@pytest.mark.timeout(900)
async def test_the_server_is_stopped_as_in_a_crash_under_load(tmp_path_factory: Any) -> None:
    server = PostgresServer(durable=True)
    try:
        server.start()
        server.make_template()
        url = server.url(server.new_database())
        store = await PostgresStore.open(url)
        rng = random.Random(2)
        answers: dict[str, bool | None] = {}
        for crash in range(50 if SOAK else 1):
            working = asyncio.ensure_future(_ask_until_away(store, f"c{crash}", answers))
            await asyncio.sleep(rng.uniform(0.05, 0.3))
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            await working
            assert store.change_token() >= -1
            with pytest.raises(StoreUnavailable):
                await store.read(lambda tx: tx.head())
            await asyncio.to_thread(server.start)
            assert await decide(store, f"again-{crash}") == f"again-{crash}"
        for name, answer in answers.items():
            if answer is not None:
                assert stands(url, name) is answer, name
        assert_chain(url)
        await store.close()
    finally:
        server.remove()


async def _ask_until_away(store: PostgresStore, name: str, answers: dict[str, bool | None]) -> None:
    for turn in range(100_000):
        one = f"{name}-{turn}"
        answers[one] = await told(store, one)
        if not answers[one]:
            return


async def test_nobody_can_say_while_the_server_is_away() -> None:
    server = PostgresServer()
    try:
        server.start()
        server.make_template()
        url = server.url(server.new_database())
        store = await PostgresStore.open(url, require_durable=False)
        assert await told(store, "a")
        connection = store._writing.link.get()
        whole = connection.wait

        def wait(gen: Any, *rest: Any) -> Any:
            whole(gen, *rest)
            server.stop(signal.SIGQUIT)
            raise psycopg.OperationalError("the connection is lost")

        connection.wait = wait  # type: ignore[method-assign]
        assert await told(store, "b") is None
        server.start()
        assert stands(url, "b") in {True, False}
        assert await decide(store, "b") in {"known", "b"}
        await store.close()
    finally:
        server.remove()


async def test_a_hung_server_is_given_up_within_its_bound(
    store: PostgresStore, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.3)
    assert await told(store, "a")
    pid = store._writing.link.get().info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        asking = asyncio.ensure_future(told(store, "b"))
        await asyncio.sleep(0.6)
    finally:
        os.kill(pid, signal.SIGCONT)
    answer = await asking
    assert time.monotonic() - began < 2
    assert answer is not None
    assert stands(postgres_server.url(f"t{postgres_server.databases}"), "b") is answer


BOUNDS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")


def _bounds_ms(connection: BoundedConnection) -> dict[str, int]:
    """What the server itself says of a session's bounds, in milliseconds; 0 is no bound."""
    found = "SELECT name, setting::int FROM pg_settings WHERE name = ANY(%s)"
    return dict(connection.execute(found, [list(BOUNDS)]).fetchall())


async def test_a_quarter_of_a_second_bounds_every_wait_of_an_order_at_the_server(
    store: PostgresStore,
) -> None:
    assert await told(store, "a")
    # The longer bounds of what is no order end with its transaction.
    await script(store, "b")
    await stop(store, "c")
    # The writer's thread is idle, so its session may be asked here.
    connection = store._writing.link.get()
    idle = _bounds_ms(connection)
    connection.execute(ORDER)
    in_order = _bounds_ms(connection)
    connection.execute("ROLLBACK")
    for found in (idle, in_order):
        assert set(found) == set(BOUNDS)
        assert all(0 < bound_ms <= 250 for bound_ms in found.values()), found


async def test_an_order_waits_for_the_lock_within_its_bound(
    store: PostgresStore, postgres_url: str
) -> None:
    assert await told(store, "a")
    with raw(postgres_url) as other:
        other.execute(ORDER)
        for alone in (True, False):
            store._writing.alone = alone
            began = time.monotonic()
            with pytest.raises(LedgerBusy):
                await decide(store, "b")
            assert time.monotonic() - began < 1
        # A reader waits for nobody.
        assert (await store.read(lambda tx: tx.head())).version == 1
        other.execute("ROLLBACK")
    assert not stands(postgres_url, "b")
    assert await told(store, "b")


async def test_who_stops_in_the_middle_of_an_order_holds_up_the_others_for_a_moment(
    store: PostgresStore, postgres_url: str
) -> None:
    other = await PostgresStore.open(postgres_url, require_durable=False)
    connection = other._writing.link.get()
    connection.execute(ORDER)
    # And here its process is frozen. The server ends its session by itself.
    began = time.monotonic()
    answers = []
    while not answers or not answers[-1]:
        answers.append(await told(store, f"o{len(answers)}"))
        assert time.monotonic() - began < 1
    print(f"served after {time.monotonic() - began:.2f} s")
    # Awake again, the frozen one sees that its session has ended, and decides anew.
    assert await told(other, "late")
    await other.close()


async def test_a_script_that_asks_for_nonsense_leaves_the_store_usable(
    store: PostgresStore,
) -> None:
    def nonsense(tx: Tx) -> None:
        tx._db._connection.execute("SELECT nonsense")  # type: ignore[attr-defined]

    with pytest.raises(StoreUnavailable):
        await store.transact(nonsense)
    assert await told(store, "a")


async def test_a_lost_session_can_commit_nothing_any_more(postgres_url: str) -> None:
    """It is ended, and seen to be gone, before anybody says that nothing was written."""
    store = await PostgresStore.open(postgres_url, require_durable=False)
    assert await told(store, "a")
    before = store._writing.link.get()
    pid = before.info.backend_pid

    def still_there(_: BoundedConnection) -> bool:
        return bool(query(postgres_url, "SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid))

    # Not closed by us: as if only our side of the network were gone.
    store._writing.link._connection = None
    assert still_there(before)
    assert store._writing.link.after_loss(still_there) is False
    before.close()
    await store.close()


def test_a_draft_is_what_the_row_says() -> None:
    assert draft("a").audit == (row("a"),)


async def test_a_process_that_starts_slowly_leaves_no_transaction_open(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it may be silent for longer than a writer's transaction may."""
    seen = set()
    whole = BoundedConnection.wait

    def wait(self: BoundedConnection, *given: Any) -> Any:
        answer = whole(self, *given)
        seen.add(self.info.transaction_status)
        return answer

    monkeypatch.setattr(BoundedConnection, "wait", wait)
    made = await PostgresStore.open(postgres_url, require_durable=False)
    await made.close()
    assert seen == {TransactionStatus.IDLE}
