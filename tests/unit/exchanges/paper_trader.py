"""A trader to be killed: trades on a paper book and tells each answer, until it dies.

Usage: ``paper_trader.py DIRECTORY ROUND``; run by the crash test in a process of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

from paper_desk import FREE, PERP, SPOT, START, approved, order, venue


def tell(text: str) -> None:
    """Write a line that is whole even when the process dies next."""
    os.write(1, f"{text}\n".encode())


async def main(directory: Path, round_number: int) -> None:
    """Trade for ever, with every id new."""
    rng = Random(round_number)
    config = replace(FREE, taker_bps=Decimal(7), limit_partial_chance=0.5)
    exchange = venue(directory, config=config, rng=rng)
    await exchange.positions()
    tell("trading")
    for number in itertools.count():
        symbol, side = rng.choice((SPOT, PERP)), rng.choice(("BUY", "SELL"))
        amount = str(Decimal(rng.randint(1, 20)) / 1000)
        base = 50_000 + rng.randint(-500, 500)
        exchange.board.set(
            symbol, Decimal(base), START + timedelta(hours=round_number, seconds=number)
        )
        price = str(base + rng.randint(-50, 50)) if rng.random() < 0.5 else None
        wanted = order(f"R{round_number}-{number}", side, amount, symbol=symbol, price=price)
        await exchange.place(approved(wanted))
        report = await exchange.find(symbol, wanted.client_order_id)
        if report is not None:
            tell(f"{wanted.client_order_id} {symbol} {report.status.value}")
        await exchange.match()
        if rng.random() < 0.2:
            for resting in await exchange.open_orders():
                await exchange.cancel(resting.symbol, resting.client_order_id)


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
