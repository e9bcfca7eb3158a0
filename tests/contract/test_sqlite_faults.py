"""Faults of an SQLite file: unavailable, never a wrong answer."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from store_worlds import World, all_rows, everything, hold, latch, raw, row

from tinywindow.safety.domain.audit import verify_rows
from tinywindow.safety.domain.book import DecisionIds, Draft
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.stores.migrate import current_revision, upgrade_sqlite
from tinywindow.safety.stores.schema import SCHEMA_REVISION
from tinywindow.safety.stores.sqlite import SqliteStore


async def test_a_full_disk_is_unavailable_and_leaves_nothing_half_written(
    sqlite_world: World,
) -> None:
    store = await sqlite_world.open()
    assert isinstance(store, SqliteStore)
    await store.transact(lambda tx: tx.audit(row("before")))
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    before = await everything(store)

    def flood(tx: object) -> None:
        for number in range(500):
            tx.put_hold(hold(f"x{number}"))  # type: ignore[attr-defined]
            tx.audit(row(f"x{number}", data={"text": "x" * 500}))  # type: ignore[attr-defined]

    with pytest.raises(StoreUnavailable, match="full"):
        await store.transact(flood)
    assert await everything(store) == before
    store._writer.execute("PRAGMA max_page_count = 1000000")
    await store.transact(flood)
    rows = await all_rows(store)
    assert len(rows) == 501
    assert verify_rows(rows)[2] == ()


async def test_a_file_that_became_read_only_is_unavailable(sqlite_world: World) -> None:
    store = await sqlite_world.open()
    assert isinstance(store, SqliteStore)
    store._writer.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable, match="readonly"):
        await store.decide(DecisionIds("a"), lambda _: Draft(1, hold=hold("a")))
    with pytest.raises(StoreUnavailable, match="readonly"):
        await store.transact(lambda tx: tx.add_latch(latch("k")), stop=True)
    store._writer.execute("PRAGMA query_only = OFF")
    await store.transact(lambda tx: tx.add_latch(latch("k")), stop=True)


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"x" * 999]
)
async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "junk.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(path)
    assert path.read_bytes() == content


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(tmp_path / "file" / "world.db")
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(tmp_path)


async def test_torn_pages_are_unavailable(sqlite_world: World) -> None:
    store = await sqlite_world.open()
    await store.transact(lambda tx: [tx.audit(row(str(n))) for n in range(200)])
    await store.close()
    size = sqlite_world.path.stat().st_size
    with sqlite_world.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))

    async def look() -> None:
        damaged = await sqlite_world.open()
        await damaged.read(lambda tx: tx.head())

    with pytest.raises(StoreUnavailable):
        await look()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM head",
        "UPDATE head SET version = 'x'",
        "PRAGMA ignore_check_constraints = ON; UPDATE head SET trading = 'PERHAPS'",
        "PRAGMA ignore_check_constraints = ON; UPDATE latches SET mode = 'NAP'",
        "UPDATE latches SET source = 'DREAM'",
        "UPDATE orders SET amount = '1e'",
        "PRAGMA ignore_check_constraints = ON; UPDATE orders SET amount = 'NaN'",
        "PRAGMA ignore_check_constraints = ON; UPDATE orders SET state = 'LOST'",
        "UPDATE orders SET created_ms = 'yesterday'",
        "UPDATE orders SET type = 'HOPE'",
        "DROP TABLE positions",
    ],
)
async def test_damaged_rows_are_unavailable_for_reads_and_decisions(
    sqlite_world: World, damage: str
) -> None:
    store = await sqlite_world.open()
    await store.transact(lambda tx: (tx.put_hold(hold("a")), tx.add_latch(latch("k"))))
    await store.close()
    connection = raw(sqlite_world.path)
    connection.executescript(damage)
    connection.close()
    damaged = await sqlite_world.open()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await damaged.read(lambda tx: tx.book())
        with pytest.raises(StoreUnavailable):
            await damaged.decide(DecisionIds("b"), lambda _: Draft(1))


async def test_a_file_that_was_removed_or_replaced_is_unavailable(sqlite_world: World) -> None:
    store = await sqlite_world.open()
    await store.transact(lambda tx: tx.put_document("a", "1"))
    away = sqlite_world.path.rename(sqlite_world.path.with_name("away.db"))
    with pytest.raises(StoreUnavailable, match="gone"):
        await store.transact(lambda tx: tx.put_document("a", "2"))
    sqlite_world.path.write_bytes(away.read_bytes())
    with pytest.raises(StoreUnavailable, match="replaced"):
        await store.decide(DecisionIds("b"), lambda _: Draft(1))
    with pytest.raises(StoreUnavailable, match="replaced"):
        await store.read(lambda tx: tx.head())
    sqlite_world.path.unlink()
    away.rename(sqlite_world.path)
    assert await store.read(lambda tx: tx.document("a")) == "1"


async def test_a_database_that_went_back_in_time_is_read_anew(sqlite_world: World) -> None:
    """A backup restored in place: what is cached is of a future that no longer happened."""
    store = await sqlite_world.open()
    await store.transact(lambda tx: tx.put_document("a", "1"))
    await store.transact(lambda tx: (tx.put_document("a", "2"), tx.put_hold(hold("x"))))
    await store.read(lambda tx: tx.head())
    connection = raw(sqlite_world.path)
    connection.executescript(
        "UPDATE head SET version = 1; DELETE FROM orders;"
        "UPDATE documents SET value = '1', version = 1"
    )
    connection.close()
    seen = await store.transact(lambda tx: (dict(tx.book().documents), len(tx.book().holds)))
    assert seen == ({"a": "1"}, 0)
    assert store.peek(lambda book: book is not None and book.head.version == 1)
    assert await store.read(lambda tx: len(tx.book().holds)) == 0


async def test_a_schema_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    upgrade_sqlite(path)
    connection = raw(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreUnavailable, match="another version"):
        await SqliteStore.open(path)
    assert current_revision(path) == "9999"


def test_two_processes_that_make_the_file_at_once_make_one_schema(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    code = (
        "import sys, pathlib\n"
        "from tinywindow.safety.stores.migrate import upgrade_sqlite\n"
        "print(upgrade_sqlite(pathlib.Path(sys.argv[1])))\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = sorted(process.communicate(timeout=60)[0].strip() for process in running)
    assert [process.returncode for process in running] == [0, 0, 0]
    assert answers == ["False", "False", "True"]
    assert current_revision(path) == SCHEMA_REVISION


def test_a_migration_that_fails_leaves_no_half_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "half.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE trips (id TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreUnavailable):
        upgrade_sqlite(path)
    connection = sqlite3.connect(path)
    tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()
    assert tables == [("trips",)]
