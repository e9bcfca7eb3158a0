"""Orders that wait together share a commit, and are decided as if each had come by itself."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pg_drafts import REFUSED, Cut, decide, draft, hold, latch, row, stands, told, tripping
from pg_writers import assert_chain, query, raw
from psycopg.pq import TransactionStatus

from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.book import DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.records import HoldState
from tinywindow.safety.errors import InvariantBroken, LedgerBusy, StoreUnavailable
from tinywindow.safety.stores.memory.store import MemoryStore
from tinywindow.safety.stores.pg import writing
from tinywindow.safety.stores.pg.sessions import ORDER
from tinywindow.safety.stores.pg.writing import roll_back
from tinywindow.safety.stores.postgres import PostgresStore

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

NAMES = ("a", "b", "c", "d")
COMMITS = "SELECT count(DISTINCT xmin::text) FROM audit_log WHERE order_id = ANY(%s)"

Ask = Callable[[], Awaitable[Any]]


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    made = await PostgresStore.open(postgres_url, require_durable=False)
    yield made
    await made.close()


@asynccontextmanager
async def in_line(store: PostgresStore) -> AsyncIterator[None]:
    """Whatever is asked for meanwhile waits in line; one order was decided before."""
    await decide(store, "first")
    begun, go_on = threading.Event(), threading.Event()

    def hold_up() -> bool:
        begun.set()
        return go_on.wait(10)

    holding = asyncio.ensure_future(store._writes.run(hold_up, timeout_s=10))
    assert await asyncio.to_thread(begun.wait, 10)
    try:
        yield
    finally:
        go_on.set()
        assert await holding


async def together(store: PostgresStore, *asks: Ask) -> list[Any]:
    """The answers, or faults, to what waits in line together."""
    async with in_line(store):
        waiting = await come_to_the_line(asks)
    return await asyncio.gather(*waiting, return_exceptions=True)


async def come_to_the_line(asks: Iterable[Ask]) -> list[asyncio.Future[Any]]:
    """Ask for all of these, in their order, and wait for none of them."""
    waiting = [asyncio.ensure_future(ask()) for ask in asks]
    await asyncio.sleep(0)
    return waiting


def asking(store: PostgresStore, name: str) -> Ask:
    return lambda: decide(store, name)


def proposing(store: PostgresStore, ids: DecisionIds, propose: Any) -> Ask:
    return lambda: store.decide(ids, propose)


def commits(url: str, names: tuple[str, ...] = NAMES) -> int:
    return int(query(url, COMMITS, list(names))[0][0])


async def test_orders_that_wait_together_share_a_commit(
    store: PostgresStore, postgres_url: str
) -> None:
    answers = await together(store, *(asking(store, name) for name in NAMES))
    assert answers == list(NAMES)
    assert all(stands(postgres_url, name) for name in NAMES)
    assert commits(postgres_url) == 1
    in_order = query(postgres_url, "SELECT order_id FROM audit_log ORDER BY seq")
    assert [name for (name,) in in_order] == ["first", *NAMES]
    assert_chain(postgres_url)
    # And the book is in step with the database: the next goes straight.
    store._writing.alone = True
    assert await decide(store, "e") == "e"
    assert store._writing.alone


async def test_each_sees_what_those_before_it_hold(store: PostgresStore, postgres_url: str) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def ask(name: str) -> Ask:
        def propose(view: DecisionView) -> Draft[str]:
            seen[name] = len(view.book.holds), view.book.executions.velocity(7)
            # An attempt of somebody's that comes to nothing takes a number all the same.
            query(postgres_url, "SELECT nextval('executions_id_seq')")
            if len(view.book.holds) >= 3:
                return Draft(REFUSED, audit=(row(name, EventType.ORDER_REJECTED_LIMITS),))
            return draft(name)

        return proposing(store, DecisionIds(name), propose)

    answers = await together(store, *(ask(name) for name in NAMES))
    # One is held by the order in front of them.
    assert answers == ["a", "b", REFUSED, REFUSED]
    assert seen == {"a": (1, 1), "b": (2, 2), "c": (3, 3), "d": (3, 3)}
    assert commits(postgres_url) == 1
    assert query(postgres_url, "SELECT count(*) FROM orders") == [(3,)]
    assert store.peek(lambda book: book is not None and book.executions.velocity(7)) == 3
    assert_chain(postgres_url)


async def test_a_stop_that_comes_while_they_wait_goes_first(
    store: PostgresStore, postgres_url: str
) -> None:
    async with in_line(store):
        orders = await come_to_the_line(asking(store, name) for name in NAMES)
        stop = asyncio.ensure_future(store.transact(lambda tx: tx.add_latch(latch("k")), stop=True))
        await asyncio.sleep(0)
    assert await stop
    assert await asyncio.gather(*orders) == [REFUSED] * len(NAMES)
    assert query(postgres_url, "SELECT client_order_id FROM orders") == [("first",)]


def _broken(_: DecisionView) -> Draft[str]:
    raise ZeroDivisionError("a bug")


def _above_its_cap(_: DecisionView) -> Draft[str]:
    return replace(draft("b"), symbol_cap_micros=99)


def _known_to_the_database(_: DecisionView) -> Draft[str]:
    """A row whose id stands already: the database itself refuses it."""
    return replace(draft("b"), audit=(row("first"),))


@pytest.mark.parametrize(
    ("propose", "fault"),
    [
        (_broken, ZeroDivisionError),
        (_above_its_cap, InvariantBroken),
        (_known_to_the_database, InvariantBroken),
    ],
)
async def test_one_that_is_at_fault_takes_no_other_along(
    store: PostgresStore, postgres_url: str, propose: Any, fault: type[Exception]
) -> None:
    answers = await together(
        store,
        asking(store, "a"),
        proposing(store, DecisionIds("b"), propose),
        asking(store, "c"),
        asking(store, "d"),
    )
    assert [answers[0], *answers[2:]] == ["a", "c", "d"]
    assert type(answers[1]) is fault
    assert [stands(postgres_url, name) for name in NAMES] == [True, False, True, True]
    assert_chain(postgres_url)


async def test_an_id_that_comes_twice_is_reserved_once(
    store: PostgresStore, postgres_url: str
) -> None:
    answers = await together(store, *(asking(store, name) for name in ("a", "b", "a", "c")))
    assert answers == ["a", "b", "known", "c"]
    assert query(postgres_url, "SELECT count(*) FROM orders") == [(4,)]


async def test_a_decision_that_comes_twice_is_spent_once(
    store: PostgresStore, postgres_url: str
) -> None:
    def ask(name: str, decision_id: str) -> Ask:
        def propose(view: DecisionView) -> Draft[str]:
            if view.decision_spent:
                return Draft(REFUSED, audit=(row(name, EventType.ORDER_REJECTED_LIMITS),))
            made = draft(name)
            assert made.hold is not None
            return replace(made, hold=replace(made.hold, decision_id=decision_id))

        return proposing(store, DecisionIds(name, decision_id), propose)

    asks = (ask("a", "d1"), ask("b", "d2"), ask("c", "d1"), ask("d", "d3"))
    assert await together(store, *asks) == ["a", "b", REFUSED, "d"]
    spent = query(postgres_url, "SELECT decision_id, client_order_id FROM orders ORDER BY 2")
    assert spent == [("d1", "a"), ("d2", "b"), ("d3", "d"), (None, "first")]


async def test_a_trip_in_the_middle_is_seen_by_those_after_it(
    store: PostgresStore, postgres_url: str
) -> None:
    def ask(name: str) -> Ask:
        def propose(view: DecisionView) -> Draft[str]:
            if view.book.trip is not None:
                return Draft(REFUSED, audit=(row(name, EventType.ORDER_REJECTED_HALTED),))
            return tripping(name) if name == "b" else draft(name)

        return proposing(store, DecisionIds(name), propose)

    answers = await together(store, *(ask(name) for name in NAMES))
    assert answers == ["a", "b", REFUSED, REFUSED]
    assert query(postgres_url, "SELECT id FROM trips WHERE standing = 1") == [("trip-b",)]
    assert_chain(postgres_url)


async def test_an_order_whose_attempt_is_known_is_revised(
    store: PostgresStore, postgres_url: str
) -> None:
    """An attempt without its hold, as after a failure that was told late."""
    with raw(postgres_url) as other:
        other.execute(
            "INSERT INTO executions (client_order_id, kind, at_ms, outcome, version)"
            " VALUES ('b', 'order', 5, 'FAILED', 0)"
        )
    answers = await together(store, *(asking(store, name) for name in NAMES))
    assert answers == list(NAMES)
    assert all(stands(postgres_url, name) for name in NAMES)


async def test_an_id_that_ended_long_ago_is_looked_up_by_itself(
    store: PostgresStore, postgres_url: str
) -> None:
    """No cached book shows it, so that it is drafted as new, and those after it with it."""
    await decide(store, "b")
    await store.transact(lambda tx: tx.put_hold(replace(hold("b"), state=HoldState.RELEASED)))
    answers = await together(store, *(asking(store, name) for name in NAMES))
    assert answers == ["a", "known", "c", "d"]
    assert all(stands(postgres_url, name) for name in NAMES)
    assert_chain(postgres_url)
    held = await store.transact(lambda tx: set(tx.book().holds))
    assert held == {"first", "a", "c", "d"}


async def test_what_was_foreseen_is_forgotten_where_the_calls_cannot_be_made(
    store: PostgresStore, postgres_url: str
) -> None:
    """Somebody keeps everybody from writing orders, for longer than an order waits."""
    await decide(store, "first")
    store._writing.alone = False
    with raw(postgres_url) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE orders IN SHARE MODE")
        # The first goes by itself, and the others together behind it.
        answers = await asyncio.gather(
            *(decide(store, name) for name in NAMES), return_exceptions=True
        )
        other.execute("ROLLBACK")
    assert [type(answer) for answer in answers] == [LedgerBusy] * len(NAMES)
    assert store.peek(lambda book: book is None or set(book.holds) == {"first"})
    assert await decide(store, "b") == "b"
    assert await store.transact(lambda tx: set(tx.book().holds)) == {"first", "b"}


def _noting(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each transaction of a writer, whether it began with a book."""
    known: list[bool] = []
    whole = writing.begin

    def begin(connection: Any, beginning: Any, cached: Any, look: Any, **kw: Any) -> Any:
        known.append(cached is not None)
        return whole(connection, beginning, cached, look, **kw)

    monkeypatch.setattr(writing, "begin", begin)
    return known


