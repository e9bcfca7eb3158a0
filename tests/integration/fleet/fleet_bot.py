"""One bot of a fleet: a host of its own, that shares nothing but PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from tinywindow.safety.config import CircuitBreakerConfig, KillSwitchConfig, PositionLimits
from tinywindow.safety.domain.approval import Approved
from tinywindow.safety.domain.venue import Placed
from tinywindow.safety.errors import ReleaseRefused, SafetyError
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.gate import OrderGate
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.location import Location
from tinywindow.safety.services.order_validator import OrderValidator
from tinywindow.safety.services.outcome import Outcome, Refused
from tinywindow.safety.services.position_limits import PositionLimitEnforcer
from tinywindow.safety.services.reconcile import Reconciler
from tinywindow.testing.scripted_exchange import ScriptedExchange

SYMBOL = "BTC/USDT"
PRICE = 100
FEED_S = 2.0
"""How often each bot looks at its breaker, and the first one feeds the price and the mark."""
SELLS = 6
"""How many units a bot that met the cap sells before it buys again."""


class Stamping(ScriptedExchange):
    """Notes when an order came to its last look: no pause of the machine after it is measured."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.looked_s: dict[str, float] = {}

    async def place(self, approved: Approved) -> Placed:
        at_s = time.monotonic()
        placed = await super().place(approved)
        self.looked_s[approved.order.client_order_id] = at_s
        return placed


@dataclass(frozen=True)
class Place:
    """Where a bot stands: its servers as it reaches them, and its own data directory."""

    database: str
    redis: str
    data_dir: Path


@dataclass
class Bot:
    """One process's worth of parts, as a user of the library joins them."""

    place: Place
    name: str
    cap: int = 10_000_000
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        where = Location(self.place.database, None, self.place.data_dir)
        self.exchange = Stamping(f"venue-{self.name}")
        self.breaker = CircuitBreaker(
            self.place.redis,
            where,
            CircuitBreakerConfig(max_trades_per_hour=10_000_000, monitor_interval=30),
        )
        self.switch = KillSwitch(
            self.place.redis,
            {self.exchange.name: self.exchange},
            where,
            config=KillSwitchConfig(report_wait=3, in_flight_grace=0.3),  # type: ignore[arg-type]
        )
        self.limits = PositionLimitEnforcer(
            where,
            limits=PositionLimits(
                max_position_size=10_000_000,
                max_total_exposure=self.cap,
                max_leverage=1_000,
                max_sector_exposure_pct=100,
                price_max_age=60.0,
            ),
        )
        self.gate = OrderGate(
            self.breaker, self.switch, self.limits, OrderValidator(), self.exchange
        )

    async def feed(self, equity: int = 10_000_000) -> None:
        """A fresh price and a fresh mark."""
        await self.limits.set_reference_price(SYMBOL, PRICE)
        await self.breaker.record_equity(equity)
        await self.breaker.check_all_metrics()

    async def order(self, side: str, amount: str) -> tuple[Outcome | Refused, float]:
        """Ask for an order; gives the answer, and when it came to its last look (0: never)."""
        words = {"symbol": SYMBOL, "side": side, "type": "MARKET", "amount": amount}
        order_id = f"{self.name}-{os.getpid()}-{next(self.numbers)}"
        answer = await self.gate.submit({**words, "client_order_id": order_id})
        return answer, self.exchange.looked_s.pop(order_id, 0.0)

    async def settle_what_is_open(self) -> None:
        """Look up at the venue what became of orders whose outcome could not be booked."""
        context = await self.limits.admitter.open()
        reconciler = Reconciler(self.limits.admitter, self.gate.settler, self.exchange)
        await reconciler.orders(context)

    async def is_clear(self) -> bool:
        return not await self.switch.is_active()

    async def restart_trading(self) -> None:
        """Release what stands and start again, as an operator does."""
        try:
            await self.switch.deactivate(reason="test", actor="operator", force=True)
        except ReleaseRefused:
            # The first write after the database was away may meet the old connection: once more.
            await self.switch.deactivate(reason="test", actor="operator", force=True)
        # A process that rang again just before the release takes its ring back.
        async with asyncio.timeout(20):
            while not await self.is_clear():
                await asyncio.sleep(0.01)
        assert await self.switch.start_trading(actor="operator")

    async def close(self) -> None:
        await self.limits.close()
        await self.switch.close()
        await self.breaker.close()


@contextlib.asynccontextmanager
async def operating(place: Place, *, cap: int = 10_000_000) -> AsyncIterator[Bot]:
    """The operator's own process: it feeds the store, stops, releases and starts."""
    bot = Bot(place, "operator", cap)
    try:
        await bot.feed()
        await bot.switch.is_active()
        yield bot
    finally:
        await bot.close()


@dataclass
class Trader:
    """Orders for as long as the file `go` stands; a line for every answer.

    A line: when it was asked for, when it came to its last look (0: it was not sent), when it was
    answered, the side, and the code of a refusal or `-`.
    """

    bot: Bot
    handle: int

    async def ask(self, side: str, amount: str) -> str:
        asked_s = time.monotonic()
        answer, looked_s = await self.bot.order(side, amount)
        code = str(answer.breaches[0].code) if isinstance(answer, Refused) else "-"
        words = f"{asked_s:.6f} {looked_s:.6f} {time.monotonic():.6f}"
        os.write(self.handle, f"{words} {side} {code}\n".encode())
        if code not in {"-", "TOTAL_EXPOSURE", "POSITION_SIZE"}:
            await asyncio.sleep(0.01)
        return code

    async def tend(self, *, first: bool) -> None:
        """What a running bot does beside its orders, which do not wait for it."""
        while True:
            with contextlib.suppress(SafetyError):
                await (self.bot.feed() if first else self.bot.breaker.check_all_metrics())
            with contextlib.suppress(SafetyError):
                await self.bot.settle_what_is_open()
            await asyncio.sleep(FEED_S)

    async def buy(self) -> None:
        """What a bot does whose strategy wants more than its limits: most of it is refused."""
        await asyncio.gather(self.ask("BUY", "0.0001"), self.too_much(), self.too_much())
        for _ in range(2):
            await asyncio.gather(self.too_much(), self.too_much(), self.too_much())

    async def too_much(self) -> None:
        await self.ask("BUY", "1000000")

    async def buy_up_to_the_cap(self) -> None:
        if await self.ask("BUY", "1") == "TOTAL_EXPOSURE":
            for _ in range(SELLS):
                await self.ask("SELL", "1")

    async def buy_and_sell(self) -> None:
        """So much more is bought than sold that there is something to sell for minutes after."""
        await self.ask("BUY", "1")
        await self.ask("SELL", "0.0001")
        await asyncio.sleep(0.01)


async def _trade(place: Place, name: str, cap: int, how: str, folder: Path) -> None:
    handle = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    trader = Trader(Bot(place, name, cap), handle)
    turn = getattr(trader, how)
    tending = asyncio.create_task(trader.tend(first=name == "w0"))
    parent = os.getppid()
    # Where the tests were killed nobody takes `go` away.
    while (folder / "go").exists() and os.getppid() == parent:
        await turn()
    tending.cancel()
    await asyncio.wait({tending})
    await trader.bot.close()


def trade(place: Place, name: str, cap: int, how: str, folder: Path) -> None:
    """A process of the fleet, to its end."""
    asyncio.run(_trade(place, name, cap, how, folder))
