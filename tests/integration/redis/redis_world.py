"""A bot on a real Valkey: everything between an order and a venue that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tinywindow.safety.config import CircuitBreakerConfig, KillSwitchConfig, PositionLimits
from tinywindow.safety.ports import Clock
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.gate import OrderGate
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.order_validator import OrderValidator
from tinywindow.safety.services.outcome import Outcome, Refused
from tinywindow.safety.services.position_limits import PositionLimitEnforcer
from tinywindow.testing.scripted_exchange import ScriptedExchange

SYMBOL = "BTC/USDT"
SOAK = os.environ.get("TW_TEST_PROFILE") == "soak"


def kill_config(**changes: object) -> KillSwitchConfig:
    """As configured by default, but for how long a test waits."""
    fields = {"report_wait": 3, "in_flight_grace": 0.3, "idle_interval": 0.3, "slow_interval": 0.2}
    return KillSwitchConfig(**{**fields, **changes})  # type: ignore[arg-type]


async def eventually(
    check: Callable[[], object], timeout_s: float = 10.0, *, pause_s: float = 0.005
) -> float:
    """Wait until a check, plain or awaitable, says yes; gives how long that took."""
    begun = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while True:
            answer = check()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return time.monotonic() - begun
            await asyncio.sleep(pause_s)


@dataclass
class Bot:
    """One process's worth of parts on one database, an SQLite file mostly, and one Redis."""

    redis: object
    database: object
    kill: KillSwitchConfig = field(default_factory=kill_config)
    exchange: ScriptedExchange = field(default_factory=ScriptedExchange)
    name: str = "a"
    clock: Clock | None = None

    def __post_init__(self) -> None:
        self.numbers = itertools.count()
        self.breaker = CircuitBreaker(
            self.redis,
            self.database,
            CircuitBreakerConfig(max_trades_per_hour=10_000_000, monitor_interval=30),
            clock=self.clock,
        )
        self.switch = KillSwitch(
            self.redis,
            {self.exchange.name: self.exchange},
            self.database,
            config=self.kill,
            clock=self.clock,
        )
        self.limits = PositionLimitEnforcer(
            self.database,
            limits=PositionLimits(price_max_age=60.0),  # type: ignore[arg-type]
            clock=self.clock,
        )
        self.gate = OrderGate(
            self.breaker, self.switch, self.limits, OrderValidator(), self.exchange
        )

    async def feed(self) -> None:
        """A fresh price and a fresh mark."""
        await self.limits.set_reference_price(SYMBOL, 100)
        await self.breaker.record_equity(1_000_000)
        await self.breaker.check_all_metrics()

    async def order(self, side: str = "BUY", amount: str = "0.0001") -> Outcome | Refused:
        return await self.gate.submit(
            {
                "symbol": SYMBOL,
                "side": side,
                "type": "MARKET",
                "amount": amount,
                "client_order_id": f"{self.name}-{os.getpid()}-{next(self.numbers)}",
            }
        )

    async def entry_is_sent(self) -> bool:
        before = len(self.exchange.sent)
        await self.order()
        return len(self.exchange.sent) > before

    async def refused_for(self) -> str:
        """The code that an entry is refused for; a sent one is a failure."""
        answer = await self.order()
        assert isinstance(answer, Refused), answer
        return str(answer.breaches[0].code)

    async def standing(self) -> tuple[str, ...]:
        view = await self.switch._register.view(frozenset(), timeout_s=5)
        return tuple(latch.id for latch in view.standing)

    async def latched(self) -> bool:
        return bool(await self.standing())

    async def restart_trading(self) -> None:
        """Release everything and start again, as an operator does."""
        await self.switch.deactivate(reason="test", actor="operator", force=True)
        # A process that rang again just before the release takes its ring back.
        await eventually(self._is_clear)
        assert await self.switch.start_trading(actor="operator")

    async def _is_clear(self) -> bool:
        return not await self.switch.is_active()

    async def close(self) -> None:
        await self.limits.close()
        await self.switch.close()
        await self.breaker.close()


@contextlib.asynccontextmanager
async def bot_on(
    redis: object,
    database: object,
    *,
    name: str = "a",
    clock: Clock | None = None,
    **changes: object,
) -> AsyncIterator[Bot]:
    bot = Bot(redis, database, kill_config(**changes), name=name, clock=clock)
    try:
        await bot.feed()
        await bot.switch.is_active()
        yield bot
    finally:
        await bot.close()