async def test_what_is_drafted_shows_nowhere_before_it_is_committed(
    store: PostgresStore, postgres_url: str
) -> None:
    """Else a stop that the reader has seen would stand behind a book that is ahead of its time."""
    shown: list[tuple[int, int]] = []

    def ask(name: str) -> Ask:
        def propose(view: DecisionView) -> Draft[str]:
            look = store.peek(lambda book: book)
            assert look is not None
            shown.append((look.head.version, len(look.holds)))
            assert len(view.book.holds) == len(shown)
            return draft(name)

        return proposing(store, DecisionIds(name), propose)

    await decide(store, "first")
    version = store.peek(lambda book: 0 if book is None else book.head.version)
    assert await together(store, *(ask(name) for name in NAMES)) == list(NAMES)
    assert shown == [(version, 1)] * len(NAMES)


async def test_no_whole_book_is_read_while_everybody_waits(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is decided by itself after the others goes on with the book that there is."""
    await decide(store, "b")
    await store.transact(lambda tx: tx.put_hold(replace(hold("b"), state=HoldState.RELEASED)))
    known = _noting(monkeypatch)
    assert await together(store, *(asking(store, name) for name in NAMES)) == [
        "a",
        "known",
        "c",
        "d",
    ]
    assert len(known) > 1
    assert all(known)


async def test_a_stop_does_not_wait_for_all_that_must_go_by_themselves(
    store: PostgresStore, postgres_url: str
) -> None:
    await decide(store, "first")
    stops: list[asyncio.Future[bool]] = []
    loop = asyncio.get_running_loop()
    asked = threading.Event()

    def stop() -> None:
        stops.append(
            asyncio.ensure_future(store.transact(lambda tx: tx.add_latch(latch("k")), stop=True))
        )
        loop.call_soon(asked.set)

    def breaks(_: DecisionView) -> Draft[str]:
        if not stops:
            loop.call_soon_threadsafe(stop)
            assert asked.wait(10)
        raise ZeroDivisionError("a bug")

    asks = [asking(store, name) for name in NAMES[:3]]
    asks.append(proposing(store, DecisionIds("d"), breaks))
    answers = await together(store, *asks)
    assert await stops[0]
    assert [type(answer) for answer in answers] == [LedgerBusy] * 4
    assert not any(stands(postgres_url, name) for name in NAMES)


async def test_where_the_database_is_too_busy_for_one_the_next_does_not_try(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would wait a quarter of a second more, and whoever stops behind them."""
    await decide(store, "first")
    with raw(postgres_url) as other:

        def breaks(_: DecisionView) -> Draft[str]:
            # Once the others were taken along, somebody else takes the turn and keeps it.
            if other.info.transaction_status is TransactionStatus.IDLE:
                roll_back(store._writing.link.get(), store._writing.link)
                other.execute(ORDER)
            raise ZeroDivisionError("a bug")

        asks = [asking(store, name) for name in NAMES[:3]]
        asks.append(proposing(store, DecisionIds("d"), breaks))
        known = _noting(monkeypatch)
        answers = await together(store, *asks)
        other.execute("ROLLBACK")
    assert [type(answer) for answer in answers] == [LedgerBusy] * 4
    # Together, and the first by itself.
    assert len(known) == 2
    assert not any(stands(postgres_url, name) for name in NAMES)


async def test_one_that_is_given_up_in_line_is_not_decided(
    store: PostgresStore, postgres_url: str
) -> None:
    async with in_line(store):
        orders = await come_to_the_line(asking(store, name) for name in NAMES)
        orders[1].cancel()
        await asyncio.sleep(0)
    answers = await asyncio.gather(*orders, return_exceptions=True)
    assert [answers[0], *answers[2:]] == ["a", "c", "d"]
    assert isinstance(answers[1], asyncio.CancelledError)
    assert [stands(postgres_url, name) for name in NAMES] == [True, False, True, True]


async def test_where_no_turn_comes_all_are_busy_and_none_is_decided(
    store: PostgresStore, postgres_url: str
) -> None:
    with raw(postgres_url) as other:
        other.execute(ORDER)
        answers = await asyncio.gather(
            *(decide(store, name) for name in NAMES), return_exceptions=True
        )
        other.execute("COMMIT")
    assert [type(answer) for answer in answers] == [LedgerBusy] * len(NAMES)
    assert query(postgres_url, "SELECT count(*) FROM audit_log") == [(0,)]


async def test_refusals_that_leave_nothing_behind_write_nothing(
    store: PostgresStore, postgres_url: str
) -> None:
    asks = [proposing(store, DecisionIds(name), lambda _: Draft("no")) for name in NAMES]
    assert await together(store, *asks) == ["no"] * len(NAMES)
    assert query(postgres_url, "SELECT count(*) FROM audit_log") == [(1,)]
    assert query(postgres_url, "SELECT count(*) FROM writer_marks") == [(0,)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_wherever_the_connection_is_lost_each_is_told_the_truth(
    postgres_url: str, after: bool
) -> None:
    """One of them bears the id of an order that has ended, which its call finds out."""
    store = await PostgresStore.open(postgres_url, require_durable=False)
    await decide(store, "ended")
    await store.transact(lambda tx: tx.put_hold(replace(hold("ended"), state=HoldState.RELEASED)))
    points = 0
    happened = True
    while happened:
        points += 1
        await store.transact(lambda tx: tx.head())
        names = tuple(f"p{points}-{name}" for name in NAMES)
        store._writing.alone = False
        cut = Cut(store, points, after=after)
        # The first is taken alone, and the others together behind it.
        one, two, ended, *others = await asyncio.gather(
            *(told(store, name) for name in names[:2]),
            _outcome(store, "ended"),
            *(told(store, name) for name in names[2:]),
        )
        answers = [one, two, *others]
        assert ended in {"known", "unavailable"}
        cut.mend()
        happened = cut.happened
        assert None not in answers
        assert [stands(postgres_url, name) for name in names] == answers
        assert_chain(postgres_url)
    assert points > 4
    await store.close()


async def _outcome(store: PostgresStore, name: str) -> str:
    """Ask once more for an order, with a row that no other had, as every row has."""

    def propose(view: DecisionView) -> Draft[str]:
        if view.existing is not None:
            return Draft("known")
        return replace(draft(name), audit=(replace(row(name), id=f"row-{time.monotonic_ns()}"),))

    try:
        return await store.decide(DecisionIds(name), propose)
    except StoreUnavailable:
        return "unavailable"


KINDS = ("order", "order", "order", "nothing", "document", "trip")
FULL = 12


def _by_kind(view: DecisionView, name: str, kind: str) -> Draft[str]:
    if view.existing is not None:
        return Draft("known")
    if view.book.trip is not None:
        return Draft("tripped", audit=(row(name, EventType.ORDER_REJECTED_HALTED),))
    if kind == "trip":
        return tripping(name)
    if kind == "nothing":
        return Draft("nothing")
    if kind == "document":
        return replace(draft(name), documents={"count": str(len(view.book.holds))})
    if len(view.book.holds) >= FULL:
        return Draft("full", audit=(row(name, EventType.ORDER_REJECTED_LIMITS),))
    return draft(name)


async def test_together_is_the_same_as_one_after_another(
    store: PostgresStore, postgres_url: str
) -> None:
    """Against the store in memory, which decides each by itself, with the same rule."""
    rng = random.Random(7)
    plain = MemoryStore()

    def ask(target: Any, name: str, kind: str, turn: str) -> Ask:
        def propose(view: DecisionView) -> Draft[str]:
            made = _by_kind(view, name, kind)
            return replace(made, audit=tuple(replace(r, id=r.id + turn) for r in made.audit))

        return lambda: target.decide(DecisionIds(name), propose)

    await decide(plain, "first")  # type: ignore[arg-type]
    for number in range(12):
        names = [f"{number}-{rng.randrange(9)}" for _ in range(rng.randrange(1, 14))]
        given = [(name, rng.choice(KINDS), f"-{turn}") for turn, name in enumerate(names)]
        expected = [await ask(plain, *one)() for one in given]
        answers = await together(store, *(ask(store, *one) for one in given))
        assert answers == expected
        for target in (plain, store):
            await target.transact(_one_day_later)
    rows = await store.read(lambda tx: tx.audit_rows())
    assert rows == await plain.read(lambda tx: tx.audit_rows())
    assert len(rows) > 30


def _one_day_later(tx: Any) -> None:
    """The trip is cleared, and what was held has been filled."""
    trip = tx.standing_trip()
    if trip is not None:
        tx.clear_trip(trip.id, at_ms=9, by="x")
    for name in list(tx.book().holds)[:8]:
        tx.put_hold(replace(hold(name), state=HoldState.RELEASED))
