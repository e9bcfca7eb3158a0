"""The orchestrator: the requirement's loop, trading through every safety system.

A cycle is: market data, marks, decision, gate, exchange, outcome, breaker. While a latch says
stop the loop is over, and whoever runs it keeps observing: the market is still read and equity
still marked, so that an operator sees what goes on and can start again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import structlog

from tinywindow.market.feed import Feed, Moment
from tinywindow.safety import (
    CircuitBreaker,
    CircuitBreakerConfig,
    KillSwitch,
    KillSwitchConfig,
    Order,
    OrderGate,
    OrderValidator,
    Outcome,
    PositionLimitEnforcer,
    PositionLimits,
    Refused,
    run_circuit_breaker_monitor,
)
from tinywindow.safety.domain.order import DEFAULT_ACCOUNT
from tinywindow.safety.domain.records import TradingState
from tinywindow.safety.domain.venue import MarketRules
from tinywindow.safety.errors import ConfigurationError, DependencyError
from tinywindow.safety.ports import Clock, Exchange, PriceSource
from tinywindow.safety.services.end_task import end_task
from tinywindow.safety.services.recovery import Recovery
from tinywindow.strategies.base import CLOSES_MAX, MarketView, Proposal, Strategy

__all__ = ["CycleReport", "Orchestrator"]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class CycleReport:
    """What one cycle did: the moment it saw, the equity it marked, and each proposal's answer."""

    moment: Moment
    equity: Decimal | None = None
    answers: list[tuple[Proposal, Outcome | Refused]] = field(default_factory=list)


