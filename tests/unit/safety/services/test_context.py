"""The context: one store for all objects of one loop, what stops the host, and the anchor."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from breaker_world import FakeClock
from kill_worlds import eventually

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.services.anchor import Anchor
from tinywindow.safety.services.context import ContextHandle, SafetyContext
from tinywindow.safety.services.location import locate
from tinywindow.safety.stores.memory import MemoryStore
from tinywindow.safety.stores.sqlite import SqliteStore

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def row(name: str) -> AuditDraft:
    return AuditDraft(name, NOON, EventType.KILL_STEP, "ada", {"name": name})


async def test_objects_on_one_database_share_one_store_and_the_last_one_out_closes_it(
    tmp_path: Path,
) -> None:
    where = tmp_path / "a.db"
    one, two = ContextHandle(where), ContextHandle(f"sqlite:///{where}")
    context = await one.open()
    assert await two.open() is context
    assert await one.open() is context
    assert context.users == 2
    await one.close()
    await one.close()
    assert context.users == 1
    await context.store.read(lambda tx: tx.head())
    await two.close()
    with pytest.raises(StoreUnavailable):
        await context.store.read(lambda tx: tx.head())
    again = ContextHandle(where)
    assert await again.open() is not context
    await again.close()


async def test_many_that_open_at_once_get_one_store(tmp_path: Path) -> None:
    handles = [ContextHandle(tmp_path / "a.db") for _ in range(5)]
    contexts = await asyncio.gather(*(handle.open() for handle in handles * 3))
    assert len({id(context) for context in contexts}) == 1
    assert contexts[0].users == 5
    for handle in handles:
        await handle.close()


def test_two_loops_have_two_stores(tmp_path: Path) -> None:
    async def once() -> int:
        handle = ContextHandle(tmp_path / "a.db")
        await handle.open()
        await handle.close()
        return 1

    assert [asyncio.run(once()), asyncio.run(once())] == [1, 1]


async def test_another_data_directory_is_another_context(tmp_path: Path) -> None:
    one = ContextHandle(tmp_path / "a.db", data_dir=tmp_path / "one")
    two = ContextHandle(tmp_path / "a.db", data_dir=tmp_path / "two")
    assert await one.open() is not await two.open()
    await one.close()
    await two.close()


async def test_a_glance_opens_nothing(tmp_path: Path) -> None:
    one, two = ContextHandle(tmp_path / "a.db"), ContextHandle(tmp_path / "a.db")
    assert one.glance() is None
    context = await one.open()
    assert two.glance() is context
    assert two.opened is None
    assert not context.users > 1
    await one.close()


def test_a_glance_outside_any_loop_sees_nothing(tmp_path: Path) -> None:
    assert ContextHandle(tmp_path / "a.db").glance() is None


async def test_a_context_of_ones_own_may_be_handed_in(tmp_path: Path) -> None:
    first = ContextHandle(tmp_path / "a.db")
    context = await first.open()
    second = ContextHandle(context)
    assert second.glance() is context
    assert second.data_dir == tmp_path
    assert await second.open() is context
    await first.close()
    await context.store.read(lambda tx: tx.head())
    await second.close()


async def test_own_flag_and_kill_file_stop_this_host(tmp_path: Path) -> None:
    handle = ContextHandle(tmp_path / "a.db")
    context = await handle.open()
    assert context.stop_probe() is None
    (tmp_path / "KILL").write_text("")
    refusal = context.stop_probe()
    assert refusal is not None
    assert refusal.reason_code is Reason.KILL_SWITCH_ACTIVE
    (tmp_path / "KILL").unlink()
    latch = Latch("k1", KillSwitchMode.HALT_ONLY, "enough", "ada", LatchSource.PYTHON, NOON)
    context.local_stops["k1"] = latch
    refusal = context.stop_probe()
    assert refusal is not None
    assert refusal.reason == "KILL_SWITCH_ACTIVE: HALT_ONLY by ada: enough"
    await handle.close()


async def test_listeners_hear_of_commits_by_others_and_one_that_fails_keeps_none_from_them(
    tmp_path: Path,
) -> None:
    handle = ContextHandle(tmp_path / "a.db")
    context = await handle.open()
    heard: list[str] = []

    def broken() -> None:
        raise RuntimeError("a bug")

    context.listeners.extend([broken, lambda: heard.append("news")])
    other = await SqliteStore.open(tmp_path / "a.db")
    await other.transact(lambda tx: tx.audit(row("a")))
    await eventually(lambda: bool(heard))
    heard.clear()
    await other.transact(lambda tx: tx.audit(row("b")))
    await eventually(lambda: bool(heard))
    await other.close()
    await handle.close()


async def test_the_head_is_anchored_when_the_last_one_leaves(tmp_path: Path) -> None:
    handle = ContextHandle(tmp_path / "a.db")
    context = await handle.open()
    await context.store.transact(lambda tx: tx.audit(row("a")))
    await handle.close()
    point = Anchor(tmp_path / "a.db.anchor").last()
    assert point is not None
    assert point.seq == 1


async def test_a_database_that_went_back_is_a_fault_and_its_anchor_is_kept(tmp_path: Path) -> None:
    anchor = Anchor(tmp_path / "a.db.anchor")
    anchor.append(9, "aa", NOON)
    handle = ContextHandle(tmp_path / "a.db")
    context = await handle.open()
    assert [breach.code for breach in context.found()] == [Reason.STORE_ROLLED_BACK]
    await context.store.transact(lambda tx: tx.audit(row("a")))
    await handle.close()
    assert [point.seq for point in anchor.points()] == [9]


async def test_an_anchor_that_cannot_be_read_is_no_clean_bill(tmp_path: Path) -> None:
    (tmp_path / "a.db.anchor").mkdir()
    handle = ContextHandle(tmp_path / "a.db")
    context = await handle.open()
    (breach,) = context.found()
    assert breach.code is Reason.STORE_ROLLED_BACK
    assert "cannot be read" in breach.message
    await handle.close()


async def test_a_data_directory_that_cannot_be_made_is_a_store_that_cannot_be_opened(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    handle = ContextHandle(tmp_path / "a.db", data_dir=tmp_path / "file" / "data")
    with pytest.raises(StoreUnavailable, match="data directory"):
        await handle.open()
    assert handle.opened is None


# A replay's rows tell the wall's time beside the market's.


class Wall(FakeClock):
    """A wall clock a year ahead of the market's."""

    def __init__(self) -> None:
        super().__init__(NOON + timedelta(days=365))


