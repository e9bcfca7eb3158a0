"""Reading, verifying and exporting the audit log: every change is found, in bounded memory."""

from __future__ import annotations

import json
import random
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tinywindow.safety.domain.audit import AuditDraft, AuditRow, EventType, link
from tinywindow.safety.errors import ConfigurationError, StoreUnavailable
from tinywindow.safety.services import audit_log
from tinywindow.safety.services.anchor import AnchorPoint
from tinywindow.safety.services.audit_export import COLUMNS, ExportWriter, read_export
from tinywindow.safety.services.audit_log import AuditLog, open_audit, verify_export
from tinywindow.safety.services.location import Location
from tinywindow.safety.stores import audit_reader
from tinywindow.safety.stores.audit_reader import SqliteAuditReader
from tinywindow.safety.stores.memory import MemoryDatabase, MemoryStore
from tinywindow.safety.stores.sqlite import SqliteStore

START = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS = [EventType.KILL_STEP, EventType.RECOVERY]


def draft(number: int, **changes: object) -> AuditDraft:
    made = AuditDraft(
        id=f"row-{number}",
        time=START,
        event_type=EVENTS[number % 2],
        actor='a "quoted",\nactor',
        data={"n": number, "text": "ü,\r\n;"},
        agent_id=None if number % 3 else "claude",
        order_id=f"o{number}",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def filled(store: MemoryStore | SqliteStore, count: int) -> None:
    def script(tx: object) -> None:
        for number in range(count):
            tx.audit(draft(number))  # type: ignore[attr-defined]

    await store.transact(script)


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[tuple[SqliteStore, Path]]:
    path = tmp_path / "log.db"
    store = await SqliteStore.open(path)
    await filled(store, 30)
    yield store, path
    await store.close()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "BATCH_ROWS", 7)
    monkeypatch.setattr(audit_log, "CHUNK_ROWS", 3)


def damage(path: Path, statements: str) -> None:
    """Change rows as the file's owner can: without the triggers."""
    connection = sqlite3.connect(path)
    for name in ("no_update", "no_delete", "chain"):
        connection.execute(f"DROP TRIGGER audit_log_{name}")
    connection.executescript(statements)
    connection.close()


async def test_pages_are_bounded_and_may_be_of_one_type() -> None:
    store = MemoryStore()
    await filled(store, 30)
    log = AuditLog(store)
    assert [row.seq for row in await log.page(after=3, limit=2)] == [4, 5]
    only = await log.page(limit=3, event_type=EventType.RECOVERY)
    assert [row.seq for row in only] == [2, 4, 6]
    assert len(await log.page(limit=10**9)) == 30
    assert await log.page(limit=-1) == ()
    assert [row.seq for row in await log.tail(2)] == [29, 30]
    assert await log.tail(-2) == ()


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 14, 30])
async def test_an_untouched_log_is_intact_whatever_its_length(count: int) -> None:
    store = MemoryStore()
    await filled(store, count)
    head = await store.read(lambda tx: tx.head())
    found = await AuditLog(store).verify()
    assert found.intact
    assert (found.rows, found.seq, found.hash) == (count, count, head.audit_hash)


async def test_anchors_are_compared(file: tuple[SqliteStore, Path]) -> None:
    store, _ = file
    rows = await store.read(lambda tx: tx.audit_rows())
    anchors = [AnchorPoint(row.seq, row.hash) for row in rows[::10]]
    found = await AuditLog(store).verify(anchors)
    assert (found.intact, found.anchors) == (True, 3)
    wrong = await AuditLog(store).verify([AnchorPoint(5, "0" * 64), AnchorPoint(99, "0" * 64)])
    assert [(fault.seq, wrong.anchors) for fault in wrong.faults] == [(5, 1), (99, 1)]


@pytest.mark.parametrize(
    ("statements", "first"),
    [
        ("UPDATE audit_log SET actor = 'mallory' WHERE seq = 12", 12),
        ("UPDATE audit_log SET agent_id = NULL WHERE seq = 13", 13),
        ("UPDATE audit_log SET hash = lower(hex(zeroblob(32))) WHERE seq = 7", 7),
        ("DELETE FROM audit_log WHERE seq = 8", 9),
        ("DELETE FROM audit_log WHERE seq < 4", 4),
        ("DELETE FROM audit_log WHERE seq > 25", 25),
        ("DELETE FROM audit_log", 0),
        ("UPDATE audit_log SET seq = 1000 WHERE seq = 30", 1000),
        ("UPDATE audit_log SET seq = -3 WHERE seq = 1", -3),
        ("UPDATE head SET audit_seq = 29", 30),
    ],
)
async def test_damage_in_the_database_is_found_where_it_is(
    file: tuple[SqliteStore, Path], statements: str, first: int
) -> None:
    store, path = file
    damage(path, statements)
    found = await AuditLog(store).verify()
    assert not found.intact
    assert found.faults[0].seq == first
    assert found.faults_count == len(found.faults)


