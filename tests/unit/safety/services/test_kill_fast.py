"""The fast way to a stop leaves behind what the slow one does, and loads next to nothing."""

from __future__ import annotations

import fcntl
import json
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tinywindow.safety.domain.audit import seal, utc_text
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.domain.records import TradingState
from tinywindow.safety.stores import fast_latch
from tinywindow.safety.stores.journal import Journal
from tinywindow.safety.stores.latch_fields import activation_draft, latch_of, latch_to_fields
from tinywindow.safety.stores.sqlite import SqliteStore

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
NOW_MS = 1767323045678


def stop(tmp_path: Path, database: Path | None, **changes: str) -> dict[str, object]:
    given = {"mode": "CLOSE_POSITIONS", "reason": "smoke 🔥", "actor": "uid 0", **changes}
    return fast_latch.stop(
        data_dir=str(tmp_path),
        database=None if database is None else str(database),
        now_ms=NOW_MS,
        time_text=utc_text(NOW),
        **given,
    )


async def test_it_leaves_the_latch_that_the_store_itself_would(tmp_path: Path) -> None:
    database = tmp_path / "t.db"
    store = await SqliteStore.open(database)
    before = await store.read(lambda tx: tx.head())
    answer = stop(tmp_path, database)
    assert answer["durable"]
    assert answer["errors"] == []
    standing = await store.read(lambda tx: tx.standing_latches())
    assert standing == (
        Latch(
            str(answer["latch_id"]),
            KillSwitchMode.CLOSE_POSITIONS,
            "smoke 🔥",
            "uid 0",
            LatchSource.CLI,
            NOW,
        ),
    )
    after = await store.read(lambda tx: tx.head())
    assert after.stop_epoch == before.stop_epoch + 1
    assert after.version == before.version + 1
    assert after.trading is TradingState.STOPPED
    assert await store.transact(lambda tx: tx.drain_outbox()) == 1
    rows = await store.read(lambda tx: tx.audit_rows(event_type="KILL_SWITCH_ACTIVATE"))
    assert [row.body() for row in rows] == [seal(activation_draft(standing[0])).body]
    await store.close()


async def test_the_same_latch_twice_is_one(tmp_path: Path) -> None:
    database = tmp_path / "t.db"
    store = await SqliteStore.open(database)
    fields = latch_to_fields(Latch("K1", KillSwitchMode.HALT_ONLY, "r", "a", LatchSource.CLI, NOW))
    assert fast_latch.latch_in_database(str(database), fields, utc_text(NOW))
    assert not fast_latch.latch_in_database(str(database), fields, utc_text(NOW))
    assert (await store.read(lambda tx: tx.head())).stop_epoch == 1
    await store.close()


def test_without_a_database_file_and_journal_take_it(tmp_path: Path) -> None:
    answer = stop(tmp_path, tmp_path / "missing.db", mode="HALT_ONLY")
    assert not answer["durable"]
    assert answer["journalled"]
    assert not (tmp_path / "missing.db").exists()
    _, entries = Journal(tmp_path / "journal.jsonl").pending()
    assert [latch_of(entry).id for entry in entries] == [answer["latch_id"]]
    assert answer["latch_id"] in (tmp_path / "KILL").read_text()


def test_a_file_that_is_no_database_is_an_error_and_the_stop_stands(tmp_path: Path) -> None:
    database = tmp_path / "t.db"
    database.write_bytes(b"not a database, but a stop all the same" * 100)
    answer = stop(tmp_path, database)
    assert not answer["durable"]
    assert "database" in str(answer["errors"])
    assert (tmp_path / "KILL").exists()


async def test_a_turn_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    database = tmp_path / "t.db"
    await (await SqliteStore.open(database)).close()
    with Path(f"{database}.ticket").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        answer = stop(tmp_path, database)
    assert not answer["durable"]
    assert "no turn" in str(answer["errors"])
    assert answer["journalled"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = stop(tmp_path / "file", None)
    assert not answer["durable"]
    assert not answer["journalled"]
    assert len(answer["errors"]) == 2  # type: ignore[arg-type]


def test_a_database_without_a_head_is_no_database_of_ours(tmp_path: Path) -> None:
    database = tmp_path / "t.db"
    connection = sqlite3.connect(database)
    connection.execute(
        "CREATE TABLE latches (id TEXT PRIMARY KEY, mode, reason, actor, source, activated_ms)"
    )
    connection.execute("CREATE TABLE head (id, version, stop_epoch, trading)")
    connection.commit()
    connection.close()
    answer = stop(tmp_path, database)
    assert not answer["durable"]
    assert "head" in str(answer["errors"])


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, json; import tinywindow.safety.stores.fast_latch; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    heavy = {"sqlalchemy", "asyncio", "pydantic", "structlog", "dataclasses", "typing", "redis"}
    assert not loaded & (heavy - {"typing"})
    assert not {name for name in loaded if name.startswith("tinywindow.safety.domain")}


@pytest.mark.parametrize(
    "line",
    ['{"kind": "latch"', "[]", '{"no": "kind"}', "[" * 70_000, "x" * 70_000, "{" * 60_000],
)
def test_a_damaged_journal_line_hides_no_other(tmp_path: Path, line: str) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.pending() == (0, ())
    journal.append({"kind": "release", "id": "first"})
    with journal.path.open("a") as file:
        file.write(line)
    journal.append({"kind": "release", "id": "second"})
    offset, entries = journal.pending()
    assert [entry["id"] for entry in entries] == ["first", "second"]
    journal.merged(offset)
    assert journal.pending() == (offset, ())
    journal.append({"kind": "release", "id": "third"})
    assert [entry["id"] for entry in journal.pending()[1]] == ["third"]


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"kind": "release", "id": "whole"})
    with journal.path.open("a") as file:
        file.write('{"kind": "release", "id": "ha')
    offset, entries = journal.pending()
    assert [entry["id"] for entry in entries] == ["whole"]
    journal.merged(offset)
    with journal.path.open("a") as file:
        file.write('lf"}\n')
    assert [entry["id"] for entry in journal.pending()[1]] == ["half"]


def test_a_journal_that_was_replaced_is_read_from_its_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"kind": "release", "id": "old"})
    journal.merged(journal.pending()[0])
    journal.path.unlink()
    journal.append({"kind": "release", "id": "new"})
    assert [entry["id"] for entry in journal.pending()[1]] == ["new"]
