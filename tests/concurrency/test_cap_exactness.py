"""The cap is exact: fifty thousand in orders of a hundred are five hundred approvals, never more.

Every process asks until it is refused for good; a reader adds up what is held at every version it
sees. Not one approval is missing either: a cap that wastes room would push people to lift it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from program import FORKS, SOAK, audit_faults
from tinywindow.safety import PositionLimitEnforcer, PositionLimits

pytestmark = [pytest.mark.alone, pytest.mark.concurrency, pytest.mark.timeout(240)]

CAP = Decimal(50_000)
PRICE = 100
WAIT_S_MAX = 2.0
# Other caps lifted: what is left is the sum over everything.
LIMITS = {
    "max_position_size": 1_000_000,
    "max_total_exposure": 50_000,
    "max_leverage": 1_000,
    "max_sector_exposure_pct": 100,
    "price_max_age": 600,
    "equity_max_age": 600,
    "reservation_ttl": 600,
}


def enforcer(database: Path) -> PositionLimitEnforcer:
    return PositionLimitEnforcer(database, limits=PositionLimits(**LIMITS))  # type: ignore[arg-type]


async def prepared(database: Path) -> None:
    async with enforcer(database) as limits:
        await limits.record_equity(1_000_000)
        await limits.set_reference_price("BTC/USDT", PRICE)


async def ask_until_full(database: Path, together: Any) -> tuple[int, float, Counter[str]]:
    """Ask for orders of a hundred dollars until the cap refuses; count, worst wait, refusals."""
    approved, worst = 0, 0.0
    refusals: Counter[str] = Counter()
    async with enforcer(database) as limits:
        together.wait(60)
        while refusals["TOTAL_EXPOSURE"] == 0:
            begun = time.monotonic()
            result = await limits.check_order_allowed(
                {"symbol": "BTC/USDT", "side": "BUY", "amount": 1}
            )
            worst = max(worst, time.monotonic() - begun)
            if result.allowed:
                approved += 1
            else:
                assert result.reason_code is not None
                refusals[result.reason_code.value] += 1
    return approved, worst, refusals


def work(database: str, answers: Any, together: Any) -> None:
    answers.put(asyncio.run(ask_until_full(Path(database), together)))


def held(database: Path) -> Decimal:
    """What is held at this moment, in USD, read past every library of ours."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT amount FROM orders WHERE state = 'HELD'").fetchall()
    return sum((Decimal(amount) for (amount,) in rows), Decimal(0)) * PRICE


@pytest.mark.parametrize("processes", [1, 2, 8, *([32] if SOAK else [])])
def test_exactly_five_hundred_orders_are_approved(tmp_path: Path, processes: int) -> None:
    database = tmp_path / "tinywindow.db"
    asyncio.run(prepared(database))
    answers = FORKS.Queue()
    together = FORKS.Barrier(processes)
    workers = [
        FORKS.Process(target=work, args=(str(database), answers, together))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    seen = Decimal(0)
    while any(worker.is_alive() for worker in workers) and answers.qsize() < processes:
        seen = max(seen, held(database))
        time.sleep(0.002)
    results = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0

    approved = sum(count for count, _, _ in results)
    refusals = sum((codes for _, _, codes in results), Counter[str]())
    worst = max(wait for _, wait, _ in results)
    print(f"{processes} processes: {approved} approved, worst wait {worst * 1000:.0f} ms")
    assert approved == 500
    assert held(database) == CAP
    assert seen <= CAP
    assert set(refusals) <= {"TOTAL_EXPOSURE", "LEDGER_BUSY"}
    assert audit_faults(tmp_path) == []
    # An answer may be BUSY, but it comes; the bound itself is test_stops.py's, on quiet rounds.
    assert worst <= WAIT_S_MAX
    assert min(count for count, _, _ in results) > 0, "a process starved"
