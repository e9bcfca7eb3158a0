"""The end of a loop or of a process does not take a close along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

PREAMBLE = """
import asyncio, sys, threading, time
from pathlib import Path
from tinywindow.safety.config import KillSwitchConfig
from tinywindow.safety.domain.venue import MarketRules
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.testing import Fault, ScriptedExchange
from decimal import Decimal
folder = Path(sys.argv[1])
venue = ScriptedExchange("venue", {"BTC/USDT:USDT": 2, "ETH/USDT:USDT": -1})
def tell(word):
    with (folder / "told").open("a") as file:
        file.write(word + "\\n")
class Telling(ScriptedExchange):
    def fork(self):
        twin = Telling(self.name)
        twin._venue = self._venue
        return twin
    async def place(self, approved):
        placed = await super().place(approved)
        tell(f"sent {approved.order.symbol.text}")
        return placed
telling = Telling("venue"); telling._venue = venue._venue
"""


def run(
    tmp_path: Path, body: str, *, timeout_s: float = 40
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(body), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    told = tmp_path / "told"
    return done, told.read_text().splitlines() if told.exists() else []


def test_R22_the_requirements_loop_breaks_and_the_close_goes_on(tmp_path: Path) -> None:
    done, told = run(
        tmp_path,
        """
        class Orchestrator:
            def __init__(self):
                config = KillSwitchConfig(report_wait=0.001)
                self.kill_switch = KillSwitch(None, [telling], folder / "t.db", config=config)
            async def execute_cycle(self):
                await self.kill_switch.activate("CLOSE_POSITIONS", "test")
            async def run(self):
                while True:
                    if await self.kill_switch.is_active():
                        break
                    await self.execute_cycle()
        asyncio.run(Orchestrator().run())
        tell("loop ended")
        """,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(told)[-2:] == ["sent BTC/USDT:USDT", "sent ETH/USDT:USDT"]
    again, told = run(
        tmp_path,
        """
        async def main():
            async with KillSwitch(None, None, folder / "t.db") as switch:
                status = await switch.get_status()
                tell(f"{status.state} {status.mode}")
        asyncio.run(main())
        """,
    )
    assert again.returncode == 0, again.stderr
    assert told[-1] == "FLAT CLOSE_POSITIONS"


def test_R22_a_loop_that_is_blocked_does_not_hold_the_close_up(tmp_path: Path) -> None:
    done, told = run(
        tmp_path,
        """
        async def main():
            config = KillSwitchConfig(report_wait=0.001)
            switch = KillSwitch(None, [telling], folder / "t.db", config=config)
            await switch.activate("CLOSE_POSITIONS", "test")
            time.sleep(3)
            tell("unblocked")
            assert (await switch.wait_flat(0.1)).flat
            await switch.close()
        asyncio.run(main())
        """,
    )
    assert done.returncode == 0, done.stderr
    assert told[-1] == "unblocked"
    assert len(told) == 3


def test_the_process_waits_for_a_close_only_up_to_its_deadline(tmp_path: Path) -> None:
    begun = time.monotonic()
    done, told = run(
        tmp_path,
        """
        venue.break_down("place", Fault.REJECT)
        async def main():
            config = KillSwitchConfig(close_deadline=2, report_wait=0.001, slow_interval=0.2)
            switch = KillSwitch(None, [telling], folder / "t.db", config=config)
            await switch.activate("CLOSE_POSITIONS", "test")
        asyncio.run(main())
        tell("main ended")
        """,
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun >= 2
    assert "main ended" in told


def test_a_halt_does_not_keep_the_process(tmp_path: Path) -> None:
    begun = time.monotonic()
    done, _ = run(
        tmp_path,
        """
        async def main():
            switch = KillSwitch(None, [telling], folder / "t.db")
            await switch.activate("HALT_ONLY", "test")
        asyncio.run(main())
        """,
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 8


@pytest.mark.crash
def test_a_killed_process_leaves_a_stop_that_another_carries_out(tmp_path: Path) -> None:
    body = """
    venue.break_down("place", Fault.REJECT)
    async def main():
        config = KillSwitchConfig(report_wait=0.5)
        switch = KillSwitch(None, [telling], folder / "t.db", config=config)
        await switch.activate("CLOSE_POSITIONS", "test")
        tell("ready")
        await asyncio.sleep(60)
    asyncio.run(main())
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(body), str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 20
    while "ready" not in ((tmp_path / "told").read_text() if (tmp_path / "told").exists() else ""):
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done, told = run(
        tmp_path,
        """
        async def main():
            async with KillSwitch(None, [telling], folder / "t.db") as switch:
                assert await switch.is_active()
                report = await switch.wait_flat(20)
                tell(f"flat {report.flat}")
                await switch.deactivate()
        asyncio.run(main())
        """,
    )
    assert done.returncode == 0, done.stderr
    assert told[-1] == "flat True"