class Orchestrator:
    """Runs one strategy on one exchange, through breaker, kill switch, limits and gate."""

    def __init__(
        self,
        redis: object,
        exchanges: Mapping[str, Exchange],
        db: object,
        *,
        strategy: Strategy,
        feed: Feed,
        clock: Clock,
        prices: PriceSource | None = None,
        breaker_config: CircuitBreakerConfig | None = None,
        kill_config: KillSwitchConfig | None = None,
        limits: PositionLimits | None = None,
        change_limits: bool = False,
        account: str = DEFAULT_ACCOUNT,
        pause_s: float = 1.0,
        new_order_id: Callable[[], str] | None = None,
    ) -> None:
        """Join the parts; nothing is opened before `start`.

        Args:
            redis: a Redis client or URL, or None.
            exchanges: the venues by name; the first is traded on, all are closed by a stop.
            db: an AsyncEngine, a database URL, or the path of an SQLite file.
            strategy: proposes orders; it never sees an exchange.
            feed: the market.
            clock: the clock; a replay's is the market's own.
            prices: where reference prices come from.
            breaker_config: the breaker's thresholds.
            kill_config: the kill switch's bounds.
            limits: the position limits.
            change_limits: put `limits` in force where the store holds others; audited.
            account: whose equity is marked; accounts of one database need different names.
            pause_s: how long the loop waits before it looks again while something is unknown.
            new_order_id: makes client order ids.

        Raises:
            ConfigurationError: there is no exchange, one goes by another name than its own, or
                something else cannot be used.
        """
        name = _traded_on(exchanges)
        self._exchanges = tuple(exchanges.values())
        self.circuit_breaker = CircuitBreaker(redis, db, breaker_config, clock=clock)
        self.kill_switch = KillSwitch(redis, exchanges, db, config=kill_config, clock=clock)
        self.limits = PositionLimitEnforcer(
            db, limits=limits, prices=prices, clock=clock, change_limits=change_limits
        )
        self.exchange = exchanges[name]
        self.gate = OrderGate(
            self.circuit_breaker,
            self.kill_switch,
            self.limits,
            OrderValidator(default_venue=name, new_id=new_order_id),
            self.exchange,
        )
        self.recovery = Recovery(self.gate, self.limits, self.circuit_breaker, account=account)
        self.account = account
        self._strategy = strategy
        self._feed = feed
        self._clock = clock
        self._pause_s = pause_s
        self._closes: dict[str, deque[Decimal]] = {
            symbol: deque(maxlen=CLOSES_MAX) for symbol in feed.symbols
        }
        self._monitor: asyncio.Task[None] | None = None
        self._rules: dict[str, MarketRules] = {}
        self.finished = False
        self.before_cycle: Callable[[Moment], Awaitable[None]] = _told_nobody
        self.on_cycle: Callable[[CycleReport], None] = _nothing

    async def start(self) -> None:
        """Recover: latches, open intents and reservations, positions; start the monitor.

        Raises:
            LimitsDiffer: this process is configured with other limits than the store's.
            StoreUnavailable: the store cannot be opened.
        """
        await self.recovery.run()
        await self.circuit_breaker.ready()
        self._monitor = asyncio.create_task(
            run_circuit_breaker_monitor(self.circuit_breaker), name="circuit-breaker-monitor"
        )

    async def run(self) -> None:
        """Trade until a stop, or the market's end; recover first where nobody has.

        What is merely unknown pauses trading and not the loop: the market is still observed.

        Raises:
            LimitsDiffer: this process is configured with other limits than the store's.
            StoreUnavailable: the store cannot be opened.
        """
        # Start circuit breaker monitor
        if self._monitor is None:
            await self.start()

        while not self.finished:
            # Check kill switch
            if await self.kill_switch.is_active():
                if await self._latched():
                    break
                await self._pause()
                continue

            # Check circuit breaker
            if self.circuit_breaker.is_halted:
                if self.circuit_breaker.is_tripped:
                    break
                await self._pause()
                continue

            # Check whether an operator wants trading
            if await self.is_stopped():
                break

            # Execute trading cycle
            await self.execute_cycle()

    async def is_stopped(self) -> bool:
        """Whether trading waits for an operator to start it, as far as was read; so does any stop.

        Raises:
            StoreUnavailable: the store cannot be opened.
        """
        context = await self.limits.admitter.open()
        return context.store.peek(
            lambda book: book is not None and book.head.trading is TradingState.STOPPED
        )

    async def _latched(self) -> bool:
        """Whether a stop says so, and not merely a store or Redis that cannot be read."""
        status = await self.kill_switch.get_status()
        return status.active and (bool(status.latches) or not status.unknown)

    async def _pause(self) -> None:
        await asyncio.sleep(self._pause_s)
        await self.observe()

    async def execute_cycle(self) -> CycleReport | None:
        """Observe the market, ask the strategy, and take each proposal through the gate."""
        report = await self._observed()
        if report is None:
            return None
        for proposal in await self._decided(report):
            report.answers.append((proposal, await self._submit(proposal)))
        self.on_cycle(report)
        return report

    async def _decided(self, report: CycleReport) -> tuple[Proposal, ...]:
        """What the strategy proposes; nothing where the market is not known, or it fails."""
        if report.equity is None:
            return ()
        try:
            view = await self._view(report, report.equity)
        except DependencyError as error:
            log.warning("view_not_complete", error=str(error))
            return ()
        try:
            return await self._strategy.decide(view)
        except Exception as error:  # noqa: BLE001 - a strategy that fails holds, and is counted
            log.error("strategy_failed", strategy=self._strategy.name, error=repr(error))
            await self._failed_decision()
            return ()

    async def _failed_decision(self) -> None:
        try:
            await self.circuit_breaker.record_call(ok=False, kind="decision")
        except DependencyError as error:
            log.error("decision_not_recorded", error=str(error))

    async def observe(self) -> CycleReport | None:
        """Observe the market and mark equity, without trading; None when the market ended."""
        report = await self._observed()
        if report is not None:
            self.on_cycle(report)
        return report

    def remember(self, moment: Moment) -> None:
        """Note a moment's closes, which the strategy is shown; nothing else follows from it."""
        for symbol, price in moment.prices.items():
            self._closes.setdefault(symbol, deque(maxlen=CLOSES_MAX)).append(price)

    async def _observed(self) -> CycleReport | None:
        moment = await self._feed.next()
        if moment is None:
            self.finished = True
            return None
        self.remember(moment)
        report = CycleReport(moment)
        try:
            await self.before_cycle(moment)
            await self.recovery.settle_working()
            account = await self.exchange.account()
            await self.circuit_breaker.record_market(
                account.equity,
                prices=moment.prices,
                account=self.account,
                at=moment.at,
                estimated=account.estimated,
            )
            # A replay's clock outruns the monitor's, so each cycle reads the state itself.
            await self.circuit_breaker.check_all_metrics()
            if not account.estimated:
                report.equity = account.equity
        except (DependencyError, ValueError) as error:
            # Nothing is traded on a market that could not be marked.
            log.warning("market_not_marked", error=str(error))
        return report

    async def _view(self, report: CycleReport, equity: Decimal) -> MarketView:
        positions = {p.symbol: p.amount for p in await self.exchange.positions()}
        for symbol in self._feed.symbols:
            if symbol not in self._rules:
                self._rules[symbol] = await self.exchange.market(symbol)
        capacity = {symbol: await self.limits.capacity(symbol) for symbol in self._feed.symbols}
        return MarketView(
            at=report.moment.at,
            prices=dict(report.moment.prices),
            closes={symbol: tuple(closes) for symbol, closes in self._closes.items()},
            positions=positions,
            equity=equity,
            capacity=capacity,
            rules=self._rules,
        )

    async def _submit(self, proposal: Proposal) -> Outcome | Refused:
        return await self.gate.submit(
            Order(
                symbol=proposal.symbol,
                side=proposal.side,
                amount=proposal.amount,
                type=proposal.type,
                price=proposal.price,
                agent_id=self._strategy.name,
            )
        )

    async def close(self) -> None:
        """Shut down: settle what is under way, wait for a running close, let go of everything.

        What fails on the way keeps nothing else from being closed, and is raised at the end.
        """
        async with contextlib.AsyncExitStack() as stack:
            for exchange in self._exchanges:
                stack.push_async_callback(exchange.close)
            stack.push_async_callback(self.circuit_breaker.close)
            stack.push_async_callback(self.limits.close)
            stack.push_async_callback(self.kill_switch.close)
            stack.push_async_callback(self._end_monitor)
            stack.push_async_callback(self.gate.settled)

    async def _end_monitor(self) -> None:
        if self._monitor is not None:
            await end_task(self._monitor)


def _traded_on(exchanges: Mapping[str, Exchange]) -> str:
    """The name of the exchange to trade on; each must go by the name that its orders carry."""
    if not exchanges:
        raise ConfigurationError("exchanges: there is none to trade on")
    for given, exchange in exchanges.items():
        if given != exchange.name:
            raise ConfigurationError(f"exchanges: {given!r} calls itself {exchange.name!r}")
    return next(iter(exchanges))


async def _told_nobody(_moment: Moment) -> None:
    """No venue must be told of a moment."""


def _nothing(_report: CycleReport) -> None:
    """Nobody listens."""
