"""The limits over generated books: no approval leaves a sum above its cap, naively recomputed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal as D
from fractions import Fraction as F

from hypothesis import assume, given
from hypothesis import strategies as st

from tinywindow.safety.domain.book import Book, Changes
from tinywindow.safety.domain.limits import (
    EquityView,
    LimitSet,
    check_limits,
    default_quotes,
    newest_price,
)
from tinywindow.safety.domain.order import CheckedOrder, OrderType, PositionKey, Side
from tinywindow.safety.domain.positions import reducible
from tinywindow.safety.domain.records import (
    Head,
    Hold,
    HoldState,
    Position,
    ReferencePrice,
    TradingState,
)
from tinywindow.safety.domain.sectors import sector_of
from tinywindow.safety.domain.symbols import parse_symbol

NOW = 1_700_000_000_000
HEAD = Head(1, 0, TradingState.RUNNING, 0, "0" * 64, 0)
SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT", "BTC/USDT", "XYZ/USDC:USDC")
LIMITS = LimitSet(
    max_position_size=D(1_000),
    max_total_exposure=D(2_500),
    max_leverage=D("2.5"),
    max_sector_exposure_pct=D(50),
    allowed_symbols=frozenset(SYMBOLS),
    price_max_age_ms=5_000,
    equity_max_age_ms=60_000,
    price_collar_pct=D(30),
    reservation_ttl_ms=60_000,
    position_max_age_ms=5_000,
    quote_usd=default_quotes(),
)

amounts = st.decimals(min_value="0.000001", max_value=8, places=6)
prices = st.decimals(min_value=50, max_value=130, places=3)
keys = st.builds(
    PositionKey,
    st.sampled_from(["paper", "other"]),
    st.sampled_from(["default", "second"]),
    st.sampled_from(SYMBOLS),
)


@st.composite
def holds(draw: st.DrawFn) -> Hold:
    price = draw(st.none() | prices)
    amount = draw(amounts)
    return Hold(
        client_order_id=str(draw(st.integers(0, 10**9))),
        key=draw(keys),
        side=draw(st.sampled_from(Side)),
        type=OrderType.MARKET if price is None else OrderType.LIMIT,
        amount=amount,
        price=price,
        state=draw(st.sampled_from([HoldState.HELD, HoldState.WORKING, HoldState.UNKNOWN])),
        created_ms=NOW,
        filled=draw(st.sampled_from([D(0), amount / 2])),
    )


@dataclass(frozen=True)
class World:
    positions: tuple[Position, ...]
    holds: tuple[Hold, ...]
    marks: dict[str, D]
    equity: D
    order: CheckedOrder

    def book(self, held: Iterable[Hold] | None = None) -> Book:
        made = Book(HEAD)
        marks = tuple(ReferencePrice(name, price, NOW) for name, price in self.marks.items())
        made.apply(
            Changes(
                HEAD,
                holds=self.holds if held is None else tuple(held),
                positions=self.positions,
                prices=marks,
            )
        )
        return made

    def codes(self, book: Book | None = None, order: CheckedOrder | None = None) -> list[str]:
        book = self.book() if book is None else book
        breaches, _ = check_limits(
            order or self.order,
            book,
            LIMITS,
            EquityView(self.equity, known=True),
            newest_price(book, None),
            NOW,
        )
        return [breach.code.value for breach in breaches]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    positions = draw(
        st.lists(
            st.builds(
                Position, keys, st.decimals(min_value=-3, max_value=3, places=4), prices, st.just(0)
            ),
            max_size=3,
            unique_by=lambda one: one.key,
        )
    )
    held = draw(st.lists(holds(), max_size=4, unique_by=lambda one: one.client_order_id))
    price = draw(st.none() | prices)
    key = draw(keys)
    order = CheckedOrder(
        symbol=parse_symbol(key.symbol),
        side=draw(st.sampled_from(Side)),
        amount=draw(amounts),
        type=OrderType.MARKET if price is None else OrderType.LIMIT,
        price=price,
        client_order_id="new",
        reduce_only=False,
        decision_id=None,
        agent_id=None,
        venue=key.venue,
        account=key.account,
    )
    marks = {name: draw(prices) for name in SYMBOLS}
    return World(
        tuple(positions), tuple(held), marks, draw(st.sampled_from([D(300), D(2_000)])), order
    )


def naive(world: World) -> dict[str, F]:
    """Every symbol's worst case with the order, from first principles, in fractions."""
    rows = [*world.holds, world.order]
    sums: dict[str, F] = {}
    dearest = {name: F(price) for name, price in world.marks.items()}
    for key in {*(one.key for one in rows), *(one.key for one in world.positions)}:
        position = sum((F(one.amount) for one in world.positions if one.key == key), F(0))
        left = {side: F(0) for side in Side}
        for one in rows:
            if one.key != key:
                continue
            filled = F(one.filled) if isinstance(one, Hold) else F(0)
            left[one.side] += F(one.amount) - filled
            if one.price is not None:
                dearest[key.symbol] = max(dearest[key.symbol], F(one.price))
        worst = max(abs(position + left[Side.BUY]), abs(position - left[Side.SELL]))
        sums[key.symbol] = sums.get(key.symbol, F(0)) + worst
    return {symbol: amount * dearest[symbol] for symbol, amount in sums.items()}


