"""Calls to one venue, each within its bound, so that a venue that hangs delays only itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from tinywindow.safety.domain.approval import ApprovalVoid, Approved
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.domain.venue import (
    MarketRules,
    OrderReport,
    Placed,
    Unknown,
    VenuePosition,
)
from tinywindow.safety.errors import VenueUnavailable
from tinywindow.safety.ports import Exchange
from tinywindow.safety.services.logs import get_logger

__all__ = ["VenueCalls"]

T = TypeVar("T")

_log = get_logger(__name__)


@dataclass(slots=True)
class VenueCalls:
    """An exchange with a time-out on every call; every fault is `VenueUnavailable`.

    A send is never cancelled: it may have reached the venue. It goes on behind its time-out,
    and its outcome is asked of the venue later.
    """

    exchange: Exchange
    name: str
    timeout_s: float
    _rules: dict[str, MarketRules] = field(default_factory=dict)
    _sends: set[asyncio.Task[Placed]] = field(default_factory=set)

    async def _bounded(self, what: str, call: Coroutine[object, object, T]) -> T:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await call
        except VenueUnavailable:
            raise
        except TimeoutError as fault:
            raise VenueUnavailable(f"{what}: no answer within {self.timeout_s} s") from fault
        except Exception as fault:  # whatever broke, the venue was not read
            raise VenueUnavailable(f"{what}: {type(fault).__name__}: {fault}") from fault

    async def open_orders(self) -> tuple[OrderReport, ...]:
        """Every resting order of the account, trigger orders included."""
        return await self._bounded("open orders", self.exchange.open_orders())

    async def account_id(self) -> str | None:
        """What tells this account from any other at the venue."""
        return await self._bounded("account id", self.exchange.account_id())

    async def positions(self) -> tuple[VenuePosition, ...]:
        """Every position that is not zero."""
        return await self._bounded("positions", self.exchange.positions())

    async def find(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """Look an order up by our id."""
        return await self._bounded(
            f"find {client_order_id}", self.exchange.find(symbol, client_order_id)
        )

    async def cancel(self, symbol: str, client_order_id: str) -> OrderReport | None:
        """Cancel one order."""
        return await self._bounded(
            f"cancel {client_order_id}", self.exchange.cancel(symbol, client_order_id)
        )

    async def rules(self, symbol: str) -> MarketRules:
        """What the venue demands, or the last that was known: a close does not wait for it."""
        try:
            rules = await self._bounded(f"market {symbol}", self.exchange.market(symbol))
        except VenueUnavailable as fault:
            known = self._rules.get(symbol)
            _log.warning("flatten_without_rules", venue=self.name, symbol=symbol, error=str(fault))
            if known is not None:
                return known
            spot = parse_symbol(symbol).is_spot
            return MarketRules(symbol, reduce_only=not spot, spot=spot)
        self._rules[symbol] = rules
        return rules

    async def place(self, approved: Approved) -> Placed:
        """Send one approved order.

        Raises:
            ApprovalVoid: the last look said no; nothing was sent.
        """
        client_order_id = approved.order.client_order_id
        task = asyncio.ensure_future(self.exchange.place(approved))
        self._sends.add(task)
        task.add_done_callback(self._sent)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await asyncio.shield(task)
        except ApprovalVoid:
            raise
        except TimeoutError:
            return Unknown(client_order_id, f"send: no answer within {self.timeout_s} s")
        except Exception as fault:  # noqa: BLE001 - whatever broke, the order may be there
            return Unknown(client_order_id, f"send: {type(fault).__name__}: {fault}")

    def _sent(self, task: asyncio.Task[Placed]) -> None:
        self._sends.discard(task)
        if not task.cancelled():
            task.exception()
