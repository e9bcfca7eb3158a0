"""R16: a database that comes back from a backup, before a start and under a process that runs."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

import pytest
from pg_drafts import row
from postgres import PostgresServer

from tinywindow.safety import KillSwitch
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.services.context import SafetyContext, open_context
from tinywindow.safety.services.location import locate

pytestmark = pytest.mark.alone


class Backup:
    """One database's dump, made with PostgreSQL's own tools as an operator makes it."""

    def __init__(self, server: PostgresServer, name: str, place: Path) -> None:
        self.server, self.name, self.file = server, name, place / "tinywindow.dump"
        self._tool("pg_dump", "-Fc", "-f", str(self.file), name)

    def restore(self) -> None:
        """Put the database back, whoever uses it."""
        self.server.drop(self.name)
        self.server.admin(f"CREATE DATABASE {self.name} OWNER tw_owner")
        self._tool("pg_restore", "-d", self.name, str(self.file))

    def _tool(self, tool: str, *words: str) -> None:
        command = [str(self.server.bin / tool), "-h", str(self.server.folder), "-U", "postgres"]
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


async def opened(url: str, place: Path) -> SafetyContext:
    return await open_context(locate(url, data_dir=place))


@pytest.fixture
def url(durable_postgres_server: PostgresServer) -> str:
    return durable_postgres_server.url(durable_postgres_server.new_database())


def name_of(url: str) -> str:
    return url.split("/")[3].partition("?")[0]


async def test_a_backup_that_lacks_a_stop_takes_no_entry(
    durable_postgres_server: PostgresServer, url: str, tmp_path: Path
) -> None:
    """The stop was made and released after the backup: that it ever stood is lost."""
    context = await opened(url, tmp_path)
    await context.store.transact(lambda tx: tx.audit(row("a")))
    backup = Backup(durable_postgres_server, name_of(url), tmp_path)
    await context.store.transact(lambda tx: tx.audit(row("b")))
    async with KillSwitch(None, (), context) as switch:
        await switch.activate(reason="after the backup")
        await switch.deactivate(reason="seen")
    await context.close()
    whole = await opened(url, tmp_path)
    assert whole.faults == {}
    await whole.close()
    backup.restore()
    restored = await opened(url, tmp_path)
    assert list(restored.faults) == [Reason.STORE_ROLLED_BACK]
    assert "restored" in restored.faults[Reason.STORE_ROLLED_BACK]
    await restored.close()


async def test_a_restore_under_a_process_that_runs_is_found_out_and_its_anchor_kept(
    durable_postgres_server: PostgresServer, url: str, tmp_path: Path
) -> None:
    context = await opened(url, tmp_path)
    await context.store.transact(lambda tx: tx.audit(row("a")))
    backup = Backup(durable_postgres_server, name_of(url), tmp_path)
    for name in "bc":
        await context.store.transact(lambda tx, name=name: tx.audit(row(name)))
    await context.anchor_head()
    known = context.anchor.last()
    assert known is not None
    assert context.faults == {}
    backup.restore()
    context.start_watching()

    # What this process writes next is what makes it look; nobody has to restart it.
    async with asyncio.timeout(20):
        while Reason.STORE_ROLLED_BACK not in context.faults:
            with contextlib.suppress(StoreUnavailable):
                await context.store.transact(lambda tx: tx.put_document("a", "1"))
            await asyncio.sleep(0.01)
    assert context.anchor.last() == known
    await context.close()
    again = await opened(url, tmp_path)
    assert list(again.faults) == [Reason.STORE_ROLLED_BACK]
    await again.close()


async def test_two_databases_used_from_one_data_directory_are_told_apart(
    durable_postgres_server: PostgresServer, url: str, tmp_path: Path
) -> None:
    """The second one is no backup of the first, and the reason says so; neither anchor is lost."""
    second = durable_postgres_server.url(durable_postgres_server.new_database())
    context = await opened(url, tmp_path)
    for name in "ab":
        await context.store.transact(lambda tx, name=name: tx.audit(row(name)))
    await context.close()
    anchored = context.anchor.path.read_bytes()
    # It has been used before, from a directory of its own.
    context = await opened(second, tmp_path / "own")
    for name in "cde":
        await context.store.transact(lambda tx, name=name: tx.audit(row(name)))
    await context.close()

    context = await opened(second, tmp_path)
    assert list(context.faults) == [Reason.STORE_ROLLED_BACK]
    assert "for another database" in context.faults[Reason.STORE_ROLLED_BACK]
    await context.close()
    assert context.anchor.path.read_bytes() == anchored
    for where, place in ((url, tmp_path), (second, tmp_path / "own")):
        context = await opened(where, place)
        assert context.faults == {}
        await context.close()


async def test_two_databases_that_begin_in_one_data_directory_at_once_are_told_apart(
    durable_postgres_server: PostgresServer, url: str, tmp_path: Path
) -> None:
    """Neither had an anchor at its start; whoever finds the other's refuses from then on."""
    second = durable_postgres_server.url(durable_postgres_server.new_database())
    one, other = await opened(url, tmp_path), await opened(second, tmp_path)
    for name, context in zip("ab", (one, other), strict=True):
        await context.store.transact(lambda tx, name=name: tx.audit(row(name)))
        await context.anchor_head()
    assert one.faults == {}
    assert "for another database" in other.faults[Reason.STORE_ROLLED_BACK]
    for context in (one, other):
        await context.close()
