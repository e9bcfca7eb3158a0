"""Processes that ask the enforcer for orders on PostgreSQL, and what they were told."""

from __future__ import annotations

import asyncio
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg

from crew import Crew
from program import FORKS, wait_for
from tinywindow.safety import PositionLimitEnforcer, PositionLimits
from tinywindow.safety.domain.audit import AuditRow, verify_rows

SYMBOL = "BTC/USDT"
PRICE = 100
CAP = 50_000


@dataclass(frozen=True)
class Answer:
    """What one order was told, and how long that took; times on the shared monotonic clock."""

    asked_s: float
    answered_s: float
    order_id: str | None
    code: str
    reason: str = ""

    @property
    def waited_s(self) -> float:
        return self.answered_s - self.asked_s

    @property
    def allowed(self) -> bool:
        return not self.code


def limits(cap: int = CAP) -> PositionLimits:
    """Everything but the total lifted, ages too: a busy machine may take minutes to be ready."""
    return PositionLimits(
        max_position_size=10_000_000,
        max_total_exposure=cap,
        max_leverage=1_000,
        max_sector_exposure_pct=100,
        price_max_age=3_600,
        equity_max_age=3_600,
        reservation_ttl=3_600,
    )


async def prepared(url: str, cap: int = CAP) -> None:
    async with PositionLimitEnforcer(url, limits=limits(cap)) as enforcer:
        await enforcer.record_equity(10_000_000)
        await enforcer.set_reference_price(SYMBOL, PRICE)


def _work(url: str, data_dir: str, folder: str, name: str, until_full: bool) -> None:
    os.environ["TINYWINDOW_DATA_DIR"] = data_dir
    asyncio.run(_ask(url, Path(folder), name, until_full=until_full))


async def _ask(url: str, folder: Path, name: str, *, until_full: bool) -> None:
    answers: list[Answer] = []
    full = 0
    go, count = folder / "go", folder / f"count-{name}"
    async with PositionLimitEnforcer(url) as enforcer:
        (folder / f"ready-{name}").touch()
        while not go.exists():
            await asyncio.sleep(0.002)
        with count.open("wb", buffering=0) as counting:
            while go.exists() and full < 5:
                order = {"symbol": SYMBOL, "side": "BUY", "amount": "1", "type": "MARKET"}
                asked = time.monotonic()
                result = await enforcer.check_order_allowed(order)
                code = "" if result.reason_code is None else result.reason_code.value
                answered, why = time.monotonic(), result.rejection_reason or ""
                answers.append(Answer(asked, answered, result.client_order_id, code, why))
                full += until_full and code == "TOTAL_EXPOSURE"
                counting.write(b".")
    (folder / f"answers-{name}").write_bytes(pickle.dumps(answers))


@dataclass(kw_only=True)
class PgWriters(Crew):
    """A number of processes at work; `finish()` ends them and gives all their answers."""

    url: str
    until_full: bool = False
    data_dir: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.data_dir = self.folder / "data"

    def __enter__(self) -> Self:
        for n in range(self.number):
            words = (self.url, str(self.data_dir), str(self.folder), str(n), self.until_full)
            process = FORKS.Process(target=_work, args=words, daemon=True)
            process.start()
            self.running.append(process)
        ready = [self.folder / f"ready-{n}" for n in range(self.number)]
        wait_for(lambda: all(one.exists() for one in ready), "the writers", timeout_s=240)
        (self.folder / "go").touch()
        return self

    def finish(self, *, at_once: bool = True) -> list[list[Answer]]:
        if at_once:
            (self.folder / "go").unlink()
        return self.answers(within_s=240)


@contextmanager
def raw(url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection as any other program would open it."""
    connection = psycopg.connect(url, autocommit=True)
    try:
        yield connection
    finally:
        connection.close()


def query(url: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with raw(url) as connection:
        return connection.execute(sql, values).fetchall()  # type: ignore[arg-type]


def approvals(url: str, after: int = 0) -> list[tuple[int, str]]:
    """Sequence number and order of every approval after a row."""
    return query(
        url,
        "SELECT seq, order_id FROM audit_log WHERE event_type = 'ORDER_APPROVED' AND seq > %s"
        " ORDER BY seq",
        after,
    )


def assert_chain(url: str) -> int:
    """The chain verifies from its first row to its head; gives how many rows it has."""
    rows = [AuditRow(*row) for row in query(url, "SELECT * FROM audit_log ORDER BY seq")]
    seq, digest, faults = verify_rows(rows)
    assert faults == ()
    assert [(seq, digest)] == query(url, "SELECT audit_seq, audit_hash FROM head")
    return len(rows)


def assert_ledger(url: str, told: list[Answer]) -> None:
    """Every approval stands once, in the ledger and in the log, and nobody was told otherwise."""
    approved = [order for _, order in approvals(url)]
    assert len(set(approved)) == len(approved), "approved twice"
    held = [row[0] for row in query(url, "SELECT client_order_id FROM orders")]
    assert sorted(held) == sorted(approved)
    said = sorted(answer.order_id or "" for answer in told if answer.allowed)
    assert said == sorted(approved)
