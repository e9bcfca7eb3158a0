"""A small trading desk for the tests of gate and limits: one database, one scripted venue."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from breaker_world import FakeClock

from tinywindow.safety.config import CircuitBreakerConfig, PositionLimits
from tinywindow.safety.domain.approval import Approved
from tinywindow.safety.domain.audit import AuditRow
from tinywindow.safety.domain.order import Order, PositionKey
from tinywindow.safety.domain.records import Hold
from tinywindow.safety.domain.venue import Placed
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.gate import OrderGate
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.order_validator import OrderValidator
from tinywindow.safety.services.outcome import Outcome, Refused
from tinywindow.safety.services.position_limits import PositionLimitEnforcer
from tinywindow.testing import ScriptedExchange

BTC, ETH, SOL = "BTC/USDT", "ETH/USDT", "SOL/USDT"
PERP = "BTC/USDT:USDT"
PRICE = 100
EQUITY = 10_000
SYMBOLS = (BTC, ETH, SOL, PERP)

Hook = Callable[[Approved], Awaitable[None]]


class Venue(ScriptedExchange):
    """A scripted venue that may be interrupted between an approval and its send."""

    hook: Hook | None = None

    async def place(self, approved: Approved) -> Placed:
        if self.hook is not None:
            await self.hook(approved)
        return await super().place(approved)


def limits(**changes: object) -> PositionLimits:
    """The default limits, with a perpetual on the whitelist."""
    given: dict[str, Any] = {"allowed_symbols": SYMBOLS, **changes}
    return PositionLimits(**given)


@dataclass
class Desk:
    """Everything that an order passes, on one database."""

    clock: FakeClock
    exchange: Venue
    breaker: CircuitBreaker
    kill_switch: KillSwitch
    limits: PositionLimitEnforcer
    gate: OrderGate

    async def fund(self, equity: object = EQUITY, **prices: object) -> None:
        """A mark, a fresh price for every symbol, and a check: what an entry needs."""
        await self.breaker.record_equity(equity)
        await self.reprice(PRICE)
        await self.breaker.check_all_metrics()

    async def reprice(self, price: object) -> None:
        await self.limits.set_reference_prices(dict.fromkeys(SYMBOLS, price))

    async def refresh(self) -> None:
        """After the clock moved: the same equity, prices and check anew."""
        await self.fund()

    async def buy(self, amount: object = 1, **terms: object) -> Outcome | Refused:
        return await self.gate.submit(order("BUY", amount, **terms))

    async def sell(self, amount: object = 1, **terms: object) -> Outcome | Refused:
        return await self.gate.submit(order("SELL", amount, **terms))

    async def have(self, amount: object, symbol: str = BTC, *, read: bool = True) -> None:
        """A position, at the venue and in the ledger."""
        self.exchange.set_position(symbol, amount)
        await self.limits.set_position(symbol, amount, PRICE)
        if not read:
            self.clock.advance(30)
            await self.refresh()

    @property
    def context(self) -> SafetyContext:
        opened = self.limits.opened
        assert opened is not None
        return opened

    async def read(self, look: Callable[[Tx], Any]) -> Any:
        return await self.context.store.read(look)

    async def rows(self, event: str | None = None) -> tuple[AuditRow, ...]:
        found: tuple[AuditRow, ...] = await self.read(
            lambda tx: tx.audit_rows(limit=100_000, event_type=event)
        )
        return found

    async def data(self, event: str) -> list[dict[str, Any]]:
        return [json.loads(row.data) for row in await self.rows(event)]

    async def hold(self, order_id: str) -> Hold:
        found: Hold | None = await self.read(lambda tx: tx.hold(order_id))
        assert found is not None
        return found

    async def position(self, symbol: str = BTC) -> Decimal:
        key = PositionKey(self.exchange.name, "default", symbol)
        amount: Decimal = await self.read(lambda tx: tx.book().position_amount(key))
        return amount

    async def velocity(self) -> Decimal:
        status = await self.breaker.check_all_metrics()
        value = status.metrics["trade_velocity"].value
        assert value is not None
        return value

    def sent(self) -> list[str]:
        return [placed.client_order_id for placed, _ in self.exchange.sent]


def order(side: str, amount: object = 1, symbol: str = BTC, **terms: object) -> Order:
    given: dict[str, Any] = dict(terms)
    if "price" in given:
        given.setdefault("type", "LIMIT")
    return Order(symbol, side, amount, **given)


def code(answer: Outcome | Refused) -> str:
    """The reason of a refusal, or the status of an outcome."""
    return answer.reason_code.value if isinstance(answer, Refused) else answer.status


def codes(answer: Outcome | Refused) -> list[str]:
    assert isinstance(answer, Refused)
    return [breach.code.value for breach in answer.breaches]


@contextlib.asynccontextmanager
async def opened(
    folder: Path,
    *,
    funded: bool = True,
    bell: object = None,
    exchange: Venue | None = None,
    position_limits: PositionLimits | None = None,
    clock: FakeClock | None = None,
    prices: object = None,
    validator: OrderValidator | None = None,
    database: object = None,
    **breaker: object,
) -> AsyncIterator[Desk]:
    """A desk with equity and fresh prices, unless it is to be opened bare."""
    clock = clock or FakeClock()
    where = database or folder / "tinywindow.db"
    config = CircuitBreakerConfig(**breaker) if breaker else None  # type: ignore[arg-type]
    venue = exchange or Venue()
    guard = CircuitBreaker(None, where, config, clock=clock)
    switch = KillSwitch(bell, None, where, clock=clock)
    enforcer = PositionLimitEnforcer(
        where,
        limits=position_limits or limits(),
        clock=clock,
        prices=prices,  # type: ignore[arg-type]
    )
    gate = OrderGate(guard, switch, enforcer, validator or OrderValidator(), venue)
    desk = Desk(clock, venue, guard, switch, enforcer, gate)
    try:
        if funded:
            # Its account is on record, as after a start: what fails later is no first contact.
            await gate.account.claim(await enforcer.admitter.open())
            await desk.fund()
        yield desk
    finally:
        await gate.settled()
        await switch.close()
        await enforcer.close()
        await guard.close()


def at(clock: FakeClock) -> datetime:
    return clock.now()
