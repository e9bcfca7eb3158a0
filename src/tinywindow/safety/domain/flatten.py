"""Flattening: what to cancel, what to close in which slices, and when a venue is proven flat.

A close strictly reduces: it is sized from the venue's own position less what is in flight, and
never crosses zero. What is below the venue's smallest size is dust: reported, and treated as
closed. Times are whole milliseconds on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tinywindow.safety.domain.kill import KillSwitchMode
from tinywindow.safety.domain.money import EXACT, ZERO
from tinywindow.safety.domain.order import CheckedOrder, OrderType, Side
from tinywindow.safety.domain.symbols import Symbol
from tinywindow.safety.domain.venue import MarketRules, OrderReport, VenuePosition

__all__ = [
    "FLAT_GAP_MS",
    "ClosePlan",
    "FlatProof",
    "Observation",
    "closing_order",
    "orders_to_cancel",
    "plan_close",
]

FLAT_GAP_MS: Final = 1000
"""How far apart the two reads are that prove a venue flat."""
SLICES_MAX: Final = 100
"""Slices planned from one read of a position; what is left is planned from the next."""


@dataclass(frozen=True, slots=True)
class ClosePlan:
    """How to close one position, in base units.

    `wanted` is what of it is ours to close; `slices` what to send now, one after another;
    `dust` what is too small to send; `blocked` why less than `wanted` can be sent now.
    """

    symbol: str
    leg: str
    side: Side
    wanted: Decimal
    slices: tuple[Decimal, ...] = ()
    dust: Decimal = ZERO
    blocked: str | None = None
    reduce_only: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing of the position is left to close."""
        return self.blocked is None and self.wanted == self.dust


def plan_close(
    position: VenuePosition,
    rules: MarketRules,
    *,
    managed: Decimal | None = ZERO,
    in_flight: Decimal = ZERO,
) -> ClosePlan:
    """Plan how to close a position that was just read from the venue.

    Args:
        position: what the venue reports.
        rules: what the venue demands of an order.
        managed: what our ledger manages of it; only spot is bounded by it, so that the owner's
            other coins are never sold. None while the ledger was never read: that is not zero,
            so nothing of a spot balance is sold, and it does not count as closed either.
        in_flight: what orders of ours may still close of it.
    """
    side = Side.SELL if position.amount > 0 else Side.BUY
    size = abs(position.amount)
    if not rules.spot:
        sendable = max(EXACT.subtract(size, in_flight), ZERO)
        return _sliced(position, rules, side, wanted=size, sendable=sendable)
    if position.amount < 0:
        blocked = "a spot balance below zero is a debt, which is not ours to buy back"
        return ClosePlan(position.symbol, position.leg, side, size, blocked=blocked)
    if managed is None:
        blocked = "the ledger cannot be read, so nobody can say how much of it is ours to sell"
        return ClosePlan(position.symbol, position.leg, side, ZERO, blocked=blocked)
    wanted = min(size, max(managed, ZERO))
    free = min(wanted, max(position.available, ZERO))
    sendable = max(EXACT.subtract(free, in_flight), ZERO)
    return _sliced(position, rules, side, wanted=wanted, sendable=sendable)


def _sliced(
    position: VenuePosition, rules: MarketRules, side: Side, *, wanted: Decimal, sendable: Decimal
) -> ClosePlan:
    reduce_only = rules.reduce_only and not rules.spot
    price = position.mark_price
    plan = ClosePlan(position.symbol, position.leg, side, wanted, reduce_only=reduce_only)
    if _too_small(_stepped(wanted, rules), price, rules, waived=reduce_only):
        return _with(plan, dust=wanted)
    amount = _stepped(sendable, rules)
    if _too_small(amount, price, rules, waived=reduce_only):
        return _with(plan, blocked="what is left of it is in flight or not free at the venue")
    return _with(plan, slices=_slices(amount, rules))


def _with(
    plan: ClosePlan,
    *,
    slices: tuple[Decimal, ...] = (),
    dust: Decimal = ZERO,
    blocked: str | None = None,
) -> ClosePlan:
    return ClosePlan(
        plan.symbol, plan.leg, plan.side, plan.wanted, slices, dust, blocked, plan.reduce_only
    )


def _stepped(amount: Decimal, rules: MarketRules) -> Decimal:
    """The amount cut down to the venue's step, never up."""
    step = rules.amount_step
    if step is None or step <= 0:
        return amount
    return EXACT.multiply(EXACT.divide_int(amount, step), step)


def _too_small(amount: Decimal, price: Decimal | None, rules: MarketRules, *, waived: bool) -> bool:
    """Whether the venue cannot take an order of this size; least notionals spare reduce-only."""
    if amount <= 0:
        return True
    if rules.amount_min is not None and amount < rules.amount_min:
        return True
    if waived or rules.notional_min is None or price is None:
        return False
    return EXACT.multiply(amount, price) < rules.notional_min


