"""Stops on PostgreSQL: nothing is approved after one, whoever stopped, and no stop is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pg_drafts import REFUSED, decide, latch, row, stands
from pg_writers import PgWriters, approvals, assert_chain, assert_ledger, prepared, query, raw
from postgres import PostgresServer

from program import SOAK, wait_for
from tinywindow.safety import KillSwitch, KillSwitchMode, PositionLimitEnforcer
from tinywindow.safety.domain.book import DecisionIds, DecisionView, Draft
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.location import locate
from tinywindow.safety.stores.pg.sessions import ORDER
from tinywindow.safety.stores.postgres import PostgresStore

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]

ROUNDS = 50 if SOAK else 2


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    made = await PostgresStore.open(postgres_url, require_durable=False)
    yield made
    await made.close()


@dataclass(frozen=True)
class Stopped:
    """A stop as it stood when `activate()` returned, or when it followed from the journal."""

    took_s: float
    durable: bool
    returned_s: float
    seq: int


async def _stop(url: str) -> Stopped:
    """Stop from another host: only the database is shared, not the file."""
    with raw(url) as looking:
        looking.execute("SELECT 1")

        def seen() -> tuple[int, int]:
            row = looking.execute("SELECT audit_seq, (SELECT count(*) FROM latches) FROM head")
            seq, latches = row.fetchone() or (0, 0)
            return int(seq), int(latches)

        async with KillSwitch(None, (), url) as switch:
            await switch.is_active()
            began = time.monotonic()
            report = await switch.activate(KillSwitchMode.HALT_ONLY, "test", actor="test")
            returned_s = time.monotonic()
            took_s = returned_s - began
            seq, latches = seen()
            if report.durable:
                assert latches == 1
            # What was not committed in time is in the journal, and follows.
            async with asyncio.timeout(10):
                while not latches:
                    await asyncio.sleep(0.01)
                    (seq, latches), returned_s = seen(), time.monotonic()
            return Stopped(took_s, report.durable, returned_s, seq)


@pytest.mark.concurrency
@pytest.mark.slow
def test_nothing_is_approved_after_a_stop_under_load(
    durable_postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_time = 0
    for n in range(ROUNDS):
        # A new one each time: a file KILL of the last round would be a stop before this one.
        monkeypatch.setenv("TINYWINDOW_DATA_DIR", str(tmp_path / f"another-host-{n}"))
        name = durable_postgres_server.new_database()
        url = durable_postgres_server.url(name)
        asyncio.run(prepared(url, cap=10_000_000))
        with PgWriters(url=url, folder=tmp_path / str(n), number=8) as writers:
            writers.wait_for_turns(10)
            stop = asyncio.run(_stop(url))
            in_time += stop.durable
            before = writers.turns()
            wait_for(
                lambda before=before: all(
                    now >= then + 5 for now, then in zip(writers.turns(), before, strict=True)
                ),
                "five more turns each",
            )
            answers = writers.finish()
        told = [answer for one in answers for answer in one]
        assert approvals(url, after=stop.seq) == []
        assert not [a for a in told if a.allowed and a.asked_s > stop.returned_s]
        late = {a.code for a in told if a.asked_s > stop.returned_s}
        assert late <= {"KILL_SWITCH_ACTIVE", "LEDGER_BUSY"}
        assert_ledger(url, told)
        assert_chain(url)
        allowed = [a.answered_s for a in told if a.allowed]
        rate = len(allowed) / (max(allowed) - min(allowed))
        print(f"{rate:.0f} approvals/s; the stop was latched after {stop.took_s * 1000:.0f} ms")
        durable_postgres_server.drop(name)
    # What could not be latched within its bound, on a machine that does much else, followed.
    assert in_time * 2 >= ROUNDS


@pytest.mark.parametrize("alone", [True, False], ids=["straight", "under the lock"])
async def test_a_stop_that_commits_while_an_order_waits_for_the_lock_is_seen(
    store: PostgresStore, postgres_url: str, alone: bool
) -> None:
    """The trap of a single statement: it waits for the lock with the snapshot from before."""
    assert await decide(store, "a") == "a"
    store._writing.alone = alone
    with raw(postgres_url) as other:
        other.execute(ORDER)
        asking = asyncio.ensure_future(decide(store, "b"))
        await asyncio.sleep(0.08)
        assert not asking.done()
        other.execute(
            "INSERT INTO latches (id, mode, reason, actor, source, activated_ms)"
            " VALUES ('k', 'HALT_ONLY', 'x', 'x', 'CLI', 1)"
        )
        other.execute(
            "UPDATE head SET version = version + 1, stop_epoch = stop_epoch + 1,"
            " trading = 'STOPPED'"
        )
        other.execute("COMMIT")
        assert await asking == REFUSED
    assert query(postgres_url, "SELECT client_order_id FROM orders") == [("a",)]


async def test_a_stop_waits_for_an_order_that_is_being_decided(postgres_url: str) -> None:
    one = await PostgresStore.open(postgres_url, require_durable=False)
    other = await PostgresStore.open(postgres_url, require_durable=False)
    one._writing.alone = False
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def propose(view: DecisionView) -> Draft[int]:
        loop.call_soon_threadsafe(began.set)
        time.sleep(0.1)
        return Draft(view.book.head.stop_epoch, audit=(row("a"),))

    order = asyncio.ensure_future(one.decide(DecisionIds("a"), propose))
    await began.wait()
    asked = time.monotonic()
    await other.transact(lambda tx: tx.add_latch(latch("k")), stop=True)
    assert time.monotonic() - asked < 0.5
    # It was decided before the stop, and carries the epoch of before: the last look refuses it.
    assert await order == 0
    assert (await one.read(lambda tx: tx.head())).stop_epoch == 1
    assert one.peek(lambda book: book is not None and book.head.stop_epoch == 1)
    for made in (one, other):
        await made.close()


async def test_an_entry_drafted_beside_a_latch_that_no_epoch_tells_of_is_refused(
    store: PostgresStore, postgres_url: str
) -> None:
    """Some program wrote the latch and nothing else. The database looks a second time."""
    assert await decide(store, "a") == "a"
    with raw(postgres_url) as other:
        other.execute(
            "INSERT INTO latches (id, mode, reason, actor, source, activated_ms)"
            " VALUES ('k', 'HALT_ONLY', 'x', 'x', 'CLI', 1)"
        )
    with pytest.raises(Exception, match="a stop stands"):
        await decide(store, "b")
    assert await decide(store, "c") == REFUSED
    assert not stands(postgres_url, "b")


@pytest.mark.concurrency
async def test_a_release_clears_only_what_it_was_shown(postgres_url: str) -> None:
    """R14: one operator releases while another stops; in either order the stop stands."""
    one = await PostgresStore.open(postgres_url, require_durable=False)
    other = await PostgresStore.open(postgres_url, require_durable=False)
    for n in range(20):
        await one.transact(lambda tx, n=n: tx.add_latch(latch(f"old-{n}")), stop=True)

        def release(tx: Tx, n: int = n) -> bool:
            return tx.release_latch(f"old-{n}", at_ms=5, by="bob", reason="clear")

        def stop(tx: Tx, n: int = n) -> bool:
            return tx.add_latch(latch(f"new-{n}"))

        assert await asyncio.gather(one.transact(release), other.transact(stop, stop=True))
        standing = await one.read(lambda tx: [found.id for found in tx.standing_latches()])
        assert standing == [f"new-{n}"]
        assert await decide(one, f"o{n}") == REFUSED
        await one.transact(
            lambda tx, n=n: tx.release_latch(f"new-{n}", at_ms=6, by="bob", reason="clear")
        )
    epochs = await one.read(lambda tx: tx.head())
    assert epochs.stop_epoch == 40
    for made in (one, other):
        await made.close()


@pytest.mark.concurrency
@pytest.mark.parametrize("moment", range(3))
def test_a_process_that_slept_through_a_stop_wakes_up_stopped(
    durable_postgres_server: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: int,
) -> None:
    """R15: paused wherever it is, in the middle of a transaction too; the stop need not wait."""
    monkeypatch.setenv("TINYWINDOW_DATA_DIR", str(tmp_path / "another-host"))
    name = durable_postgres_server.new_database()
    url = durable_postgres_server.url(name)
    asyncio.run(prepared(url, cap=10_000_000))
    with PgWriters(url=url, folder=tmp_path / "writers", number=2) as writers:
        writers.wait_for_turns(10 + moment)
        for process in writers.running:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
        took_s = asyncio.run(_stop(url)).took_s
        assert took_s < 2
        wait_for(lambda: query(url, "SELECT 1 FROM latches"), "the latch")
        seq = query(url, "SELECT audit_seq FROM head")[0][0]
        for process in writers.running:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGCONT)
        woke_s = time.monotonic()
        before = writers.turns()
        wait_for(
            lambda: all(n >= b + 5 for n, b in zip(writers.turns(), before, strict=True)),
            "five more turns each",
        )
        answers = writers.finish()
    assert approvals(url, after=seq) == []
    told = [answer for one in answers for answer in one]
    assert not [a for a in told if a.allowed and a.asked_s > woke_s]
    assert_chain(url)
    durable_postgres_server.drop(name)


async def test_a_stop_is_kept_while_the_database_is_away_and_merged_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11."""
    monkeypatch.setenv("TINYWINDOW_DATA_DIR", str(tmp_path / "data"))
    server = PostgresServer(durable=True)
    try:
        server.start()
        server.make_template()
        url = server.url(server.new_database())
        async with PositionLimitEnforcer(url) as enforcer:
            await enforcer.record_equity(1_000_000)
            await enforcer.set_reference_price("BTC/USDT", 100)
            async with KillSwitch(None, (), url) as switch:
                assert not await switch.is_active()
                server.stop(signal.SIGQUIT)
                report = await switch.activate("HALT_ONLY", "while away", actor="alice")
                assert not report.durable
                assert await switch.is_active()
                order = {"symbol": "BTC/USDT", "side": "BUY", "amount": "1", "type": "MARKET"}
                assert not (await enforcer.check_order_allowed(order)).allowed
                server.start()

                def latched() -> bool:
                    return bool(query(url, "SELECT 1 FROM latches WHERE reason = 'while away'"))

                for _ in range(500):
                    if latched():
                        break
                    await asyncio.sleep(0.02)
                assert latched()
                assert query(url, "SELECT count(*) FROM latches") == [(1,)]
                refused = await enforcer.check_order_allowed(order)
                assert refused.reason_code == "KILL_SWITCH_ACTIVE"
        assert_chain(url)
    finally:
        server.remove()


