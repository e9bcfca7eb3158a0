"""What comes first after PostgreSQL was restarted is not lost on the old connection."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from pg_drafts import decide
from pg_writers import query
from postgres import PostgresServer

from tinywindow.safety import KillSwitch, KillSwitchMode
from tinywindow.safety.services.location import Location
from tinywindow.safety.stores.postgres import PostgresStore

# A report says whether the latch was in time.
pytestmark = pytest.mark.alone


async def test_a_stop_and_an_order_right_after_a_restart(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    url = own_postgres.url(own_postgres.new_database())
    store = await PostgresStore.open(url)
    async with KillSwitch(None, (), Location(url, None, tmp_path)) as switch:
        assert not await switch.is_active()
        assert await decide(store, "before") == "before"
        own_postgres.stop(signal.SIGQUIT)
        own_postgres.start()
        # Nobody has written since: the first write finds out, and is done all the same.
        assert await decide(store, "after") == "after"
        report = await switch.activate(KillSwitchMode.HALT_ONLY, "right after", actor="test")
        assert report.durable, report.errors
    assert query(url, "SELECT count(*) FROM latches") == [(1,)]
    await store.close()
