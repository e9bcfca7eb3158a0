"""R16, R19 and R20: a store that was replaced, a stop during a release, and a liquidation."""

from __future__ import annotations

import asyncio
from decimal import Decimal as D
from pathlib import Path

from closing_desk import PERP, Desk, eventually, quick
from tinywindow.safety import CircuitBreaker, OrderValidator, PositionLimitEnforcer
from tinywindow.safety.config import PositionLimits
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.domain.kill import KillState, KillSwitchMode
from tinywindow.safety.domain.order import Order, PositionKey
from tinywindow.safety.domain.records import Position
from tinywindow.safety.errors import ReleaseRefused
from tinywindow.safety.services.gate import OrderGate
from tinywindow.safety.services.kill_switch import KillSwitch

HALT, CLOSE = KillSwitchMode.HALT_ONLY, KillSwitchMode.CLOSE_POSITIONS


async def test_R16_a_database_that_was_removed_takes_no_stop_along(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.open(PERP, 1)
    await desk.keep_ledger()
    async with desk.switch() as switch:
        await switch.activate(HALT, "before the disk was swapped")
        await eventually((tmp_path / "tinywindow.db.anchor").exists)
    for file in tmp_path.glob("tinywindow.db*"):
        if not file.name.endswith(".anchor"):
            file.unlink()
    async with desk.switch() as switch:
        assert await switch.is_active()
        status = await switch.get_status()
        assert "before the disk was swapped" in status.reason
        context = switch._handle.opened
        assert context is not None
        assert Reason.STORE_ROLLED_BACK in {one.code for one in context.found()}
        # What the venue has can still be closed.
        await switch.activate(CLOSE)
        assert (await switch.wait_flat(15)).flat
        await switch.deactivate(force=True)
    assert await desk.held() == {}
    await desk.exchange.close()


async def test_R19_a_stop_that_comes_while_another_is_released_stands(tmp_path: Path) -> None:
    database = tmp_path / "t.db"
    config = quick(report_wait=0.01)
    async with (
        KillSwitch(None, None, database, config=config) as one,
        KillSwitch(None, None, database, config=config) as two,
    ):
        for turn in range(12):
            await one.activate(HALT, f"first {turn}")

            async def release() -> None:
                try:
                    await one.deactivate(actor="an operator")
                except ReleaseRefused:
                    return

            async def stop(late: int = turn) -> str:
                await asyncio.sleep(0.002 + 0.002 * late)
                return (await two.activate(HALT, f"second {late}")).latch_id

            _, latch_id = await asyncio.gather(release(), stop())
            status = await two.get_status()
            assert latch_id in {latch.id for latch in status.latches}, turn
            await two.deactivate()


async def test_R20_an_exit_after_a_liquidation_opens_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.open(PERP, "0.1")
    await desk.keep_ledger()
    limits = PositionLimits(allowed_symbols=(PERP,), max_position_size=50_000)
    async with (
        desk.switch() as switch,
        CircuitBreaker(None, desk.database) as breaker,
        PositionLimitEnforcer(desk.database, limits=limits) as enforcer,
    ):
        gate = OrderGate(breaker, switch, enforcer, OrderValidator(), desk.exchange)
        await switch.is_active()
        position = Position(PositionKey("paper", "default", PERP), D("0.1"), D(50_000), 1)
        await switch._register.store.write(lambda tx: tx.put_position(position))
        await switch.activate(HALT)
        assert desk.exchange.liquidate(PERP) is not None
        outcome = await gate.submit(Order(PERP, "SELL", "0.1", client_order_id="exit"))
        assert await desk.held() == {}
        assert "FILLED" not in repr(outcome)
        assert "KILL_SWITCH_ACTIVE" not in repr(outcome), "a strictly reducing order is sent"
        found = await desk.exchange.find(PERP, "exit")
        assert found is not None
        assert found.filled == 0
        assert (await switch.get_status()).state is KillState.HALTED
        await switch.deactivate()
    await desk.exchange.close()
