"""Writers: processes that ask the enforcer for orders as fast as they can, on one database."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from crew import Crew
from program import FORKS, audit, query
from tinywindow.safety import KillSwitch, PositionLimitEnforcer
from tinywindow.safety.domain.decision import Refusal
from tinywindow.safety.services.context import SafetyContext

SYMBOL = "BTC/USDT"


@dataclass
class Decision:
    """One answer: when it was asked for, when the stops were read under the lock, when it came."""

    asked_s: float
    probed_s: float
    answered_s: float
    allowed: bool
    code: str
    release_s: float = 0.0
    """How long giving the reservation back took; 0 where there was none."""

    @property
    def waited_s(self) -> float:
        return self.answered_s - self.asked_s


async def prepared(database: Path) -> None:
    """A store with a price and an equity mark, so that small entries are allowed."""
    async with PositionLimitEnforcer(database) as limits:
        await limits.record_equity(1_000_000)
        await limits.set_reference_price(SYMBOL, 100)


def _work(database: str, name: str, answers: str, watch: bool) -> None:
    asyncio.run(_ask_and_ask(Path(database), name, Path(answers), watch=watch))


async def _ask_and_ask(database: Path, name: str, answers: Path, *, watch: bool) -> None:
    go_on = database.with_name("go-on")
    count = database.with_name(f"count-{name}")
    probed = 0.0
    look = SafetyContext.stop_probe

    def noted(context: SafetyContext) -> Refusal | None:
        nonlocal probed
        probed = time.monotonic()
        return look(context)

    SafetyContext.stop_probe = noted  # type: ignore[method-assign]
    made: list[Decision] = []
    switch = KillSwitch(None, (), database)
    async with PositionLimitEnforcer(database) as limits:
        if watch:
            await switch.is_active()
        renewed = time.monotonic()
        with count.open("wb", buffering=0) as counting:
            while go_on.exists():
                order = {"symbol": SYMBOL, "side": "BUY", "amount": "0.01", "type": "MARKET"}
                asked = time.monotonic()
                result = await limits.check_order_allowed(order)
                code = "" if result.reason_code is None else result.reason_code.value
                answered = time.monotonic()
                made.append(Decision(asked, probed, answered, result.allowed, code))
                if result.allowed and result.client_order_id is not None:
                    await limits.release(result.client_order_id)
                    made[-1].release_s = time.monotonic() - answered
                if time.monotonic() - renewed > 1:
                    renewed = time.monotonic()
                    await limits.set_reference_price(SYMBOL, 100)
                counting.write(b".")
        if watch:
            await switch.close()
    answers.write_bytes(pickle.dumps(made))


@dataclass(kw_only=True)
class Writers(Crew):
    """A number of writers at work; `stop()` ends them and gives their answers, one list each."""

    watch: bool = False

    @property
    def database(self) -> Path:
        return self.folder / "tinywindow.db"

    def __enter__(self) -> Self:
        asyncio.run(prepared(self.database))
        (self.folder / "go-on").touch()
        for n in range(self.number):
            where = str(self.folder / f"answers-{n}")
            process = FORKS.Process(
                target=_work, args=(str(self.database), str(n), where, self.watch), daemon=True
            )
            process.start()
            self.running.append(process)
        return self

    def stop(self) -> list[list[Decision]]:
        (self.folder / "go-on").unlink()
        return self.answers(within_s=30)


class StopClock:
    """Notes when the file `KILL` appears, and when a latch is committed, by looking."""

    def __init__(self, folder: Path) -> None:
        self._kill = folder / "KILL"
        self._database = folder / "tinywindow.db"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.file_s: float | None = None
        self.latch_s: float | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        connection = sqlite3.connect(f"{self._database.as_uri()}?mode=ro", uri=True)
        while not self._ended.wait(0.001):
            if self.file_s is None and self._kill.exists():
                self.file_s = time.monotonic()
            if self.latch_s is None and connection.execute("SELECT 1 FROM latches").fetchone():
                self.latch_s = time.monotonic()
        connection.close()

    def both(self) -> bool:
        return self.file_s is not None and self.latch_s is not None


def newest_seq(folder: Path) -> int:
    """The sequence number of the newest audit row."""
    return int(query(folder / "tinywindow.db", "SELECT audit_seq FROM head")[0][0])


def approvals_after(folder: Path, seq: int) -> list[dict[str, Any]]:
    return [row for row in audit(folder, "ORDER_APPROVED") if row["seq"] > seq]
