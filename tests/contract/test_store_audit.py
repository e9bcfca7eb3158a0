"""The audit log: gapless, chained, append-only; the outbox follows exactly once."""

from __future__ import annotations

import sqlite3

import pytest
from store_worlds import Failing, World, all_rows, latch, raw, row

from tinywindow.safety.domain.audit import GENESIS_HASH, EventType, verify_rows
from tinywindow.safety.errors import InvariantBroken
from tinywindow.safety.ports import Store, Tx


async def test_rows_are_numbered_without_gaps_and_chained(store: Store) -> None:
    for number in range(5):
        await store.transact(lambda tx, n=number: [tx.audit(row(f"{n}-{i}")) for i in range(3)])
    rows = await all_rows(store)
    assert [one.seq for one in rows] == list(range(1, 16))
    assert rows[0].prev_hash == GENESIS_HASH
    head = await store.read(lambda tx: tx.head())
    assert verify_rows(rows) == (15, head.audit_hash, ())
    assert head.audit_seq == 15


async def test_a_row_carries_what_was_drafted(store: Store) -> None:
    draft = row("r", agent_id="claude", order_id="o", decision_id="d")
    await store.transact(lambda tx: tx.audit(draft))
    (kept,) = await all_rows(store)
    assert (kept.id, kept.event_type, kept.actor) == ("r", "KILL_STEP", "alice")
    assert (kept.agent_id, kept.order_id, kept.decision_id) == ("claude", "o", "d")
    assert kept.time == "2026-01-01T00:00:00.000000Z"
    assert kept.data == '{"n":"1.5","name":"r"}'


async def test_a_transaction_that_fails_leaves_no_gap(store: Store) -> None:
    await store.transact(lambda tx: tx.audit(row("a")))

    def script(tx: Tx) -> None:
        tx.audit(row("lost"))
        raise Failing

    with pytest.raises(Failing):
        await store.transact(script)
    await store.transact(lambda tx: tx.audit(row("b")))
    rows = await all_rows(store)
    assert [(one.seq, one.id) for one in rows] == [(1, "a"), (2, "b")]
    assert verify_rows(rows)[2] == ()


async def test_a_row_id_is_used_once(store: Store) -> None:
    await store.transact(lambda tx: tx.audit(row("a")))
    with pytest.raises(InvariantBroken):
        await store.transact(lambda tx: tx.audit(row("a")))
    assert len(await all_rows(store)) == 1


async def test_a_row_with_a_number_that_is_none_is_refused_whole(store: Store) -> None:
    def script(tx: Tx) -> None:
        tx.put_document("limits", "{}")
        tx.audit(row("a", data={"x": float("nan")}))

    with pytest.raises(ValueError, match="Out of range"):
        await store.transact(script)
    assert await store.read(lambda tx: tx.document("limits")) is None


async def test_rows_are_read_after_a_number_by_type_and_from_the_end(store: Store) -> None:
    events = [EventType.KILL_STEP, EventType.RECOVERY]
    for number in range(6):
        draft = row(str(number), events[number % 2])
        await store.transact(lambda tx, draft=draft: tx.audit(draft))

    async def ids(**wanted: object) -> list[str]:
        found = await store.read(lambda tx: tx.audit_rows(**wanted))  # type: ignore[arg-type]
        return [one.id for one in found]

    assert await ids() == list("012345")
    assert await ids(after=4) == ["4", "5"]
    assert await ids(after=99) == []
    assert await ids(after=-5, limit=2) == ["0", "1"]
    assert await ids(after=-(2**63), limit=2) == ["0", "1"]
    assert await ids(event_type="RECOVERY", after=2, limit=1) == ["3"]
    tail = await store.read(lambda tx: tx.audit_tail(2))
    assert [one.id for one in tail] == ["4", "5"]
    assert len(await store.read(lambda tx: tx.audit_tail(99))) == 6


async def test_the_outbox_does_not_move_the_chain_until_it_is_drained(store: Store) -> None:
    def stop(tx: Tx) -> None:
        tx.add_latch(latch("k"))
        tx.outbox(row("activate-k"))

    await store.transact(stop, stop=True)
    assert (await store.read(lambda tx: tx.head())).audit_seq == 0
    await store.transact(lambda tx: tx.audit(row("between")))
    assert await store.transact(lambda tx: tx.drain_outbox()) == 1
    rows = await all_rows(store)
    assert [one.id for one in rows] == ["between", "activate-k"]
    assert verify_rows(rows)[2] == ()


async def test_the_outbox_follows_in_order_exactly_once(store: Store) -> None:
    for name in ("b", "a", "b", "c", "a"):
        await store.transact(lambda tx, name=name: tx.outbox(row(name)))
    assert await store.transact(lambda tx: tx.drain_outbox()) == 3
    assert await store.transact(lambda tx: tx.drain_outbox()) == 0
    await store.transact(lambda tx: tx.outbox(row("a")))
    assert await store.transact(lambda tx: tx.drain_outbox()) == 0
    assert [one.id for one in await all_rows(store)] == ["b", "a", "c"]


async def test_a_row_from_the_outbox_hashes_as_if_it_had_been_appended(world: World) -> None:
    store = await world.open()
    draft = row("ü'\n\u2028", agent_id=None, order_id="ö", data={"text": "ü\n", "n": None})
    await store.transact(lambda tx: tx.outbox(draft))
    await store.transact(lambda tx: tx.drain_outbox())
    rows = await all_rows(store)
    assert verify_rows(rows)[2] == ()
    assert rows[0].data == '{"n":null,"text":"\\u00fc\\n"}'


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_log SET actor = 'mallory' WHERE seq = 1",
        "UPDATE OR REPLACE audit_log SET id = 'b' WHERE seq = 1",
        "DELETE FROM audit_log WHERE seq = 2",
        "DELETE FROM audit_log",
        "INSERT OR REPLACE INTO audit_log SELECT 1, 'x', time, event_type, 'mallory', agent_id,"
        " order_id, decision_id, data, prev_hash, hash FROM audit_log WHERE seq = 1",
        "REPLACE INTO audit_log SELECT 2, 'x', time, event_type, 'mallory', agent_id,"
        " order_id, decision_id, data, prev_hash, hash FROM audit_log WHERE seq = 2",
        # The next number and the right link, but the id of a row that would be deleted for it.
        "INSERT OR REPLACE INTO audit_log SELECT 3, 'a', time, event_type, 'mallory', agent_id,"
        " order_id, decision_id, data, hash, hash FROM audit_log WHERE seq = 2",
        "INSERT INTO audit_log SELECT 9, 'x', time, event_type, actor, agent_id,"
        " order_id, decision_id, data, hash, hash FROM audit_log WHERE seq = 2",
        "INSERT INTO audit_log SELECT 3, 'x', time, event_type, actor, agent_id,"
        " order_id, decision_id, data, prev_hash, hash FROM audit_log WHERE seq = 2",
        "INSERT INTO audit_log VALUES (1, 'a', '', '', '', NULL, NULL, NULL, '', '', '')"
        " ON CONFLICT (seq) DO UPDATE SET actor = 'mallory'",
    ],
)
async def test_the_database_itself_refuses_to_change_what_was_written(
    sqlite_world: World, change: str
) -> None:
    store = await sqlite_world.open()
    await store.transact(lambda tx: [tx.audit(row("a")), tx.audit(row("b"))])
    before = await all_rows(store)
    connection = raw(sqlite_world.path)
    with pytest.raises(sqlite3.IntegrityError, match="append"):
        connection.execute(change)
    connection.close()
    assert await all_rows(store) == before
