"""The whole object graph on one page: what stands on what, how it starts, and how it ends.

    settings ─▶ clock ─▶ feed ─▶ board ─▶ exchange ─┐
    database ─▶ breaker, kill switch, limits ─▶ gate ┴▶ orchestrator ◀─ strategy

A process starts by recovering, trades until a stop, then keeps watching until it is told to
end. Nothing here decides about an order.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

import structlog

from tinywindow.data_folder import claim_folder
from tinywindow.exchanges.paper import PaperConfig, PaperExchange, PriceBoard
from tinywindow.market.candles import CandleFile, read_candles
from tinywindow.market.clock import MarketClock, SystemClock
from tinywindow.market.feed import Feed, Moment
from tinywindow.market.replay import ReplayFeed
from tinywindow.market.simulated import SimulatedFeed
from tinywindow.orchestrator import Orchestrator
from tinywindow.run_report import RunReport
from tinywindow.safety.domain.audit import utc_text
from tinywindow.safety.domain.money import to_decimal
from tinywindow.safety.domain.order import DEFAULT_ACCOUNT
from tinywindow.safety.errors import ConfigurationError, StoreUnavailable
from tinywindow.safety.ports import Clock
from tinywindow.safety.services.location import locate
from tinywindow.safety.services.times import from_ms
from tinywindow.settings import DATABASE_FILE, PAPER_VENUE, RunOptions, Settings
from tinywindow.strategies.registry import make_strategy

__all__ = ["Runtime", "build", "run_until_end"]

PAPER_BOOK: Final = "paper.db"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Runtime:
    """Everything that one `tinywindow run` is made of."""

    options: RunOptions
    clock: Clock
    feed: Feed
    board: PriceBoard
    exchange: PaperExchange
    orchestrator: Orchestrator
    report: RunReport

    async def tell_venue(self, moment: Moment) -> None:
        """Bring the paper venue to a moment's prices, and let resting orders fill there."""
        for symbol, price in moment.prices.items():
            self.board.set(symbol, price, moment.at)
        await self.exchange.on_prices(moment.at)

    async def resume(self) -> None:
        """Have a replay go on behind the last moment that its data directory has seen.

        The market's time never goes back: what was marked and traded once is not lived again.
        """
        if not isinstance(self.feed, ReplayFeed):
            return
        context = await self.orchestrator.limits.admitter.open()
        seen_ms = await context.store.read(lambda tx: tx.newest_mark_ms())
        if seen_ms is None:
            return
        for moment in self.feed.skip_to(from_ms(seen_ms)):
            self.orchestrator.remember(moment)
            for symbol, price in moment.prices.items():
                self.board.set(symbol, price, moment.at)
        self.report.say(f"the replay goes on behind {utc_text(from_ms(seen_ms))}")

    async def may_trade(self) -> str | None:
        """None when trading is allowed, else what stands in its way."""
        kill_switch = self.orchestrator.kill_switch
        if await kill_switch.is_active():
            status = await kill_switch.get_status()
            return f"kill switch: {status.reason or status.state.value}"
        if self.orchestrator.circuit_breaker.is_halted:
            return self.orchestrator.circuit_breaker.halt_reason or "circuit breaker"
        if await self.orchestrator.is_stopped():
            return "trading is stopped until an operator starts it"
        return None

    async def work(self) -> None:
        """Trade while it is allowed, and watch the market while it is not, to the feed's end."""
        while not self.orchestrator.finished:
            obstacle = await self.may_trade()
            if obstacle is None:
                self.report.resumed(self.clock.now())
                await self.orchestrator.run()
            else:
                self.report.halted(self.clock.now(), obstacle)
                await self.orchestrator.observe()