async def test_every_row_of_a_replay_tells_the_walls_time_too(tmp_path: Path) -> None:
    handle = ContextHandle(replace(locate(tmp_path / "a.db"), wall=Wall()))
    context = await handle.open()
    await context.store.transact(lambda tx: tx.audit(row("a")))
    await context.store.transact(lambda tx: tx.outbox(row("b")))
    await context.store.transact(lambda tx: tx.drain_outbox())
    rows = await context.store.read(lambda tx: tx.audit_rows())
    await handle.close()
    for one in rows:
        assert one.time == "2026-03-04T12:00:00.000000Z"
        assert json.loads(one.data) == {
            "name": one.id,
            "wall_time": "2027-03-04T12:00:00.000000Z",
        }


async def test_rows_of_real_time_have_one_time_only(tmp_path: Path) -> None:
    handle = ContextHandle(tmp_path / "a.db")
    context = await handle.open()
    await context.store.transact(lambda tx: tx.audit(row("a")))
    (one,) = await context.store.read(lambda tx: tx.audit_rows())
    await handle.close()
    assert json.loads(one.data) == {"name": "a"}


async def test_the_store_in_memory_does_the_same() -> None:
    store = MemoryStore(wall=Wall())
    await store.transact(lambda tx: tx.audit(row("a")))
    await store.transact(lambda tx: tx.outbox(row("b")))
    await store.transact(lambda tx: tx.drain_outbox())
    rows = await store.read(lambda tx: tx.audit_rows())
    told = {json.loads(one.data)["wall_time"] for one in rows}
    assert (len(rows), told) == (2, {"2027-03-04T12:00:00.000000Z"})


def test_a_handle_needs_a_database() -> None:
    with pytest.raises(ValueError):
        ContextHandle(None)
    assert SafetyContext.__slots__
