"""Kill under fire with Redis on, and a Redis that dies again and again under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis_world import SOAK, Bot, bot_on, eventually
from valkey import Valkey, running

from tinywindow.safety.stores.ring_value import RING_KEY

pytestmark = pytest.mark.alone

ROUNDS = 50 if SOAK else 1
DEATHS = 100 if SOAK else 2
BOUND_S = 0.25
READ_BACK_S = 0.6
"""How long after a stop the workers are watched."""


@dataclass
class Fire:
    """Workers under load, and what they wrote down."""

    folder: Path
    server: Valkey
    size: int = 8
    workers: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> Path:
        return self.folder / "t.db"

    def log(self, number: int) -> Path:
        return self.folder / f"w{number}.log"

    def start(self) -> None:
        here = Path(__file__)
        path = os.pathsep.join([str(here.parent), str(here.parents[2] / "servers")])
        command = [str(here.with_name("fire_worker.py")), str(self.size), str(self.database)]
        self.workers = subprocess.Popen(
            [sys.executable, *command, self.server.url, str(self.folder)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def sends(self, number: int) -> list[float]:
        with contextlib.suppress(FileNotFoundError):
            lines = self.log(number).read_text().split("\n")
            return [float(line.split()[1]) for line in lines[:-1] if line.startswith("S")]
        return []

    def all_sends(self) -> list[float]:
        return sorted(at for number in range(self.size) for at in self.sends(number))

    def all_send_since(self, since_s: float) -> bool:
        assert self.workers is not None
        assert self.workers.poll() is None, "a worker died"
        return all(
            self.sends(number) and self.sends(number)[-1] > since_s for number in range(self.size)
        )

    def stop(self) -> None:
        if self.workers is not None:
            # The group is this program's own: it was started in a session of its own.
            os.killpg(self.workers.pid, signal.SIGKILL)
            self.workers.wait()


@pytest.fixture
def fire(tmp_path: Path) -> Iterator[Fire]:
    with running() as server:
        made = Fire(tmp_path, server)
        try:
            yield made
        finally:
            made.stop()


async def resume(fire: Fire, bot: Bot) -> None:
    """An operator releases and starts; every worker trades again by itself."""
    await bot.restart_trading()
    since_s = time.monotonic()
    await eventually(lambda: fire.all_send_since(since_s), 60, pause_s=0.05)


def report(name: str, figures: dict[str, object]) -> None:
    print(f"FIGURE {name} {json.dumps(figures)}")


async def stopped_after(fire: Fire, at_s: float, bound_s: float) -> float:
    """How many ms after the stop the last order was sent; none may come after the bound."""
    await asyncio.sleep(READ_BACK_S)
    after = [at for at in fire.all_sends() if at > at_s]
    late = [round((at - at_s) * 1000) for at in after if at - at_s > bound_s]
    assert not late, f"sent {late} ms after the stop"
    return 1000 * (max(after) - at_s) if after else 0.0


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_kill_under_fire_by_key_and_by_method(fire: Fire) -> None:
    async with bot_on(fire.server.url, fire.database, name="operator") as bot:
        fire.start()
        begun_s = time.monotonic()
        await eventually(lambda: fire.all_send_since(begun_s), 60, pause_s=0.1)
        begun_s, before = time.monotonic(), len(fire.all_sends())
        await asyncio.sleep(2)
        rate = (len(fire.all_sends()) - before) / (time.monotonic() - begun_s)
        by_key, by_method = [], []
        for number in range(ROUNDS):
            fire.server.raw("SET", RING_KEY, f"by hand, round {number}")
            by_key.append(await stopped_after(fire, time.monotonic(), BOUND_S))
            await resume(fire, bot)
            await bot.switch.activate(reason=f"round {number}")
            by_method.append(await stopped_after(fire, time.monotonic(), 0.0))
            await resume(fire, bot)
    report(
        "kill under fire",
        {
            "rounds": ROUNDS,
            "orders_per_s": round(rate),
            "last_send_after_key_ms": [round(ms) for ms in sorted(by_key)],
            "last_send_after_activate_ms": [round(ms) for ms in sorted(by_method)],
        },
    )


@pytest.mark.slow
@pytest.mark.timeout(2400)
async def test_kill_nine_of_redis_under_load(fire: Fire) -> None:
    """Every death refuses entries; every return resumes them; a stop outlives them all."""
    async with bot_on(fire.server.url, fire.database, name="operator") as bot:
        fire.size = 8 if SOAK else 3
        fire.start()
        begun_s = time.monotonic()
        await eventually(lambda: fire.all_send_since(begun_s), 60, pause_s=0.1)
        back = []
        for number in range(DEATHS):
            fire.server.kill()
            dead_s = time.monotonic()
            await stopped_after(fire, dead_s, BOUND_S)
            assert await bot.switch.is_active()
            assert not await bot.latched()
            fire.server.start()
            since_s = time.monotonic()
            await eventually(lambda at=since_s: fire.all_send_since(at), 60)  # type: ignore[misc]
            back.append(time.monotonic() - since_s)
            if number % 10 == 0:
                # One death with a stop on: it stands, and nothing resumes.
                fire.server.raw("SET", RING_KEY, "1")
                await eventually(bot.latched)
                fire.server.restart()
                await stopped_after(fire, time.monotonic(), 0.0)
                await eventually(lambda: fire.server.raw("EXISTS", RING_KEY))
                await eventually(lambda: _readable(bot))
                await resume(fire, bot)
    report(
        "kill -9 of Redis",
        {"deaths": DEATHS, "all_resumed_after_s": [round(s, 2) for s in sorted(back)]},
    )


async def _readable(bot: Bot) -> bool:
    return not (await bot.switch.get_status()).unknown
