"""Misuse of the public names: what is no name, no id and no time is refused, and changes nothing.

A name that no order can carry would leave an account behind that nobody ever marks again, and one
that the database cannot hold would be a fault in the middle of a transaction.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from breaker_world import World
from gate_world import BTC, code, opened

from tinywindow.safety.domain.breaker_documents import nav_state
from tinywindow.safety.errors import ResetRefused

NO_NAMES = ("", " ", "a b", "a\nb", "x" * 33, "\ud800", 5, None, ("default",))
NO_LABELS = ("", " ", "d1 ", " d1", "a\nb", "x" * 65, "\ud800", 5, ("a",))
NO_TIMES = ("now", 0, date(2026, 3, 4))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("name", NO_NAMES)
async def test_an_account_that_no_order_could_name_is_never_marked(world: World, name: Any) -> None:
    async with world.breaker() as breaker, world.enforcer() as enforcer:
        for recorder in (breaker, enforcer):
            with pytest.raises(ValueError, match="account is"):
                await recorder.record_equity(1, account=name)
        await breaker.record_equity(10_000)
        status = await breaker.check_all_metrics()
        assert status.metrics["daily_pnl"].value == 0
    assert set(nav_state(await world.documents()).accounts) == {"default"}


@pytest.mark.parametrize("name", NO_NAMES)
async def test_a_position_has_a_venue_and_an_account_with_names(world: World, name: Any) -> None:
    async with world.enforcer() as enforcer:
        with pytest.raises(ValueError, match="account is"):
            await enforcer.set_position(BTC, 1, 100, account=name)
        if name is not None:
            with pytest.raises(ValueError, match="venue is"):
                await enforcer.set_position(BTC, 1, 100, venue=name)
        await enforcer.set_position(BTC, 1, 100)
        assert (await enforcer.capacity(BTC)).sell == 1


@pytest.mark.parametrize("order_id", NO_LABELS)
async def test_an_execution_carries_an_id_or_none(world: World, order_id: Any) -> None:
    async with world.breaker() as breaker:
        with pytest.raises(ValueError, match="client_order_id is"):
            await breaker.record_execution(True, client_order_id=order_id)
        status = await breaker.check_all_metrics()
        assert status.metrics["trade_velocity"].value == 0
        await breaker.record_execution(True, client_order_id="venue/7:a")
        await breaker.record_execution(True, client_order_id=None)


@pytest.mark.parametrize("order_id", [*NO_LABELS, None, "a;b", "never-seen"])
async def test_nothing_is_booked_or_released_under_an_unknown_id(
    world: World, order_id: Any
) -> None:
    async with world.enforcer() as enforcer:
        with pytest.raises(KeyError):
            await enforcer.record_fill(order_id, 1, 100)
        with pytest.raises(KeyError):
            await enforcer.release(order_id)


@pytest.mark.parametrize("moment", NO_TIMES)
async def test_a_time_is_an_aware_datetime(world: World, moment: Any) -> None:
    async with world.breaker() as breaker, world.enforcer() as enforcer:
        for call in (
            lambda: breaker.record_equity(1, at=moment),
            lambda: breaker.record_execution(True, at=moment),
            lambda: enforcer.set_reference_price(BTC, 1, at=moment),
        ):
            if moment == 0:  # falsy, and so the same as no time at all
                continue
            with pytest.raises(ValueError, match="a time needs a time zone"):
                await call()


@pytest.mark.parametrize("kind", ["order", "", None, 5, ["cancel"], {}])
async def test_a_call_is_a_cancel_or_a_decision(world: World, kind: Any) -> None:
    async with world.breaker() as breaker:
        with pytest.raises(ValueError, match="wanted 'cancel' or 'decision'"):
            await breaker.record_call(True, kind=kind)


@pytest.mark.parametrize("who", [(None, "why"), ("who", None), (5, "why"), ("", "why")])
async def test_nobody_confirms_vouches_or_retires(world: World, who: tuple[Any, Any]) -> None:
    async with world.breaker() as breaker:
        await breaker.record_equity(10_000)
        await breaker.record_equity(8_000)
        with pytest.raises(ResetRefused):
            await breaker.reset().confirm(*who, rebaseline=True)
        with pytest.raises(ValueError, match="must be named"):
            await breaker.trust_clock(*who)
        with pytest.raises(ValueError, match="must be named"):
            await breaker.retire_account("default", *who)
        assert breaker.is_tripped


@pytest.mark.parametrize("spoof", ["d1 ", " d1", " ", "d1\n", "d1\u200b", "\u05011", 1, True])
async def test_a_spent_decision_is_not_spent_again_under_a_name_that_looks_the_same(
    tmp_path: Path, spoof: Any
) -> None:
    async with opened(tmp_path) as desk:
        assert code(await desk.buy(1, decision_id="d1")) == "ACCEPTED"
        assert code(await desk.buy(1, decision_id="d1")) == "DUPLICATE_DECISION"
        assert code(await desk.buy(1, decision_id=spoof)) == "VALIDATION_FAILED"
        assert await desk.position() == 1


async def test_equity_of_nothing_lets_no_entry_pass_and_no_flow_hide_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1)
        await desk.fund(0)
        assert code(await desk.buy(1)) == "CIRCUIT_BREAKER_TRIPPED"
        with pytest.raises(ValueError, match="refused until a rebaseline"):
            await desk.breaker.record_equity(10_000, cash_flow=10_000)
        assert code(await desk.buy(1)) == "CIRCUIT_BREAKER_TRIPPED"
        assert code(await desk.sell(1)) == "ACCEPTED"


async def test_a_clock_that_goes_back_grants_no_second_hour_and_no_second_day(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        for _ in range(50):
            assert code(await desk.buy(0.01)) == "ACCEPTED"
        await desk.breaker.record_equity(9_500)
        desk.clock.jump(-7_200)
        assert code(await desk.buy(0.01)) == "CLOCK_UNTRUSTED"
        desk.clock.jump(+2 * 86_400)
        assert code(await desk.buy(0.01)) == "CLOCK_UNTRUSTED"
        status = await desk.breaker.check_all_metrics()
        assert status.metrics["daily_pnl"].value == -5


@pytest.mark.parametrize("side", ["BUY", "SELL"])
async def test_an_exit_on_the_wrong_side_or_for_another_account_is_no_exit(
    tmp_path: Path, side: str
) -> None:
    """A halt is on, so that only what strictly reduces may pass."""
    async with opened(tmp_path) as desk:
        symbol = "BTC/USDT:USDT"
        await desk.have(-2 if side == "SELL" else 2, symbol)
        await desk.kill_switch.activate(reason="halt")
        trade, back = (desk.sell, desk.buy) if side == "SELL" else (desk.buy, desk.sell)
        assert code(await trade(1, symbol=symbol)) == "KILL_SWITCH_ACTIVE"
        assert code(await trade(1, symbol=symbol, reduce_only=True)) == "KILL_SWITCH_ACTIVE"
        assert code(await back(1, symbol=symbol, account="other")) == "KILL_SWITCH_ACTIVE"
        assert code(await back(3, symbol=symbol)) == "KILL_SWITCH_ACTIVE"
        assert code(await back(2, symbol=symbol)) == "ACCEPTED"
        assert desk.exchange.position(symbol) == 0
