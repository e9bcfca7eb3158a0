"""The program as its users run it: processes, candle files, and what lies in a data directory."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tinywindow.exchanges.paper import discrepancies
from tinywindow.safety.services.anchor import Anchor
from tinywindow.safety.services.audit_log import AuditLog
from tinywindow.safety.stores.audit_reader import SqliteAuditReader

SOAK = os.environ.get("TW_TEST_PROFILE") == "soak"
TINYWINDOW = (sys.executable, "-m", "tinywindow.cli")
MARKET = Path(__file__).resolve().parents[2] / "shared" / "data" / "market"
START_MS = 1_722_556_800_000


# Processes that are killed by the dozen are forked from one that has imported everything.
class _Forks(ForkServerContext):
    """Forks a process; whichever test is the first leaves the later ones no settings of its own."""

    def Process(self, *words: Any, **options: Any) -> BaseProcess:  # type: ignore[override]
        ours = {name: os.environ[name] for name in os.environ if name.startswith("TINYWINDOW_")}
        for name in ours:
            del os.environ[name]
        try:
            forkserver.ensure_running()
        finally:
            os.environ.update(ours)
        return super().Process(*words, **options)


FORKS = _Forks()
FORKS.set_forkserver_preload(
    ["tinywindow.cli.app", "tinywindow.runtime", "tinywindow.safety.stores.sqlite", "program"]
)


def wait_for(met: Callable[[], Any], what: str, *, timeout_s: float = 30.0) -> Any:
    """Poll until `met` gives something true; a deadline that passes is a failure."""
    until = time.monotonic() + timeout_s
    while True:
        found = met()
        if found:
            return found
        assert time.monotonic() < until, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str
    took_s: float

    @property
    def document(self) -> Any:
        assert self.out.strip(), self.err
        return json.loads(self.out.splitlines()[-1])


def tinywindow(*words: object, timeout_s: float = 60, **how: Any) -> Said:
    """Run a command to its end."""
    begun = time.monotonic()
    done = subprocess.run(
        [*TINYWINDOW, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        **how,
    )
    return Said(done.returncode, done.stdout, done.stderr, time.monotonic() - begun)


def started(*words: object, **how: Any) -> subprocess.Popen[str]:
    """Start a command and leave it running."""
    return subprocess.Popen(
        [*TINYWINDOW, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def _in_fork(words: tuple[str, ...], log: str, environ: dict[str, str]) -> None:
    os.environ.update(environ)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    from tinywindow.cli.entry import main

    sys.exit(main(list(words)))


def forked(*words: object, log: Path, environ: dict[str, str] | None = None) -> BaseProcess:
    """Start a command in a fork, without paying for its imports; its streams go to `log`."""
    process = FORKS.Process(
        target=_in_fork, args=(tuple(map(str, words)), str(log), environ or {}), daemon=True
    )
    process.start()
    return process


def tinywindow_forked(
    *words: object, folder: Path, timeout_s: float = 60, environ: dict[str, str] | None = None
) -> Said:
    """Run a command to its end in a fork, and give both streams together as `err`."""
    log = folder / f"said-{time.monotonic_ns()}"
    begun = time.monotonic()
    process = forked(*words, log=log, environ=environ)
    process.join(timeout=timeout_s)
    assert process.exitcode is not None, f"still running: {words}"
    said = log.read_text()
    documents = [line for line in said.splitlines() if line.startswith("{")]
    return Said(process.exitcode, "".join(documents[-1:]), said, time.monotonic() - begun)


def candles(path: Path, *, price: float, bars: int, seed: int) -> Path:
    """A candle file that goes up and down so often that `momentum` has much to do."""
    rng = random.Random(seed)
    lines = ["timestamp_ms,open,high,low,close,volume"]
    last = price
    for bar in range(bars):
        wave = math.sin(2 * math.pi * bar / (22 + seed % 5))
        close = round(price * (1 + 0.01 * wave + rng.uniform(-0.001, 0.001)), 2)
        high, low = max(last, close), min(last, close)
        lines.append(f"{START_MS + 60_000 * bar},{last},{high},{low},{close},10")
        last = close
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write("\n".join(lines) + "\n")
    return path


# --- what lies in a data directory ----------------------------------------------------------------


def query(database: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Rows of an SQLite file as any other program would read them."""
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def audit(data_dir: Path, event_type: str) -> list[dict[str, Any]]:
    """Audit rows of one type: `seq`, `time`, `order_id`, and their data."""
    rows = query(
        data_dir / "tinywindow.db",
        "SELECT seq, time, order_id, data FROM audit_log WHERE event_type = ? ORDER BY seq",
        event_type,
    )
    return [
        {"seq": seq, "time": at, "order_id": order_id, **json.loads(data)}
        for seq, at, order_id, data in rows
    ]


