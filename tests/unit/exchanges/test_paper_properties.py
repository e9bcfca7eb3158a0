"""What holds at the paper venue for any orders and any prices."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from paper_desk import FREE, PERP, SPOT, START, held, match, place, run, venue

from tinywindow.exchanges.paper import PaperConfig, PlaceFault, ScriptedFaults, discrepancies

amounts = st.integers(1, 400).map(lambda thousandths: Decimal(thousandths) / 1000)
prices = st.integers(100, 200_000).map(Decimal)
sides = st.sampled_from(["BUY", "SELL"])
steps = st.lists(
    st.tuples(
        st.sampled_from([SPOT, PERP]),
        sides,
        amounts,
        prices,
        st.one_of(st.none(), prices),
        st.booleans(),
        st.one_of(st.none(), st.sampled_from(list(PlaceFault))),
    ),
    max_size=12,
)
COSTS = PaperConfig(taker_bps=Decimal("7.5"), limit_partial_chance=0.5, market_partial_chance=0.3)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_cash_cost_and_fills_are_conserved_and_spot_is_never_short(
    story: list[tuple[str, str, Decimal, Decimal, Decimal | None, bool, PlaceFault | None]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        faults = ScriptedFaults().place(*(step[-1] for step in story))
        exchange = venue(Path(directory), config=COSTS, rng=Random(1), faults=faults)
        for number, (symbol, side, amount, price, limit, reducing, _) in enumerate(story):
            exchange.board.set(symbol, price, START + timedelta(seconds=number))
            before = held(exchange).get(symbol, Decimal(0))
            place(
                exchange,
                f"A{number}",
                side,
                str(amount),
                symbol=symbol,
                price=None if limit is None else str(limit),
                reduce_only=reducing,
            )
            after = held(exchange).get(symbol, Decimal(0))
            if reducing:
                assert abs(after) <= abs(before)
                assert after * before >= 0
            match(exchange)
        run(exchange.close())
        assert discrepancies(Path(directory) / "paper.db") == ()


@settings(max_examples=60, deadline=None)
@given(
    side=sides,
    opened=amounts,
    closes=st.lists(st.tuples(amounts, st.one_of(st.none(), prices)), max_size=4),
    path=st.lists(prices, max_size=4),
)
def test_reduce_only_orders_never_grow_or_flip_a_position(
    side: str,
    opened: Decimal,
    closes: list[tuple[Decimal, Decimal | None]],
    path: list[Decimal],
) -> None:
    config = replace(FREE, max_leverage=Decimal(100_000))
    with tempfile.TemporaryDirectory() as directory:
        exchange = venue(Path(directory), config=config)
        place(exchange, "OPEN", side, str(opened), symbol=PERP)
        sizes = [held(exchange)[PERP]]
        opposite = "SELL" if side == "BUY" else "BUY"
        for number, (amount, limit) in enumerate(closes):
            at = None if limit is None else str(limit)
            terms = {"symbol": PERP, "price": at, "reduce_only": True}
            place(exchange, f"C{number}", opposite, str(amount), **terms)
            sizes.append(held(exchange).get(PERP, Decimal(0)))
        for number, price in enumerate(path, start=1):
            exchange.board.set(PERP, price, START + timedelta(seconds=number))
            match(exchange)
            sizes.append(held(exchange).get(PERP, Decimal(0)))
        run(exchange.close())
        assert all(size * sizes[0] >= 0 for size in sizes)
        assert [abs(size) for size in sizes] == sorted((abs(s) for s in sizes), reverse=True)


@settings(max_examples=60, deadline=None)
@given(side=sides, amount=amounts, limit=prices, path=st.lists(prices, min_size=1, max_size=6))
def test_a_limit_order_never_fills_worse_than_its_price(
    side: str, amount: Decimal, limit: Decimal, path: list[Decimal]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        exchange = venue(
            Path(directory), config=replace(COSTS, max_leverage=Decimal(1000)), rng=Random(2)
        )
        place(exchange, "A", side, str(amount), symbol=PERP, price=str(limit))
        for number, price in enumerate(path, start=1):
            exchange.board.set(PERP, price, START + timedelta(seconds=number))
            match(exchange)
        report = run(exchange.find(PERP, "A"))
        run(exchange.close())
        assert report is not None
        if report.average_price is not None:
            better = limit - report.average_price
            assert better >= 0 if side == "BUY" else better <= 0
