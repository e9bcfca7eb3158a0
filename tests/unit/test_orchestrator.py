"""The orchestrator: the requirement's loop, what ends it, what only pauses it, what it outlives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from loop_world import BTC, ETH, PRICE, Account, Loop, always, buy, running, sell

from tinywindow.safety import KillSwitchMode
from tinywindow.safety.config import PositionLimits
from tinywindow.safety.domain.approval import Approved
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.domain.venue import Placed
from tinywindow.safety.errors import ConfigurationError, LimitsDiffer, VenueUnavailable
from tinywindow.strategies.base import MarketView, Proposal
from tinywindow.testing import Fault

DARK: dict[str, Decimal] = {}


async def test_the_loop_trades_until_the_market_ends(tmp_path: Path) -> None:
    async with running(tmp_path, decide=always(buy(1))) as loop:
        await loop.orchestrator.run()
        assert loop.answers == ["ACCEPTED"] * 5
        assert loop.orchestrator.finished
        assert [proposal for proposal, _ in loop.reports[0].answers] == [buy(1)]
        assert {order.agent_id for order, _ in loop.exchange.sent} == {"scripted"}


async def test_running_without_a_start_recovers_first(tmp_path: Path) -> None:
    loop = Loop(tmp_path, decide=always(buy(1)))
    await loop.orchestrator.run()
    await loop.orchestrator.close()
    assert len(await loop.rows("RECOVERY")) == 1
    assert loop.answers == ["ACCEPTED"] * 5


async def test_the_strategy_is_shown_what_it_may_know(tmp_path: Path) -> None:
    async with running(tmp_path, decide=always(buy(1))) as loop:
        await loop.orchestrator.run()
        view = loop.strategy.views[2]
        assert view.positions == {BTC: 2}
        assert view.closes[BTC] == (PRICE,) * 3
        assert view.equity == 10_000
        assert view.capacity[BTC].buy == 98
        assert view.rules[ETH].symbol == ETH


async def test_a_latch_ends_trading_and_the_market_is_still_observed(tmp_path: Path) -> None:
    async with running(tmp_path, decide=always(buy(1)), moments=[None] * 9) as loop:
        await loop.orchestrator.execute_cycle()
        await loop.orchestrator.kill_switch.activate(reason="enough")
        await asyncio.wait_for(loop.orchestrator.run(), 10)
        assert loop.market.told == 1
        assert not loop.orchestrator.finished
        report = await loop.orchestrator.observe()
        assert report is not None
        assert (report.equity, report.answers) == (10_000, [])


async def test_a_trip_ends_trading(tmp_path: Path) -> None:
    async with running(tmp_path, decide=always(buy(1)), moments=[None] * 9) as loop:
        await loop.orchestrator.execute_cycle()
        loop.exchange.equity = Decimal(9_000)
        await asyncio.wait_for(loop.orchestrator.run(), 10)
        assert loop.market.told == 2
        assert loop.answers == ["ACCEPTED", "CIRCUIT_BREAKER_TRIPPED"]
        assert loop.orchestrator.circuit_breaker.is_tripped


async def test_the_order_that_would_be_one_too_many_ends_trading(tmp_path: Path) -> None:
    small = buy("0.01")
    async with running(tmp_path, decide=always(*[small] * 20), moments=[None] * 9) as loop:
        await asyncio.wait_for(loop.orchestrator.run(), 30)
        assert loop.answers.count("ACCEPTED") == 50
        assert loop.answers[50] == "TRADE_VELOCITY"
        assert len(loop.exchange.sent) == 50
        assert loop.market.told == 3


async def test_an_operators_stop_ends_trading(tmp_path: Path) -> None:
    async with running(tmp_path, decide=always(buy(1))) as loop:
        await loop.orchestrator.kill_switch.stop_trading(actor="ada")
        await asyncio.wait_for(loop.orchestrator.run(), 10)
        assert (loop.market.told, loop.answers) == (0, [])
        assert await loop.orchestrator.is_stopped()
        await loop.orchestrator.kill_switch.start_trading(actor="ada")
        await loop.orchestrator.run()
        assert loop.answers == ["ACCEPTED"] * 5


async def test_the_loop_can_be_run_again_once_all_is_clear(tmp_path: Path) -> None:
    async with running(tmp_path, decide=always(buy(1))) as loop:
        switch = loop.orchestrator.kill_switch
        await switch.activate(reason="enough")
        await loop.orchestrator.run()
        await switch.deactivate(actor="ada", reason="looked")
        await loop.orchestrator.run()
        assert loop.market.told == 0
        await switch.start_trading(actor="ada")
        await loop.orchestrator.run()
        assert loop.answers == ["ACCEPTED"] * 5


async def test_a_metric_that_is_unknown_pauses_and_does_not_end(tmp_path: Path) -> None:
    moments = [None] * 100
    async with running(tmp_path, decide=always(buy("0.1")), moments=moments) as loop:
        await loop.orchestrator.execute_cycle()
        loop.exchange.break_down("account", Fault.FAIL)
        run = asyncio.create_task(loop.orchestrator.run())
        while loop.market.told < 70 and not run.done():
            await asyncio.sleep(0.001)
        assert loop.orchestrator.circuit_breaker.halt_code in {
            Reason.METRIC_UNKNOWN,
            Reason.MONITOR_STALE,
        }
        sent = len(loop.exchange.sent)
        loop.exchange.break_down("account", None)
        await asyncio.wait_for(run, 30)
        assert len(loop.exchange.sent) > sent
        assert loop.orchestrator.finished


async def test_a_database_that_is_away_pauses_and_does_not_end(tmp_path: Path) -> None:
    async with running(tmp_path, decide=always(buy("0.1")), moments=[None] * 12) as loop:
        await loop.orchestrator.execute_cycle()
        loop.database.rename(tmp_path / "gone")
        run = asyncio.create_task(loop.orchestrator.run())
        while loop.market.told < 6 and not run.done():
            await asyncio.sleep(0.001)
        assert loop.answers == ["ACCEPTED"]
        assert not run.done()
        (tmp_path / "gone").rename(loop.database)
        await asyncio.wait_for(run, 30)
        assert len(loop.answers) > 1


async def test_a_feed_outage_trades_nothing_on_old_prices(tmp_path: Path) -> None:
    moments = [None, *[DARK] * 8, None]
    async with running(tmp_path, decide=always(buy("0.1")), moments=moments) as loop:
        await loop.orchestrator.run()
        # Five seconds a price is fresh.
        assert loop.answers[:6] == ["ACCEPTED"] * 6
        assert loop.answers[6:9] == ["PRICE_UNAVAILABLE"] * 3
        assert loop.answers[9] == "ACCEPTED"


async def test_a_refused_proposal_means_hold_and_the_next_one_is_asked(tmp_path: Path) -> None:
    async with running(tmp_path, decide=always(buy(1_000), buy(1)), moments=[None]) as loop:
        await loop.orchestrator.run()
        assert loop.answers == ["POSITION_SIZE", "ACCEPTED"]


async def test_a_strategy_that_fails_holds_and_the_breaker_counts_it(tmp_path: Path) -> None:
    def fail(number: int, _view: MarketView) -> Sequence[Proposal]:
        if number < 3:
            raise RuntimeError("a bug")
        return (buy(1),)

    async with running(tmp_path, decide=fail) as loop:
        await loop.orchestrator.run()
        assert loop.answers == ["ACCEPTED"] * 3
        status = await loop.orchestrator.circuit_breaker.check_all_metrics()
        assert status.metrics["error_rate"].state.value == "OK"


async def test_a_strategy_that_goes_on_failing_trips(tmp_path: Path) -> None:
    def fail(_number: int, _view: MarketView) -> Sequence[Proposal]:
        raise RuntimeError("a bug")

    async with running(tmp_path, decide=fail, moments=[None] * 30) as loop:
        await asyncio.wait_for(loop.orchestrator.run(), 30)
        assert loop.market.told == 20
        assert (loop.orchestrator.circuit_breaker.halt_reason or "").startswith("ERROR_RATE")


@pytest.mark.parametrize("method", ["account", "positions", "market"])
async def test_a_venue_that_is_away_for_a_moment_costs_a_cycle_and_no_more(
    tmp_path: Path, method: str
) -> None:
    async with running(tmp_path, decide=always(buy(1)), moments=[None] * 3) as loop:
        loop.exchange.fault(method, Fault.FAIL)
        await loop.orchestrator.run()
        assert len(loop.reports) == 3
        assert loop.answers == ["ACCEPTED"] * 2


async def test_a_venue_that_cannot_be_told_the_moment_costs_a_cycle(tmp_path: Path) -> None:
    async with running(tmp_path, decide=always(buy(1)), moments=[None] * 3) as loop:
        failing = [True, False, False]

        async def tell(_moment: object) -> None:
            if failing.pop(0):
                raise VenueUnavailable("the book is locked")

        loop.orchestrator.before_cycle = tell
        await loop.orchestrator.run()
        assert [report.equity for report in loop.reports] == [None, 10_000, 10_000]
        assert loop.answers == ["ACCEPTED"] * 2


async def test_orders_that_rest_or_are_unknown_are_settled_in_later_cycles(tmp_path: Path) -> None:
    def once(number: int, _view: MarketView) -> Sequence[Proposal]:
        return (buy(2),) if number == 1 else ()

    async with running(tmp_path, decide=once) as loop:
        loop.exchange.fault("place", Fault.LOST)
        await loop.orchestrator.run()
        assert loop.answers == ["UNKNOWN"]
        assert loop.exchange.calls["place"] == 1
        assert loop.strategy.views[1].capacity[BTC].buy == 98


async def test_a_process_that_restarts_tripped_stays_halted(tmp_path: Path) -> None:
    async with running(tmp_path) as loop:
        loop.exchange.equity = Decimal(8_000)
        await loop.orchestrator.run()
        assert loop.orchestrator.circuit_breaker.is_tripped
    async with running(tmp_path, decide=always(buy(1))) as again:
        await asyncio.wait_for(again.orchestrator.run(), 10)
        assert (again.market.told, again.exchange.sent) == (0, ())
        assert again.orchestrator.circuit_breaker.is_tripped


async def test_a_process_that_restarts_latched_stays_halted(tmp_path: Path) -> None:
    async with running(tmp_path) as loop:
        await loop.orchestrator.kill_switch.activate(reason="enough")
    async with running(tmp_path, decide=always(buy(1))) as again:
        await asyncio.wait_for(again.orchestrator.run(), 10)
        assert (again.market.told, again.exchange.sent) == (0, ())


async def test_a_process_with_other_limits_does_not_start(tmp_path: Path) -> None:
    async with running(tmp_path, limits=PositionLimits(max_leverage=3)):
        pass
    loop = Loop(tmp_path, limits=PositionLimits(max_leverage=4))
    with pytest.raises(LimitsDiffer):
        await loop.orchestrator.start()
    await loop.orchestrator.close()
    async with running(tmp_path) as adopting:
        assert adopting.orchestrator.limits.admitter.limits.max_leverage == 3


async def test_shutting_down_settles_what_is_under_way(tmp_path: Path) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Account):
        async def place(self, approved: Approved) -> Placed:
            placed = await super().place(approved)
            reached.set()
            await go_on.wait()
            return placed

    venue = Slow()
    loop = Loop(tmp_path, decide=always(buy(1)), exchange=venue)
    await loop.orchestrator.start()
    run = asyncio.create_task(loop.orchestrator.run())
    await reached.wait()
    run.cancel()
    await asyncio.wait({run})
    closing = asyncio.create_task(loop.orchestrator.close())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closing.done()
    go_on.set()
    await asyncio.wait_for(closing, 10)
    assert len(await loop.rows("ORDER_OUTCOME")) == 1
    assert venue.closed


async def test_closing_goes_on_where_one_part_cannot_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path)
    await loop.orchestrator.start()
    switch = loop.orchestrator.kill_switch
    close = switch.close

    async def fail() -> None:
        await close()
        raise RuntimeError("a bug")

    monkeypatch.setattr(switch, "close", fail)
    with pytest.raises(RuntimeError):
        await loop.orchestrator.close()
    assert loop.exchange.closed
    assert loop.orchestrator.limits.opened is None


async def test_a_closing_stop_ends_trading_and_closes(tmp_path: Path) -> None:
    async with running(tmp_path, decide=always(buy(1)), moments=[None] * 9) as loop:
        await loop.orchestrator.execute_cycle()
        loop.clock.move_to(loop.clock.now())
        activate = asyncio.create_task(
            loop.orchestrator.kill_switch.activate(KillSwitchMode.CLOSE_POSITIONS, "flat, now")
        )
        while loop.exchange.position(BTC) != 0:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(loop.orchestrator.run(), 10)
        assert loop.market.told == 1
        await loop.orchestrator.kill_switch.deactivate(actor="ada", reason="x", force=True)
        activate.cancel()
        await asyncio.wait({activate})


def test_an_exchange_goes_by_its_own_name(tmp_path: Path) -> None:
    from tinywindow.orchestrator import Orchestrator

    loop = Loop(tmp_path)
    given = {"strategy": loop.strategy, "feed": loop.market, "clock": loop.clock}
    with pytest.raises(ConfigurationError, match="'main' calls itself 'scripted'"):
        Orchestrator(None, {"main": loop.exchange}, loop.database, **given)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="none to trade on"):
        Orchestrator(None, {}, loop.database, **given)  # type: ignore[arg-type]


async def test_an_exit_is_proposed_and_sent_like_any_other_order(tmp_path: Path) -> None:
    def in_and_out(number: int, _view: MarketView) -> Sequence[Proposal]:
        return (buy(1),) if number == 1 else (sell(1),)

    async with running(tmp_path, decide=in_and_out, moments=[None] * 3) as loop:
        await loop.orchestrator.run()
        assert loop.answers == ["ACCEPTED", "ACCEPTED", "INSUFFICIENT_POSITION"]
