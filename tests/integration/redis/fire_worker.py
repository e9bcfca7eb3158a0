"""One of many bots that order as fast as they may; writes down when each order reached the venue.

Usage: fire_worker.py COUNT DATABASE REDIS_URL FOLDER

What is needed is loaded once; then the bots part, each a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path

import alembic.command
import redis.asyncio
from redis_world import Bot, kill_config

import tinywindow.safety.stores.redis
import tinywindow.safety.stores.sqlite
from tinywindow.safety.domain.approval import Approved
from tinywindow.safety.domain.venue import Placed
from tinywindow.safety.errors import SafetyError
from tinywindow.testing.scripted_exchange import ScriptedExchange

LOADED = (alembic.command, redis.asyncio, tinywindow.safety.stores)
"""What is loaded late elsewhere, and here before the bots part."""
FEED_S = 1.0


class Stamping(ScriptedExchange):
    """Writes a line for every order that is sent, with a time after its approval's commit.

    The time is taken just before the last look, so that no pause of the machine is measured.
    """

    def __init__(self, log: int) -> None:
        super().__init__()
        self.log = log

    async def place(self, approved: Approved) -> Placed:
        at_s = time.monotonic()
        placed = await super().place(approved)
        os.write(self.log, f"S {at_s:.6f}\n".encode())
        return placed


async def main(number: int, database: str, redis_url: str, log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    bot = Bot(redis_url, Path(database), kill_config(), Stamping(handle), name=f"w{number}")
    fed_s = 0.0
    while True:
        if time.monotonic() - fed_s > FEED_S:
            # Without a check of its own, a bot's breaker counts as stale after a while.
            with contextlib.suppress(SafetyError):
                await (bot.feed() if number == 0 else bot.breaker.check_all_metrics())
            fed_s = time.monotonic()
        sent = len(bot.exchange.sent)
        answer = await bot.order()
        if len(bot.exchange.sent) == sent:
            code = str(answer.breaches[0].code) if hasattr(answer, "breaches") else "?"
            os.write(handle, f"R {time.monotonic():.6f} {code}\n".encode())
            await asyncio.sleep(0.01)


def part(count: int, database: str, redis_url: str, folder: str) -> None:
    """Start the bots; ends when one of them does."""
    for number in range(count):
        if os.fork() == 0:
            asyncio.run(main(number, database, redis_url, f"{folder}/w{number}.log"))
            return
    os.wait()
    sys.exit("a bot ended")


if __name__ == "__main__":
    part(int(sys.argv[1]), *sys.argv[2:5])
