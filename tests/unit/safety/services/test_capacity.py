"""Capacity: exactly what it says would pass, and a step more would not."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from gate_world import BTC, ETH, PERP, SOL, Desk, limits, opened, order

from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.services.position_limits import PositionLimitEnforcer

STEP = Decimal("0.000000000001")


async def allowed(desk: Desk, side: str, amount: Decimal, symbol: str) -> bool:
    """Whether an order would pass; holds nothing afterwards."""
    result = await desk.limits.check_order_allowed(order(side, amount, symbol))
    if result.allowed and result.client_order_id is not None:
        await desk.limits.release(result.client_order_id)
    return result.allowed


CAPS = {
    Reason.POSITION_SIZE: limits(),
    Reason.TOTAL_EXPOSURE: limits(max_total_exposure=9_000, max_sector_exposure_pct=100),
    Reason.LEVERAGE: limits(max_leverage="0.77"),
    Reason.SECTOR_EXPOSURE: limits(max_sector_exposure_pct=17),
}


@pytest.mark.parametrize("rule", list(CAPS))
@pytest.mark.parametrize("symbol", [BTC, PERP])
@pytest.mark.parametrize("price", ["100", "97.3", "0.003"])
async def test_what_it_says_passes_and_a_step_more_does_not(
    tmp_path: Path, rule: Reason, symbol: str, price: str
) -> None:
    async with opened(tmp_path, position_limits=CAPS[rule]) as desk:
        await desk.have("3.3", symbol)
        await desk.have(2, SOL)
        await desk.limits.check_order_allowed(
            order("BUY", "1.1", symbol, price=Decimal(price) * Decimal("1.02"))
        )
        await desk.reprice(price)
        room = await desk.limits.capacity(symbol)
        assert room.rule is rule
        assert await allowed(desk, "BUY", room.buy, symbol)
        assert not await allowed(desk, "BUY", room.buy + STEP, symbol)
        assert await allowed(desk, "SELL", room.sell, symbol)
        assert not await allowed(desk, "SELL", room.sell + STEP, symbol)


async def test_spot_sells_no_more_than_is_held_and_not_yet_offered(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        assert (await desk.limits.capacity(BTC)).sell == 0
        await desk.have(3)
        await desk.sell(1, price=110)
        assert (await desk.limits.capacity(BTC)).sell == 2


async def test_what_is_not_known_leaves_room_for_exits_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(3)
        assert (await desk.limits.capacity("DOGE/USDT")).rule is Reason.SYMBOL_NOT_ALLOWED
        desk.clock.advance(6)
        room = await desk.limits.capacity(BTC)
        assert (room.buy, room.sell, room.rule) == (0, 3, Reason.PRICE_UNAVAILABLE)
        desk.clock.advance(60)
        await desk.reprice(100)
        room = await desk.limits.capacity(BTC)
        assert (room.buy, room.sell, room.rule) == (0, 3, Reason.LEVERAGE)


async def test_an_excess_leaves_no_room_but_exits(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(101)
        room = await desk.limits.capacity(BTC)
        assert (room.buy, room.sell, room.rule) == (0, 101, Reason.POSITION_SIZE)
        assert (await desk.limits.capacity(ETH)).buy == 100


async def test_a_dear_order_at_another_venue_counts_as_the_limits_count_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.limits.check_order_allowed(order("BUY", 10, PERP, price=104, venue="elsewhere"))
        room = await desk.limits.capacity(PERP)
        assert await allowed(desk, "BUY", room.buy, PERP)
        assert not await allowed(desk, "BUY", room.buy + STEP, PERP)


async def test_asking_for_room_holds_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        before = await desk.rows()
        for _ in range(3):
            await desk.limits.capacity(BTC)
        assert await desk.rows() == before


async def test_no_symbol_is_an_error(tmp_path: Path) -> None:
    async with PositionLimitEnforcer(tmp_path / "tinywindow.db") as enforcer:
        with pytest.raises(ValueError):
            await enforcer.capacity("btc")
