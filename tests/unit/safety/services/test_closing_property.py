"""I14 by property: whatever a venue does, a close only reduces, never flips, and ends proven."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from decimal import Decimal as D
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closing_desk import BTC, ETH, OTHER, PERP, SOL, Desk, placed_twice, quick
from program import SOAK
from tinywindow.exchanges.paper import PaperConfig, ScriptedFaults
from tinywindow.exchanges.paper.faults import CallFault, PlaceFault
from tinywindow.safety.domain import flatten
from tinywindow.safety.domain.venue import MarketRules
from tinywindow.safety.services import venue_closer

CONFIG = quick(
    in_flight_grace=0.02, watch_interval=0.01, report_wait=0.01, idle_interval=0.05,
    slow_interval=0.02,
)  # fmt: skip


@pytest.fixture(autouse=True)
def quick_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second between two reads is shown elsewhere; here it would be most of the time."""
    monkeypatch.setattr(flatten, "FLAT_GAP_MS", 30)
    monkeypatch.setattr(venue_closer, "FLAT_GAP_MS", 30)
    monkeypatch.setattr(venue_closer, "BUSY_PAUSE_S", 0.005)
    monkeypatch.setattr(venue_closer, "BACKOFF_S", 0.005)


def size(most: int, places: int) -> st.SearchStrategy[D]:
    return st.decimals(D(1).scaleb(-places), most, places=places)


place_faults = st.lists(st.sampled_from([None, *PlaceFault]), max_size=12)
call_faults = st.lists(st.sampled_from([None, None, *CallFault]), max_size=6)


@settings(
    max_examples=300 if SOAK else 12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    spot=st.dictionaries(
        st.sampled_from([BTC, ETH, SOL]), st.tuples(size(3, 2), size(3, 2)), max_size=3
    ),
    perps=st.dictionaries(
        st.sampled_from([PERP, OTHER]), st.tuples(size(3, 1), st.booleans()), max_size=2
    ),
    most=st.one_of(st.none(), st.sampled_from([D("0.5"), D(1)])),
    places=place_faults,
    calls=st.dictionaries(
        st.sampled_from(["positions", "open_orders", "cancel", "find", "market"]), call_faults
    ),
    liquidated=st.booleans(),
)
def test_a_close_only_reduces_whatever_the_venue_does(
    spot: dict[str, tuple[D, D]],
    perps: dict[str, tuple[D, bool]],
    most: D | None,
    places: list[PlaceFault | None],
    calls: dict[str, list[CallFault | None]],
    liquidated: bool,
) -> None:
    async def run(folder: Path) -> None:
        script = ScriptedFaults()
        rules = {
            symbol: MarketRules(
                symbol,
                D("0.01"),
                most,
                D("0.01"),
                reduce_only=":" in symbol,
                spot=":" not in symbol,
            )
            for symbol in (*spot, *perps)
        }
        kinds = {symbol: replace(one, amount_max=None) for symbol, one in rules.items()}
        desk = Desk(folder, faults=script, config=PaperConfig(rules=kinds))
        for symbol, (ours, owners) in spot.items():
            await desk.open(symbol, ours + owners, managed=ours)
        for symbol, (amount, short) in perps.items():
            await desk.open(symbol, -amount if short else amount)
        if perps:
            await desk.rest("SETUP-entry", "BUY", next(iter(perps)), "0.1", 100)
        await desk.keep_ledger()
        desk.exchange._config = PaperConfig(rules=rules)
        script.place(*places)
        for method, faults in calls.items():
            script.call(method, faults)
        async with desk.switch(CONFIG, inline=True) as switch:
            await switch.activate("CLOSE_POSITIONS")
            if liquidated:
                for symbol in perps:
                    desk.exchange.liquidate(symbol)
            report = await switch.wait_flat(15)
            assert report.flat, report
            assert desk.misdeeds() == []
            assert placed_twice(desk.book) == []
            for position in report.venues["paper"].positions:
                assert position.filled <= position.sent
                assert position.left == 0 or position.dust
            held = {one.symbol: one.amount for one in await desk.exchange.positions()}
            for symbol, (_, owners) in spot.items():
                assert owners <= held.get(symbol, D(0)) < owners + D("0.01") + D("0.0001")
            assert await desk.resting() == set()
            # Flattening what is flat sends nothing.
            sent = len(desk.exchange.placements())
            again = await switch.activate("CLOSE_POSITIONS")
            assert again.latch_id
            assert (await switch.wait_flat(15)).flat
            assert len(desk.exchange.placements()) == sent
            await switch.deactivate(force=True)
        await desk.exchange.close()

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(run(Path(name)))