def placements(data_dir: Path) -> dict[str, int]:
    """How often each order id reached the paper venue; nothing where there is no book yet."""
    book = data_dir / "paper.db"
    if not book.exists() or not query(book, "SELECT 1 FROM sqlite_master WHERE name = 'placement'"):
        return {}
    return dict(query(book, "SELECT client_order_id, count FROM placement"))


def audit_faults(data_dir: Path) -> list[tuple[int, str]]:
    """What is wrong with the audit chain, its head and its anchors."""
    database = data_dir / "tinywindow.db"

    async def look() -> list[tuple[int, str]]:
        reader = SqliteAuditReader(database)
        try:
            points = Anchor(database.with_name(database.name + ".anchor")).points()
            found = await AuditLog(reader).verify(points)
        finally:
            await reader.close()
        return [(fault.seq, fault.message) for fault in found.faults]

    # In a thread of its own: the caller may be on an event loop already.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, look()).result()


SLIPPAGE_MAX = 0.01
"""How much worse than the reference price of its limit the paper venue may fill an order."""


def _assert_no_entry_was_filled_beyond_its_limit(
    data_dir: Path, entries: dict[str, dict[str, str]]
) -> None:
    """What the venue held after each fill of an entry, at its price, against the symbol's limit."""
    held: dict[str, float] = {}
    for order_id, symbol, side, amount, price in query(
        data_dir / "paper.db",
        "SELECT client_order_id, symbol, side, amount, price FROM fill ORDER BY number",
    ):
        held[symbol] = held.get(symbol, 0.0) + float(amount) * (1 if side == "BUY" else -1)
        if order_id in entries:
            limit_usd = float(entries[order_id]["symbol_limit_usd"])
            assert abs(held[symbol]) * float(price) <= limit_usd * (1 + SLIPPAGE_MAX), order_id


def assert_nothing_went_wrong(data_dir: Path, *, alone: bool = True) -> None:
    """The invariants that hold at every commit, whatever was killed and when.

    Unless a process is alone, others may trade while it recovers, and it says so as an error.
    """
    sent = placements(data_dir)
    assert [order_id for order_id, count in sent.items() if count > 1] == [], "sent twice"
    assert discrepancies(data_dir / "paper.db") == ()
    assert audit_faults(data_dir) == []
    approved = audit(data_dir, "ORDER_APPROVED")
    assert len({row["order_id"] for row in approved}) == len(approved), "approved twice"
    assert set(sent) <= {row["order_id"] for row in approved}, "sent without an approval"
    entries = {row["order_id"]: row["exposure"] for row in approved if not row["reduces"]}
    for held in entries.values():
        for name in ("symbol", "total"):
            assert float(held[f"{name}_usd"]) <= float(held[f"{name}_limit_usd"]), held
    _assert_no_entry_was_filled_beyond_its_limit(data_dir, entries)
    for row in audit(data_dir, "RECOVERY"):
        assert row["mismatches"] == [], row
        assert not alone or row["errors"] == [], row


def assert_ledger_is_the_venues(data_dir: Path) -> None:
    """Our positions and the venue's own, compared to the last digit."""
    ours = dict(query(data_dir / "tinywindow.db", "SELECT symbol, amount FROM positions"))
    venue = dict(query(data_dir / "paper.db", "SELECT symbol, amount FROM holding"))
    assert {s: float(a) for s, a in ours.items() if float(a)} == {
        s: float(a) for s, a in venue.items() if float(a)
    }
