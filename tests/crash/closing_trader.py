"""A process that is to be killed in the middle of a close; run by test_kill_close_resumes.py.

Usage: ``closing_trader.py FOLDER SEED``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from decimal import Decimal
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from closing_desk import BTC, ETH, OTHER, PERP, SOL, Desk, quick
from tinywindow.exchanges.paper import PaperConfig, ScriptedFaults
from tinywindow.exchanges.paper.faults import PlaceFault
from tinywindow.safety.domain.venue import MarketRules

MANAGED = {BTC: Decimal(1), ETH: Decimal(5), SOL: Decimal(30)}


def tell(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def prepare(folder: Path) -> None:
    desk = Desk(folder)
    for symbol, amount in MANAGED.items():
        # As much again is the owner's.
        await desk.open(symbol, 2 * amount, managed=amount)
    await desk.open(PERP, "2.5")
    await desk.open(OTHER, "-40")
    for number in range(6):
        await desk.rest(f"SETUP-rest-{number}", "BUY", (BTC, PERP)[number % 2], "0.01", 40_000)
    await desk.keep_ledger()
    await desk.exchange.close()


async def close(folder: Path, seed: int) -> None:
    rng = Random(seed)
    rules = {
        symbol: MarketRules(symbol, step, most, step, spot=":" not in symbol, reduce_only=perp)
        for symbol, step, most, perp in (
            (BTC, Decimal("0.001"), Decimal("0.3"), False),
            (ETH, Decimal("0.01"), Decimal(1), False),
            (PERP, Decimal("0.1"), Decimal("0.5"), True),
            (OTHER, Decimal("0.1"), Decimal(10), True),
        )
    }
    faults = ScriptedFaults().place(
        *(rng.choice([None, None, PlaceFault.PARTIAL, PlaceFault.LOST_AFTER]) for _ in range(12))
    )
    config = PaperConfig(latency_s=0.005, rules=rules)
    desk = Desk(folder, config=config, faults=faults)
    async with desk.switch(quick(venue_timeout=2)) as switch:
        await switch.activate("CLOSE_POSITIONS", "a test of crashes")
        tell("closing")
        await switch.wait_flat(60)
        tell("flat")
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(close(Path(sys.argv[1]), int(sys.argv[2])))
