"""R16 on SQLite: put back from a backup that was made in the middle, as `.backup` makes one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.services.context import SafetyContext, open_context
from tinywindow.safety.services.location import locate

AT = datetime(2026, 1, 1, tzinfo=UTC)


def copied(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source)) as one,
        contextlib.closing(sqlite3.connect(target)) as other,
    ):
        one.backup(other)


async def write(context: SafetyContext, name: str) -> None:
    row = AuditDraft(name, AT, EventType.RECOVERY, "test", {})
    await context.store.transact(lambda tx: tx.audit(row))


async def test_a_backup_from_the_middle_takes_no_entry(tmp_path: Path) -> None:
    database, backup = tmp_path / "a.db", tmp_path / "backup.db"
    context = await open_context(locate(database))
    await write(context, "a")
    copied(database, backup)
    await write(context, "b")
    await context.close()
    copied(backup, database)
    restored = await open_context(locate(database))
    assert list(restored.faults) == [Reason.STORE_ROLLED_BACK]
    await restored.close()


async def test_a_restore_under_a_process_that_runs_is_found_out_and_its_anchor_kept(
    tmp_path: Path,
) -> None:
    database, backup = tmp_path / "a.db", tmp_path / "backup.db"
    context = await open_context(locate(database))
    await write(context, "a")
    copied(database, backup)
    await write(context, "b")
    await write(context, "c")
    await context.anchor_head()
    known = context.anchor.last()
    assert context.faults == {}
    copied(backup, database)
    context.start_watching()
    async with asyncio.timeout(20):
        while Reason.STORE_ROLLED_BACK not in context.faults:
            await context.store.transact(lambda tx: tx.put_document("a", "1"))
            await asyncio.sleep(0.01)
    assert context.anchor.last() == known
    await context.close()


async def two_databases(folder: Path) -> tuple[Path, Path]:
    """Two databases of one row each, the second one beside the first one's anchor."""
    for name in "ab":
        context = await open_context(locate(folder / f"{name}.db"))
        await write(context, name)
        await context.close()
    one, other = folder / "a.db.anchor", folder / "b.db.anchor"
    return one, other


async def test_another_database_is_refused_for_what_it_is(tmp_path: Path) -> None:
    """The operator is told to separate the two, not to look for a backup that nobody restored."""
    one, other = await two_databases(tmp_path)
    other.write_bytes(one.read_bytes())
    context = await open_context(locate(tmp_path / "b.db"))
    assert "for another database" in context.faults[Reason.STORE_ROLLED_BACK]
    await write(context, "more")
    await context.close()
    assert other.read_bytes() == one.read_bytes()


async def test_an_anchor_from_before_anchors_named_their_database_still_counts(
    tmp_path: Path,
) -> None:
    one, other = await two_databases(tmp_path)
    for anchor, text in ((one, one.read_text()), (other, one.read_text())):
        fields = json.loads(text)
        assert fields.pop("chain")
        anchor.write_text(json.dumps(fields) + "\n")
    context = await open_context(locate(tmp_path / "a.db"))
    assert context.faults == {}
    await write(context, "more")
    await context.close()
    assert '"chain"' in one.read_text().splitlines()[-1]
    context = await open_context(locate(tmp_path / "b.db"))
    assert "not the anchored one" in context.faults[Reason.STORE_ROLLED_BACK]
    await context.close()


async def test_a_restored_database_is_not_taken_for_another_one(tmp_path: Path) -> None:
    database, backup = tmp_path / "a.db", tmp_path / "backup.db"
    context = await open_context(locate(database))
    await write(context, "a")
    copied(database, backup)
    await write(context, "b")
    await context.close()
    copied(backup, database)
    context = await open_context(locate(database))
    assert "restored or rolled back" in context.faults[Reason.STORE_ROLLED_BACK]
    await context.close()
