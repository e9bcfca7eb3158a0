"""A fleet of bots under load, and what they wrote down."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fleet_bot import PRICE, Place, trade
from pg_writers import query
from valkey import Valkey

from program import FORKS
from tinywindow.safety.services.heartbeat import HEARTBEAT_PREFIX


async def eventually(check: Callable[[], Any], what: str, timeout_s: float = 60) -> float:
    """Wait until a check, plain or awaitable, says yes; gives how long that took, in seconds."""
    begun_s = time.monotonic()
    while True:
        answer = check()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return time.monotonic() - begun_s
        assert time.monotonic() - begun_s < timeout_s, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.01)


def figure(name: str, figures: dict[str, object]) -> None:
    print(f"FIGURE {name} {json.dumps(figures)}")


@dataclass(frozen=True)
class Answered:
    """One line of a bot: times on the machine's monotonic clock, in seconds."""

    asked_s: float
    sent_s: float
    done_s: float
    side: str
    code: str


@dataclass
class Member:
    """One bot's process, and its lines as far as they were read."""

    name: str
    process: BaseProcess
    log: Path
    lines: list[Answered] = field(default_factory=list)
    read: int = 0

    def answers(self) -> list[Answered]:
        """All answers so far; only what is new is read."""
        if self.log.exists():
            with self.log.open("rb") as file:
                file.seek(self.read)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self.read += len(whole)
            for line in whole.decode().splitlines():
                asked, sent, done, side, code = line.split()
                self.lines.append(Answered(float(asked), float(sent), float(done), side, code))
        return self.lines

    def since(self, at_s: float) -> list[Answered]:
        """What was answered after a moment."""
        newest = self.answers()
        first = len(newest)
        while first and newest[first - 1].done_s > at_s:
            first -= 1
        return newest[first:]

    def entered_since(self, at_s: float) -> bool:
        """Whether an entry that was asked for after a moment was sent."""
        return any(a.sent_s and a.asked_s > at_s and a.side == "BUY" for a in self.since(at_s))

    def left_since(self, at_s: float) -> bool:
        """Whether an exit that was asked for after a moment was sent."""
        return any(a.sent_s and a.asked_s > at_s and a.side == "SELL" for a in self.since(at_s))

    def codes_since(self, at_s: float, side: str = "BUY") -> set[str]:
        """With what orders were answered that were asked for after a moment."""
        return {a.code for a in self.since(at_s) if a.asked_s > at_s and a.side == side}

    def last_entry_s(self, since_s: float) -> float:
        """When the last entry was sent after a moment; the moment where there was none."""
        sent = [a.sent_s for a in self.since(since_s) if a.side == "BUY" and a.sent_s > since_s]
        return max(sent, default=since_s)


@dataclass
class Fleet:
    """Processes that trade for as long as `go` stands; each is a host of its own."""

    folder: Path
    cap: int = 10_000_000
    members: list[Member] = field(default_factory=list)

    def host(self, name: str, database: str, redis: str) -> Place:
        data_dir = self.folder / name
        data_dir.mkdir(parents=True, exist_ok=True)
        return Place(database, redis, data_dir)

    def add(self, place: Place, how: str, *, begun_in: Callable[..., Any] = trade) -> Member:
        """Start one bot; `how` names what it does in a turn."""
        (self.folder / "go").touch()
        name = f"w{len(self.members)}"
        process = FORKS.Process(
            target=begun_in, args=(place, name, self.cap, how, self.folder), daemon=True
        )
        process.start()
        self.members.append(Member(name, process, self.folder / f"{name}.log"))
        return self.members[-1]

    def all_enter_since(self, at_s: float) -> bool:
        """Whether every bot sent an entry that it asked for after a moment."""
        for member in self.members:
            assert member.process.is_alive(), f"{member.name} ended"
        return all(member.entered_since(at_s) for member in self.members)

    async def all_trade(self, timeout_s: float = 60) -> float:
        """Wait until every bot trades; gives how long that took, in seconds."""
        now_s = time.monotonic()
        return await eventually(lambda: self.all_enter_since(now_s), "all trade", timeout_s)

    async def rates(self, span_s: float) -> tuple[float, float]:
        """Decisions a second of all bots together, and orders that they send."""
        begun_s = time.monotonic()
        await asyncio.sleep(span_s)
        took_s = time.monotonic() - begun_s
        answers = [a for member in self.members for a in member.since(begun_s)]
        return len(answers) / took_s, sum(bool(a.sent_s) for a in answers) / took_s

    async def all_have_heard(self, at_s: float) -> None:
        """Wait until every bot was answered to twice that asked after a moment."""

        def heard(member: Member) -> bool:
            return sum(a.asked_s > at_s for a in member.since(at_s)) >= 2

        await eventually(lambda: all(heard(m) for m in self.members), "all have heard")

    def late_ms(self, at_s: float) -> list[float]:
        """For every bot, how long after a moment it sent its last entry, in milliseconds."""
        return [1000 * (m.last_entry_s(at_s) - at_s) for m in self.members]

    def end(self) -> None:
        """Tell all bots to end, and see that they did in order."""
        (self.folder / "go").unlink()
        for member in self.members:
            member.process.join(60)
            assert member.process.exitcode == 0, member.name

    def kill(self) -> None:
        for member in self.members:
            if member.process.is_alive():
                member.process.kill()
            member.process.join()


def beats_of(redis: Valkey, member: Member) -> list[dict[str, Any]]:
    """What one bot's process leaves in Redis about itself."""
    own = f"{HEARTBEAT_PREFIX}*:{member.process.pid}:*"
    with redis.client() as client:
        texts = [client.get(key) for key in client.scan_iter(own)]
    return [json.loads(text) for text in texts if text is not None]


def approved_once(url: str) -> int:
    """Give how many orders were approved, of which none was twice."""
    (row,) = query(
        url,
        "SELECT count(*), count(DISTINCT order_id) FROM audit_log"
        " WHERE event_type = 'ORDER_APPROVED'",
    )
    assert row[0] == row[1], "approved twice"
    return int(row[0])


def highest_exposure(url: str) -> Decimal:
    """The most that all approvals in their order could have held at once, in USD; each is for 1.

    An entry counts from its approval until it is known not to have been filled; an exit counts
    only once it is known to have been.
    """
    known = ("ORDER_APPROVED", "ORDER_OUTCOME", "ORDER_RELEASED", "ORDER_LAPSED")
    rows = query(
        url,
        "SELECT event_type, order_id, data FROM audit_log WHERE event_type = ANY(%s) ORDER BY seq",
        list(known),
    )
    held = highest = Decimal(0)
    reduces: dict[str, bool] = {}
    for event, order_id, text in rows:
        data = json.loads(text)
        if event == "ORDER_APPROVED":
            assert order_id not in reduces, f"approved twice: {order_id}"
            reduces[order_id] = data["reduces"]
            held += not data["reduces"]
            highest = max(highest, held)
        elif data["state"] in {"FILLED", "RELEASED"}:
            filled = Decimal(data["filled"])
            held -= filled if reduces[order_id] else Decimal(data["amount"]) - filled
    return highest * PRICE