def expected(world: World) -> set[str]:
    """The size rules that the order breaks, from first principles."""
    sums = naive(world)
    whole = sum(sums.values())
    own = world.order.symbol
    sector = sector_of(own.base, {})
    share = sum(
        (amount for name, amount in sums.items() if sector_of(name.split("/")[0], {}) == sector),
        F(0),
    )
    broken = {
        "POSITION_SIZE": sums[own.text] > F(LIMITS.max_position_size),
        "TOTAL_EXPOSURE": whole > F(LIMITS.max_total_exposure),
        "LEVERAGE": whole / F(world.equity) > F(LIMITS.max_leverage),
        "SECTOR_EXPOSURE": share > F(LIMITS.max_total_exposure) / 2,
    }
    return {code for code, is_broken in broken.items() if is_broken}


SIZES = {"POSITION_SIZE", "TOTAL_EXPOSURE", "LEVERAGE", "SECTOR_EXPOSURE"}


@given(worlds())
def test_the_size_rules_are_exactly_the_naive_ones_in_fractions(world: World) -> None:
    found = world.codes()

    assert set(found) & SIZES == expected(world)
    assert len(found) == len(set(found))


@given(worlds())
def test_the_exposure_that_is_told_is_the_naive_one(world: World) -> None:
    book = world.book()
    _, exposure = check_limits(
        world.order, book, LIMITS, EquityView(None, known=False), newest_price(book, None), NOW
    )
    assert {name: F(worth) for name, worth in exposure.symbols.items() if worth} == {
        name: worth for name, worth in naive(world).items() if worth
    }
    assert F(exposure.total) == sum(naive(world).values())
    assert sum(F(one) for one in exposure.sectors.values()) == F(exposure.total)


@given(st.lists(worlds(), min_size=1, max_size=6))
def test_orders_that_pass_one_after_another_never_leave_a_sum_above_its_cap(
    asked: list[World],
) -> None:
    world = replace(asked[0], positions=(), holds=())
    for n, one in enumerate(asked):
        world = replace(world, order=one.order)
        book = world.book()
        strictly = one.order.amount <= reducible(book, one.order.key, one.order.side)
        if strictly or world.codes():
            continue
        assert not expected(world)
        order = one.order
        hold = Hold(f"n{n}", order.key, order.side, order.type, order.amount, order.price,
                    HoldState.HELD, NOW)  # fmt: skip
        world = replace(world, holds=(*world.holds, hold))


@given(worlds(), amounts)
def test_what_is_refused_is_refused_larger_too(world: World, more: D) -> None:
    # Up to zero crossing a larger reduction is safer; what grows the worst case is monotone.
    own = reducible(world.book(), world.order.key, world.order.side)
    assume(world.order.amount > own)
    larger = replace(world.order, amount=world.order.amount + more)
    broken = set(world.codes())

    assert broken <= set(world.codes(order=larger))


@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_holds_is_irrelevant(world: World, random: object) -> None:
    shuffled = list(world.holds)
    shuffle: Callable[[list[Hold]], None] = random.shuffle  # type: ignore[attr-defined]
    shuffle(shuffled)

    assert world.codes(world.book(shuffled)) == world.codes()


@given(worlds())
def test_a_reduction_never_raises_the_worst_case(world: World) -> None:
    for one in world.positions:
        side = Side.SELL if one.amount > 0 else Side.BUY
        order = replace(
            world.order,
            symbol=parse_symbol(one.key.symbol),
            venue=one.key.venue,
            account=one.key.account,
            side=side,
            price=None,
        )
        may = reducible(world.book(), one.key, side)
        reducing = replace(world, order=replace(order, amount=may))
        before = replace(world, order=replace(order, amount=D(0)))

        assert naive(reducing) == naive(before)
