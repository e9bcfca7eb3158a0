"""What a decision costs against a bare guarded transaction, through the same thread, on this disk.

The claim: `PositionLimitEnforcer.check_order_allowed` costs a small multiple of the least that
any durable decision must cost here. Prints the ratio of medians; both are measured in turns.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from tinywindow.safety import PositionLimitEnforcer, PositionLimits

ROUNDS = 300
LIMITS = PositionLimits(
    max_position_size=10_000_000, max_total_exposure=10_000_000, max_leverage=1_000,
    max_sector_exposure_pct=100, price_max_age=600, equity_max_age=600,
)  # fmt: skip


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with PositionLimitEnforcer(Path(folder) / "bench.db", limits=LIMITS) as limits:
            await limits.record_equity(1_000_000)
            await limits.set_reference_price("BTC/USDT", 100)
            context = limits.opened
            assert context is not None
            bare, decided = [], []
            for turn in range(ROUNDS):
                begun = time.perf_counter()
                await context.store.transact(lambda tx, n=turn: tx.put_document("bench", str(n)))
                bare.append(time.perf_counter() - begun)
                begun = time.perf_counter()
                result = await limits.check_order_allowed(
                    {"symbol": "BTC/USDT", "side": "BUY", "amount": "0.01"}
                )
                decided.append(time.perf_counter() - begun)
                assert result.allowed, result.rejection_reason
    base, cost = statistics.median(bare), statistics.median(decided)
    print(
        f"bare transaction {base * 1e6:.0f} us, decision {cost * 1e6:.0f} us: {cost / base:.2f} x"
    )


asyncio.run(main())
