"""The anchor: heads of the chain outside the database, which tell that it went back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.services.anchor import TAIL_BYTES, Anchor, AnchorPoint
from tinywindow.safety.stores.sqlite import SqliteStore

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture
def anchor(tmp_path: Path) -> Anchor:
    return Anchor(tmp_path / "tinywindow.db.anchor")


async def store_with(path: Path, rows: int) -> SqliteStore:
    store = await SqliteStore.open(path)
    for number in range(rows):
        draft = AuditDraft(f"{path.name}{number}", NOW, EventType.KILL_STEP, "ada", {"n": number})
        await store.transact(lambda tx, draft=draft: tx.audit(draft))  # type: ignore[misc]
    return store


async def fault_of(store: SqliteStore, anchor: Anchor) -> str | None:
    point = anchor.last()
    return await store.read(lambda tx: anchor.fault(tx, point))


def test_heads_are_kept_in_order_and_the_newest_counts(anchor: Anchor) -> None:
    assert anchor.last() is None
    assert anchor.points() == ()
    anchor.append(1, "aa", NOW)
    anchor.append(5, "bb", NOW)
    assert anchor.points() == (AnchorPoint(1, "aa"), AnchorPoint(5, "bb"))
    assert anchor.last() == AnchorPoint(5, "bb")
    line = json.loads(anchor.path.read_text().splitlines()[0])
    assert line["time"] == "2026-03-04T12:00:00.000000Z"
    assert anchor.path.stat().st_mode & 0o777 == 0o600


def test_one_head_is_written_once_and_an_empty_chain_never(anchor: Anchor) -> None:
    anchor.append(0, "00", NOW)
    assert not anchor.path.exists()
    anchor.append(3, "aa", NOW)
    anchor.append(3, "aa", NOW)
    assert len(anchor.points()) == 1


@pytest.mark.parametrize("torn", ['{"seq": 7, "ha', "\x00\x00", '{"seq": 7}', "[]", '"7"'])
def test_a_torn_line_is_passed_over_and_swallows_no_later_one(anchor: Anchor, torn: str) -> None:
    anchor.append(5, "bb", NOW)
    with anchor.path.open("a") as file:
        file.write(torn)
    assert anchor.last() == AnchorPoint(5, "bb")
    Anchor(anchor.path).append(9, "cc", NOW)
    assert anchor.last() == AnchorPoint(9, "cc")
    assert anchor.points() == (AnchorPoint(5, "bb"), AnchorPoint(9, "cc"))


@pytest.mark.parametrize("seq", [0, -1, 2**63, "x", None, [], 1e400])
def test_a_line_that_names_no_row_is_none_of_ours(anchor: Anchor, seq: object) -> None:
    anchor.path.write_text(json.dumps({"seq": seq, "hash": "aa"}) + "\n")
    assert anchor.last() is None


def test_bytes_that_are_no_text_harm_nothing(anchor: Anchor) -> None:
    anchor.path.write_bytes(b"\xff\xfe\n")
    anchor.append(2, "aa", NOW)
    assert anchor.points() == (AnchorPoint(2, "aa"),)


def test_a_long_file_is_read_from_its_end(anchor: Anchor) -> None:
    for number in range(1, 200):
        anchor.append(number, "f" * 64, NOW)
    assert anchor.path.stat().st_size > 3 * TAIL_BYTES
    assert anchor.last() == AnchorPoint(199, "f" * 64)


async def test_a_database_that_holds_its_anchored_head_is_fine(
    anchor: Anchor, tmp_path: Path
) -> None:
    store = await store_with(tmp_path / "a.db", 3)
    assert await fault_of(store, anchor) is None
    second = (await store.read(lambda tx: tx.audit_rows()))[1]
    anchor.append(second.seq, second.hash, NOW)
    assert await fault_of(store, anchor) is None
    await store.close()


async def test_a_database_that_is_new_or_went_back_is_told(anchor: Anchor, tmp_path: Path) -> None:
    anchor.append(3, "aa", NOW)
    store = await store_with(tmp_path / "a.db", 2)
    fault = await fault_of(store, anchor)
    assert fault is not None
    assert fault.startswith("the audit log ends at 2, before the anchored row 3")
    await store.close()


async def test_a_database_with_another_history_is_told(anchor: Anchor, tmp_path: Path) -> None:
    one, two = await store_with(tmp_path / "a.db", 3), await store_with(tmp_path / "b.db", 5)
    head = await one.read(lambda tx: tx.head())
    anchor.append(head.audit_seq, head.audit_hash, NOW)
    assert await fault_of(two, anchor) == "row 3 of the audit log is not the anchored one"
    for store in (one, two):
        await store.close()
