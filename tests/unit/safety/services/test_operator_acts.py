"""An operator's acts on the breaker beside a reset: retiring an account that is marked no more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from breaker_world import World

from tinywindow.safety.domain.breaker_documents import nav_state
from tinywindow.safety.domain.equity_jump import watches_of
from tinywindow.safety.domain.order import Order
from tinywindow.safety.errors import ResetRefused
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.kill_switch import KillSwitch

BTC = "BTC/USDT"
WHO = ("Ada", "the account was closed at the venue")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
async def breaker(world: World) -> AsyncIterator[CircuitBreaker]:
    """Two accounts, one of which went silent a minute ago; trading is stopped."""
    async with world.breaker() as breaker:
        await breaker.record_equity(10_000)
        await breaker.record_equity(5_000, account="gone")
        await breaker.record_equity(9_250)
        await stop(world)
        world.clock.advance(61)
        await breaker.record_equity(9_250)
        yield breaker


async def stop(world: World) -> None:
    async with KillSwitch(None, (), world.database, clock=world.clock) as switch:
        await switch.stop_trading(actor="test")


async def test_a_silent_account_is_retired_and_no_metric_moves(
    world: World, breaker: CircuitBreaker
) -> None:
    before = (await breaker.check_all_metrics()).metrics
    assert before["drawdown"].state == "UNKNOWN"

    await breaker.retire_account("gone", *WHO)

    after = await breaker.check_all_metrics()
    assert after.trip is None
    assert after.metrics["drawdown"].state == "OK"
    assert after.metrics["drawdown"].value == after.metrics["daily_pnl"].value == -5
    (row,) = await world.rows("ACCOUNT_RETIRED")
    data = json.loads(row)
    assert (data["account"], data["equity"], data["portfolio"]) == ("gone", "5000", "9250")
    assert data["reason"] == WHO[1]
    assert set(nav_state(await world.documents()).accounts) == {"default"}


async def test_another_process_that_was_behind_sees_neither_loss_nor_gain(world: World) -> None:
    """Its own walk would count the retired account on, and dilute what is lost after."""
    async with world.breaker() as breaker, world.process() as other:
        await breaker.record_equity(10_000)
        await breaker.record_equity(90_000, account="gone")
        await other.check_all_metrics()
        await stop(world)
        world.clock.advance(61)
        await breaker.record_equity(10_000)
        await breaker.retire_account("gone", *WHO)
        # Recorded without a breaker: only the walk of the next check sees the low.
        async with world.enforcer() as enforcer:
            await enforcer.record_equity(8_000)
            world.clock.advance(1)
            await enforcer.record_equity(10_000)
        status = await other.check_all_metrics()
        assert status.trip is not None
        assert status.trip.metric == "daily_pnl"
        assert Decimal(status.trip.value) == -20


async def test_an_account_that_comes_back_is_a_new_one(
    world: World, breaker: CircuitBreaker
) -> None:
    await breaker.retire_account("gone", *WHO)
    assert "gone" not in watches_of((await world.documents())["equity_watch"])
    await breaker.record_equity(50_000, account="gone")
    assert (await breaker.check_all_metrics()).metrics["drawdown"].value == -5


async def test_an_account_that_is_not_empty_or_not_silent_stays(
    world: World, breaker: CircuitBreaker
) -> None:
    async with world.enforcer() as enforcer:
        await enforcer.set_reference_price(BTC, 100)
        await enforcer.set_position(BTC, 1, 100, account="gone")
        await refused(breaker, "gone", "holds a position in BTC/USDT")
        await enforcer.set_position(BTC, 0, 100, account="gone")
        await enforcer.set_position(BTC, 1, 100)
        await breaker.record_equity(5_000, account="gone")
        asked = await enforcer.check_order_allowed(Order(BTC, "BUY", 1, account="gone"))
        assert asked.allowed
        await refused(breaker, "gone", "has not ended")
        await enforcer.release(asked.client_order_id)
        await refused(breaker, "gone", "was marked within the last 60 s")
        await breaker.record_equity(5_000, account="gone", estimated=True)
        await refused(breaker, "gone", "was marked within the last 60 s")
        await refused(breaker, "nobody", "there is no account 'nobody'")
        world.clock.advance(61)
        await breaker.retire_account("gone", *WHO)
    assert len(await world.rows("ACCOUNT_RETIRED")) == 1


async def test_what_is_not_stopped_or_not_yet_evaluated_is_not_retired(world: World) -> None:
    async with world.breaker() as breaker, world.enforcer() as enforcer:
        await breaker.record_equity(10_000)
        world.clock.advance(61)
        await refused(breaker, "default", "trading must be stopped first")
        await stop(world)
        await enforcer.record_equity(9_999, account="new")
        await refused(breaker, "default", "were not evaluated yet")
        await breaker.check_all_metrics()
        await breaker.retire_account("default", *WHO)


async def refused(breaker: CircuitBreaker, account: str, why: str) -> None:
    with pytest.raises(ResetRefused, match=why):
        await breaker.retire_account(account, *WHO)


@pytest.mark.parametrize("who", [("", "why"), ("who", " ")])
async def test_nobody_and_no_reason_retire_nothing(
    breaker: CircuitBreaker, who: tuple[str, str]
) -> None:
    with pytest.raises(ValueError, match="must be named"):
        await breaker.retire_account("gone", *who)


async def test_a_retirement_survives_a_restart(world: World, breaker: CircuitBreaker) -> None:
    await breaker.retire_account("gone", *WHO)
    async with world.process() as other:
        status = await other.check_all_metrics()
        assert status.metrics["drawdown"].value == -5

        def accounts(tx: Tx) -> set[str]:
            return set(nav_state(tx.book().documents).accounts)

        handle = await other._open()
        assert await handle.store.read(accounts) == {"default"}