async def test_a_tail_cut_off_with_its_head_is_found_by_an_anchor_alone(
    file: tuple[SqliteStore, Path],
) -> None:
    store, path = file
    rows = await store.read(lambda tx: tx.audit_rows())
    damage(
        path,
        "DELETE FROM audit_log WHERE seq > 20;"
        f"UPDATE head SET audit_seq = 20, audit_hash = '{rows[19].hash}'",
    )
    log = AuditLog(store)
    assert (await log.verify()).intact
    found = await log.verify([AnchorPoint(25, rows[24].hash)])
    assert [fault.seq for fault in found.faults] == [25]


async def test_from_an_anchor_on_only_what_follows_is_verified(
    file: tuple[SqliteStore, Path],
) -> None:
    store, path = file
    rows = await store.read(lambda tx: tx.audit_rows())
    point = AnchorPoint(20, rows[19].hash)
    found = await AuditLog(store).verify([point], after=point)
    assert (found.intact, found.rows, found.anchors) == (True, 10, 0)
    damage(path, "UPDATE audit_log SET actor = 'mallory' WHERE seq IN (5, 22)")
    found = await AuditLog(store).verify(after=point)
    assert [fault.seq for fault in found.faults] == [22]
    elsewhere = await AuditLog(store).verify(after=AnchorPoint(20, "0" * 64))
    assert elsewhere.faults[0].seq == 21


async def test_rows_that_are_added_meanwhile_are_no_fault() -> None:
    database = MemoryDatabase()
    writer = MemoryStore(database)
    await filled(writer, 20)
    reads = 0

    class Growing(MemoryStore):
        async def read(self, script: Any) -> Any:
            nonlocal reads
            answer = await super().read(script)
            if reads < 5:
                await writer.transact(lambda tx: tx.audit(draft(1000 + reads)))
            reads += 1
            return answer

    found = await AuditLog(Growing(database)).verify()
    assert found.intact
    assert found.rows > 20