def _slices(amount: Decimal, rules: MarketRules) -> tuple[Decimal, ...]:
    largest = amount if rules.amount_max is None else _stepped(rules.amount_max, rules)
    if largest <= 0:
        return (amount,)
    slices: list[Decimal] = []
    left = amount
    while left > 0 and len(slices) < SLICES_MAX:
        part = min(left, largest)
        slices.append(part)
        left = EXACT.subtract(left, part)
    if len(slices) > 1:
        # A last slice that would be dust gets what it lacks from the one before, in whole steps.
        smallest = ZERO if rules.amount_min is None else rules.amount_min
        lacking = max(EXACT.subtract(_raised(smallest, rules), slices[-1]), ZERO)
        giver = EXACT.subtract(slices[-2], lacking)
        if giver >= smallest:
            slices[-2:] = [giver, EXACT.add(slices[-1], lacking)]
    return tuple(slices)


def _raised(amount: Decimal, rules: MarketRules) -> Decimal:
    """The amount on the venue's step, rounded up; used only where the sum stays the same."""
    lower = _stepped(amount, rules)
    if lower == amount or rules.amount_step is None:
        return amount
    return EXACT.add(lower, rules.amount_step)


def closing_order(
    symbol: Symbol,
    plan: ClosePlan,
    amount: Decimal,
    *,
    client_order_id: str,
    venue: str,
    account: str,
) -> CheckedOrder:
    """The market order that sends one slice of a plan."""
    return CheckedOrder(
        symbol=symbol,
        side=plan.side,
        amount=amount,
        type=OrderType.MARKET,
        price=None,
        client_order_id=client_order_id,
        reduce_only=plan.reduce_only,
        decision_id=None,
        agent_id=None,
        venue=venue,
        account=account,
    )


def is_spot(symbol: str) -> bool:
    """Whether a unified symbol names a spot market: only contracts name what they settle in."""
    return ":" not in symbol


def orders_to_cancel(
    orders: Iterable[OrderReport],
    mode: KillSwitchMode,
    *,
    known_ids: frozenset[str] = frozenset(),
    managed: Mapping[str, Decimal] | None = None,
) -> tuple[OrderReport, ...]:
    """Which resting orders a stop cancels, the largest first.

    CLOSE_POSITIONS cancels everything of ours. HALT_ONLY spares what protects: reduce-only
    orders, and spot sells as far as the managed balance covers them. While nobody knows what is
    managed, a halt spares every spot sell: none of them can grow a position.

    Args:
        orders: what rests at the venue.
        mode: the mode in force.
        known_ids: orders of ours by the ledger, whatever the venue says of them.
        managed: what the ledger manages, in base units by spot symbol; None is unknown.
    """
    ours = [o for o in orders if o.ours or o.client_order_id in known_ids]
    if mode is KillSwitchMode.HALT_ONLY:
        protective = _protective(managed, ours)
        ours = [order for order in ours if order.client_order_id not in protective]
    return tuple(sorted(ours, key=_cancel_order))


def _cancel_order(order: OrderReport) -> tuple[bool, Decimal, str]:
    price = order.price or order.average_price or ZERO
    value = EXACT.multiply(order.remaining, price)
    return order.reduce_only, -value, order.client_order_id


def _protective(
    managed: Mapping[str, Decimal] | None, orders: Iterable[OrderReport]
) -> frozenset[str]:
    """The ids of the orders that can only shrink what is held."""
    left = {} if managed is None else dict(managed)
    spared: set[str] = set()
    # Stops come first: they guard the balance, where a take-profit only ends it.
    for order in sorted(orders, key=lambda o: (not o.trigger, o.client_order_id)):
        if order.reduce_only:
            spared.add(order.client_order_id)
        elif is_spot(order.symbol) and order.side is Side.SELL:
            held = order.remaining if managed is None else left.get(order.symbol, ZERO)
            if order.remaining <= held:
                left[order.symbol] = EXACT.subtract(held, order.remaining)
                spared.add(order.client_order_id)
    return frozenset(spared)


@dataclass(frozen=True, slots=True)
class Observation:
    """One successful read of a venue: when it began and ended, and what it showed.

    `terminal_ms` is when every intent on the venue was known to have ended, None while one has
    not; `clean` says that neither a position nor an order of ours was left, but dust.
    """

    begun_ms: int
    ended_ms: int
    terminal_ms: int | None
    clean: bool


@dataclass(frozen=True, slots=True)
class FlatProof:
    """How far the proof is that a venue is flat: two clean reads, a second apart."""

    first: Observation | None = None
    proven: bool = False

    def observe(self, seen: Observation | None) -> FlatProof:
        """Take on one read; None is a failed read, which is never flat and starts anew."""
        if seen is None or not seen.clean:
            return FlatProof()
        if seen.terminal_ms is None or seen.begun_ms < seen.terminal_ms:
            return FlatProof()
        if self.first is None or self.first.begun_ms < seen.terminal_ms:
            # What was read while an order of ours could still fill proves nothing any more.
            return FlatProof(first=seen)
        far_enough = seen.begun_ms - self.first.ended_ms >= FLAT_GAP_MS
        return FlatProof(self.first, proven=self.proven or far_enough)