def build(settings: Settings, options: RunOptions, report: RunReport) -> Runtime:
    """Build the object graph; nothing is opened and nothing runs yet.

    Raises:
        ConfigurationError: an option names what does not exist, or the data directory belongs
            to a run of another kind.
    """
    if options.live is not None:
        raise ConfigurationError("live venues are not part of this version yet: leave out --live")
    if options.replay and settings.sqlite_path != settings.data_dir / DATABASE_FILE:
        raise ConfigurationError(
            "a replay writes on the market's time, and so to a database of its own: "
            "leave out `database`, and name its directory with --data-dir"
        )
    claim_folder(settings.data_dir, replay=options.replay)
    clock, feed = _market(settings, options)
    board = PriceBoard()
    exchange = PaperExchange(
        settings.data_dir / PAPER_BOOK,
        board,
        clock=clock,
        name=settings.run.venue,
        opening_cash=to_decimal(settings.run.balance),
        config=_paper_config(settings),
        rng=Random(settings.run.seed),  # play money's chance, no secret
        sleep=_at_once if options.replay else asyncio.sleep,
    )
    location = locate(settings.db_connection, data_dir=settings.data_dir)
    if options.replay:
        location = replace(location, wall=SystemClock())
    orchestrator = Orchestrator(
        # What rings for trading is not a replay's to hear, and still less to ring.
        None if options.replay else settings.redis,
        {exchange.name: exchange},
        location,
        strategy=make_strategy(options.strategy or settings.run.strategy, feed.symbols),
        feed=feed,
        clock=clock,
        prices=board,
        breaker_config=settings.circuit_breaker,
        kill_config=settings.kill_switch,
        limits=None if options.adopt_limits else settings.position_limits,
        change_limits=options.change_limits,
        account=_account(settings),
        pause_s=0 if options.replay else settings.run.cycle_interval,
    )
    runtime = Runtime(options, clock, feed, board, exchange, orchestrator, report)
    orchestrator.before_cycle = runtime.tell_venue
    orchestrator.on_cycle = report.cycle
    return runtime


def _paper_config(settings: Settings) -> PaperConfig:
    """What the settings say of the paper venue; its costs and rules are its own."""
    paper = settings.paper
    return PaperConfig(
        latency_s=paper.latency,
        latency_jitter_s=paper.latency_jitter,
        reject_chance=paper.reject_chance,
        limit_partial_chance=paper.limit_partial_chance,
        market_partial_chance=paper.market_partial_chance,
    )


def _account(settings: Settings) -> str:
    """Whose equity is marked: accounts that share a database are added up, not mixed up."""
    venue = settings.run.venue
    return DEFAULT_ACCOUNT if venue == PAPER_VENUE else venue


def _market(settings: Settings, options: RunOptions) -> tuple[Clock, Feed]:
    speed = None if options.speed is None else float(options.speed)
    if options.replay:
        files = [read_candles(path, options.symbol) for path in options.replay]
        clock = MarketClock(from_ms(_first_close_ms(files)))
        return clock, ReplayFeed(files, clock=clock, speed=speed)
    system = SystemClock()
    feed = SimulatedFeed(
        settings.run.scenario,
        seed=settings.run.seed,
        clock=system,
        symbols=tuple(settings.run.symbols),
        step_s=settings.run.cycle_interval,
    )
    return system, feed


def _first_close_ms(files: Sequence[CandleFile]) -> int:
    return min(file.bars[0].timestamp_ms + file.interval_ms - 1 for file in files if file.bars)


async def _at_once(_seconds: float) -> None:
    """A replay's venue answers at once: its market stands still meanwhile."""


async def run_until_end(runtime: Runtime) -> None:
    """Recover, trade and watch until the feed ends or the process is told to; then shut down.

    Raises:
        LimitsDiffer: the store holds other limits than the settings.
        StoreUnavailable: the store cannot be opened.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, ended.set)
    try:
        await _work_until(ended, runtime)
    finally:
        try:
            await runtime.orchestrator.close()
        finally:
            # Last: a second Ctrl-C must not tear down what settles orders and sees a close through.
            for name in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(name)


async def _work_until(ended: asyncio.Event, runtime: Runtime) -> None:
    working = asyncio.create_task(_start_and_work(runtime), name="trading")
    waiting = asyncio.create_task(ended.wait(), name="told-to-end")
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    for task in (working, waiting):
        if not task.done():
            task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    with contextlib.suppress(asyncio.CancelledError):
        await waiting


async def _start_and_work(runtime: Runtime) -> None:
    await runtime.resume()
    await runtime.orchestrator.start()
    while True:
        try:
            await runtime.work()
        except StoreUnavailable as error:
            # The gate refuses meanwhile; the loop looks again until the store is back.
            log.error("store_unavailable", error=str(error))
            await asyncio.sleep(1)
            continue
        break
    if not runtime.options.exit_at_end:
        runtime.report.say("The market data ended; waiting until told to end (Ctrl-C).")
        await asyncio.Event().wait()