async def test_of_many_faults_all_are_counted_and_some_kept(
    file: tuple[SqliteStore, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = file
    monkeypatch.setattr(audit_log, "FAULTS_KEPT_MAX", 4)
    damage(path, "UPDATE audit_log SET actor = 'mallory'")
    found = await AuditLog(store).verify()
    assert (found.faults_count, len(found.faults)) == (30, 4)


async def test_a_file_is_read_as_a_store_is(file: tuple[SqliteStore, Path]) -> None:
    store, path = file
    reader = await open_audit(Location(f"sqlite:///{path}", path, path.parent))
    try:
        one, other = AuditLog(reader), AuditLog(store)
        assert await one.verify() == await other.verify()
        assert await one.tail(9) == await other.tail(9)
        for wanted in (None, EventType.RECOVERY):
            page = await one.page(after=5, limit=8, event_type=wanted)
            assert page == await other.page(after=5, limit=8, event_type=wanted)
            assert page
    finally:
        await reader.close()


async def test_a_copy_on_a_medium_that_takes_no_files_is_read(
    file: tuple[SqliteStore, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = file
    await store.close()
    asked: list[str] = []
    probed = audit_reader._probed

    def probe(uri: str) -> sqlite3.Connection:
        asked.append(uri.partition("?")[2])
        if "immutable" not in uri:
            raise sqlite3.OperationalError("unable to open database file")
        return probed(uri)

    monkeypatch.setattr(audit_reader, "_probed", probe)
    # Where files can be made, whoever writes may come at any time: nothing is taken for frozen.
    with pytest.raises(StoreUnavailable):
        SqliteAuditReader(path)
    monkeypatch.setattr(audit_reader.os, "access", lambda *_: False)
    reader = SqliteAuditReader(path)
    assert (await AuditLog(reader).verify()).rows == 30
    await reader.close()
    assert asked == ["mode=ro", "mode=ro", "mode=ro&immutable=1"]
    (tmp_path / "log.db-wal").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        SqliteAuditReader(path)


async def test_rows_without_a_number_or_an_order_end_the_verification(tmp_path: Path) -> None:
    path = tmp_path / "rebuilt.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        f"CREATE TABLE audit_log ({', '.join(COLUMNS)}); CREATE TABLE head (audit_seq, audit_hash)"
    )
    connection.execute(f"INSERT INTO audit_log VALUES ({', '.join(['?'] * 11)})", ["x"] * 11)
    connection.commit()
    connection.close()
    reader = SqliteAuditReader(path)
    found = await AuditLog(reader).verify()
    await reader.close()
    assert [fault.message for fault in found.faults] == [
        "what follows row 0 cannot be read: the database is damaged: a row has no number"
    ]

    class Circle(MemoryStore):
        async def read(self, script: Any) -> Any:
            def again(tx: Any) -> Any:
                class View:
                    head = tx.head

                    @staticmethod
                    def audit_rows(**_: object) -> tuple[AuditRow, ...]:
                        return tuple(tx.audit_rows(limit=3))

                return script(View())

            return await super().read(again)

    store = Circle()
    await filled(store, 9)
    found = await AuditLog(store).verify()
    assert "out of order" in found.faults[-1].message


async def test_a_step_that_a_store_runs_twice_is_taken_once(file: tuple[SqliteStore, Path]) -> None:
    store, path = file
    damage(path, "UPDATE audit_log SET actor = 'mallory' WHERE seq = 12")

    class Twice:
        async def read(self, script: Any) -> Any:
            await store.read(script)
            return await store.read(script)

    found = await AuditLog(Twice()).verify()
    assert (found.rows, found.faults_count) == (30, 1)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
async def test_an_export_carries_every_row_and_verifies(
    file: tuple[SqliteStore, Path], tmp_path: Path, suffix: str
) -> None:
    store, _ = file
    path = tmp_path / f"log{suffix}"
    assert await AuditLog(store).export(path) == 30
    rows = await store.read(lambda tx: tx.audit_rows())
    assert tuple(read_export(path)) == rows
    found = verify_export(path, [AnchorPoint(30, rows[-1].hash)])
    assert (found.intact, found.rows, found.anchors) == (True, 30, 1)
    assert [entry.name for entry in tmp_path.glob("*.partial")] == []


async def test_the_columns_are_those_of_the_log() -> None:
    assert tuple(field.name for field in fields(AuditRow)) == COLUMNS


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
async def test_whatever_is_changed_in_an_export_is_found(
    file: tuple[SqliteStore, Path], tmp_path: Path, suffix: str
) -> None:
    store, _ = file
    whole, changed = tmp_path / f"whole{suffix}", tmp_path / f"changed{suffix}"
    await AuditLog(store).export(whole)
    rows = list(read_export(whole))
    anchor = [AnchorPoint(30, rows[-1].hash)]
    chance = random.Random(11)

    def found(rows_now: list[AuditRow]) -> bool:
        writer = ExportWriter(changed)
        writer.write(rows_now)
        writer.finish()
        try:
            return not verify_export(changed, anchor).intact
        except ConfigurationError:
            return True

    assert not found(rows)
    for _ in range(200):
        n = chance.randrange(len(rows))
        field = chance.choice(COLUMNS)
        known = getattr(rows[n], field)
        value: object = f"{known}x"
        if isinstance(known, int):
            value = known + chance.choice([-1, 1])
        assert found([*rows[:n], replace(rows[n], **{field: value}), *rows[n + 1 :]])  # type: ignore[arg-type]
        assert found([*rows[:n], *rows[n + 1 :]])
    forged, before = [], rows[0].prev_hash
    for row in (replace(one, actor="mallory") for one in rows):
        forged.append(replace(row, prev_hash=before, hash=link(before, row.seq, row.body())))
        before = forged[-1].hash
    assert found(forged)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{",
        '{"seq": 1}',
        "[" * 100_000,
        json.dumps(dict.fromkeys(COLUMNS, "x")),
        json.dumps({**dict.fromkeys(COLUMNS, "x"), "seq": 1, "hash": None}),
        json.dumps({**dict.fromkeys(COLUMNS, "x"), "seq": True}),
        json.dumps({**dict.fromkeys(COLUMNS, "x"), "seq": 1, "more": 1}),
        json.dumps({**dict.fromkeys(COLUMNS, "x"), "seq": 1})[:-1] + ', "actor": "y"}',
    ],
)
def test_what_is_no_row_is_said_to_be_none(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ConfigurationError, match="entry 1"):
        verify_export(path)


@pytest.mark.parametrize("seq", ["1_0", "+10", " 10", "1e1", "x", ""])
def test_a_number_has_one_spelling_in_csv(tmp_path: Path, seq: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(",".join(COLUMNS) + "\n" + ",".join([seq, *["x"] * 10]) + "\n")
    with pytest.raises(ConfigurationError):
        verify_export(path)


async def test_an_export_by_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\.csv or \.jsonl"):
        await AuditLog(MemoryStore()).export(tmp_path / "log.txt")
    with pytest.raises(ConfigurationError):
        verify_export(tmp_path / "log.txt")


async def test_an_export_that_fails_leaves_the_one_before(
    file: tuple[SqliteStore, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = file
    path = tmp_path / "log.csv"
    await AuditLog(store).export(path)
    before = path.read_bytes()

    def full(_: object, rows: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ExportWriter, "write", full)
    with pytest.raises(OSError, match="space"):
        await AuditLog(store).export(path)
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.partial")) == []


async def test_verification_takes_no_memory_for_the_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "BATCH_ROWS", 500)
    store = await SqliteStore.open(tmp_path / "long.db")
    await filled(store, 10_000)
    log = AuditLog(store)
    path = tmp_path / "long.jsonl"
    tracemalloc.start()
    try:
        assert (await log.verify()).rows == 10_000
        assert await log.export(path) == 10_000
        assert verify_export(path).intact
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await store.close()
    # All rows at once would take twelve megabytes and more.
    assert peak < 4_000_000