async def test_a_database_that_is_behind_its_anchor_takes_no_entry(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R16: restored from a backup, or a standby that missed the end was promoted."""
    from tinywindow.safety.domain.decision import Reason
    from tinywindow.safety.services.context import open_context
    from tinywindow.safety.stores import postgres as module

    monkeypatch.setenv("TINYWINDOW_DATA_DIR", str(tmp_path))
    opened = PostgresStore.open

    async def without_sync(url: str, *, attempts: bool) -> PostgresStore:
        return await opened(url, require_durable=False, attempts=attempts)

    monkeypatch.setattr(module.PostgresStore, "open", without_sync)
    name = postgres_server.new_database()
    url = postgres_server.url(name)
    context = await open_context(locate(url))
    await context.store.transact(lambda tx: tx.audit(row("a")))
    await context.close()
    postgres_server.admin(f"CREATE DATABASE backup TEMPLATE {name}")
    context = await open_context(locate(url))
    assert context.faults == {}
    await context.store.transact(lambda tx: tx.audit(row("b")))
    await context.close()
    postgres_server.drop(name)
    postgres_server.admin(f"ALTER DATABASE backup RENAME TO {name}")
    context = await open_context(locate(url))
    assert list(context.faults) == [Reason.STORE_ROLLED_BACK]
    await context.store.close()
    postgres_server.drop(name)


async def test_a_book_from_before_a_restore_is_not_believed(
    store: PostgresStore, postgres_url: str, postgres_server: PostgresServer
) -> None:
    """R16, while running: what is remembered of another history is dropped."""
    await store.transact(lambda tx: tx.put_document("a", "1"))
    await store.read(lambda tx: tx.head())
    name = f"t{postgres_server.databases}"
    postgres_server.admin(
        "UPDATE head SET version = 0, audit_seq = 0",
        "DELETE FROM documents",
        database=name,
    )
    assert await store.read(lambda tx: dict(tx.book().documents)) == {}
    assert await store.transact(lambda tx: dict(tx.book().documents)) == {}
    assert await decide(store, "x") == "x"


async def test_a_commit_of_another_process_is_seen_within_fifty_milliseconds(
    postgres_url: str,
) -> None:
    one = await PostgresStore.open(postgres_url, require_durable=False)
    other = await PostgresStore.open(postgres_url, require_durable=False)
    took_s = []
    one.change_token()
    await asyncio.sleep(0.1)
    for n in range(20):
        token = one.change_token()
        await other.transact(lambda tx, n=n: tx.put_document("a", str(n)))
        began = time.monotonic()
        while one.change_token() == token:
            await asyncio.sleep(0.001)
        took_s.append(time.monotonic() - began)
    took_s.sort()
    print(f"seen after {took_s[10] * 1000:.0f} ms, at worst {took_s[-1] * 1000:.0f} ms")
    assert took_s[10] < 0.05
    for made in (one, other):
        await made.close()
    assert one.change_token() == -1
