"""What an order costs on PostgreSQL, against one guarded statement on the same server."""

from __future__ import annotations

import asyncio
import statistics
import time

import psycopg
import pytest
from pg_drafts import decide
from pg_writers import query

from program import SOAK, wait_for
from tinywindow.safety.stores.postgres import PostgresStore

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]

TURNS = 2_000 if SOAK else 300
BARE = (
    "UPDATE exposures SET worst_micros = worst_micros + 1"
    " WHERE symbol = %s AND worst_micros < 1000000000"
)


def _us(seconds: list[float]) -> int:
    return round(statistics.median(seconds) * 1e6)


async def test_an_order_costs_a_few_bare_statements(durable_url: str) -> None:
    store = await PostgresStore.open(durable_url)
    bare = psycopg.connect(durable_url, autocommit=True, prepare_threshold=1)
    took: dict[str, list[float]] = {"straight": [], "locked": [], "bare": [], "bare hop": []}

    def update() -> None:
        bare.execute(BARE, ("BTC/USDT",))

    for turn in range(TURNS + 20):
        begun = time.perf_counter()
        assert await decide(store, f"s{turn}") == f"s{turn}"
        straight = time.perf_counter()
        store._writing.alone = False
        assert await decide(store, f"l{turn}") == f"l{turn}"
        locked = time.perf_counter()
        update()
        inline = time.perf_counter()
        await asyncio.to_thread(update)
        hop = time.perf_counter()
        if turn >= 20:
            took["straight"].append(straight - begun)
            took["locked"].append(locked - straight)
            took["bare"].append(inline - locked)
            took["bare hop"].append(hop - inline)
    bare.close()
    await store.close()
    p50 = {name: _us(seconds) for name, seconds in took.items()}
    ratio = p50["straight"] / p50["bare hop"]
    print(
        f"p50 in us: {p50}; an order costs {ratio:.2f} bare statements through the same hop, "
        f"{p50['straight'] / p50['bare']:.2f} inline; under the lock "
        f"{p50['locked'] / p50['bare hop']:.2f}"
    )
    # Ratios only: how long the disk takes is the machine's, and others may be using it.
    assert ratio < 5
    assert p50["locked"] < 10 * p50["bare hop"]


async def test_no_order_reads_a_table_from_end_to_end(postgres_url: str) -> None:
    """What others did is found by index, so that an order costs the same after a million."""
    first, second = [
        await PostgresStore.open(postgres_url, require_durable=False) for _ in range(2)
    ]
    # The driver prepares a statement, and the planner settles on a plan, after a few uses.
    for turn in range(30):
        assert await decide(first, f"a{turn}") == f"a{turn}"
        assert await decide(second, f"b{turn}") == f"b{turn}"
        await first.read(lambda tx: tx.book())
    await first.close()
    await second.close()
    looks = (
        "SELECT seq_scan, idx_scan FROM pg_stat_user_tables"
        " WHERE relname IN ('orders', 'executions') AND idx_scan >= 30"
    )
    # The server counts what a session did when the session has ended.
    await asyncio.to_thread(wait_for, lambda: len(query(postgres_url, looks)) == 2, "it is counted")
    assert [scans for scans, _ in query(postgres_url, looks)] == [0, 0]
