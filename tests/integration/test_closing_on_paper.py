"""The kill switch closes positions on the paper venue, whatever the venue does meanwhile.

After each close the venue's own book is walked through, fill by fill: see `closing_desk`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal as D
from pathlib import Path

import pytest

from closing_desk import (
    BTC,
    CLOSE_ID,
    ETH,
    OTHER,
    PERP,
    PRICES,
    SOL,
    Desk,
    eventually,
    placed_twice,
    quick,
    rows,
    steps,
)
from tinywindow.exchanges.paper import PaperConfig, PaperExchange, ScriptedFaults
from tinywindow.exchanges.paper.faults import CallFault, PlaceFault
from tinywindow.safety.domain.kill import KillState, KillSwitchMode
from tinywindow.safety.domain.order import OrderType, PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState
from tinywindow.safety.domain.venue import MarketRules, VenuePosition
from tinywindow.safety.errors import ReleaseRefused
from tinywindow.safety.services.kill_report import KillReport
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.times import to_ms
from tinywindow.safety.stores.sqlite import SqliteStore

HALT, CLOSE = KillSwitchMode.HALT_ONLY, KillSwitchMode.CLOSE_POSITIONS


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def made(**settings: object) -> Desk:
        desks.append(Desk(tmp_path, **settings))  # type: ignore[arg-type]
        return desks[-1]

    yield made
    for desk in desks:
        await desk.exchange.close()


async def full(desk: Desk) -> Desk:
    """Spot in three symbols with the owner's coins beside it, perpetuals both ways, orders."""
    await desk.open(BTC, "1.5", managed="1")
    await desk.open(ETH, "20", managed="5")
    await desk.open(SOL, "30", managed="30")
    await desk.open(PERP, "2.5")
    await desk.open(OTHER, "-40")
    await desk.rest("SETUP-entry-spot", "BUY", BTC, "0.1", 40_000)
    await desk.rest("SETUP-entry-perp", "BUY", PERP, "0.2", 41_000)
    await desk.rest("SETUP-exit-perp", "SELL", PERP, "2.5", 60_000)
    await desk.rest("SETUP-exit-spot", "SELL", SOL, "30", 150)
    await desk.keep_ledger()
    return desk


OWNERS = {BTC: D("0.5"), ETH: D(15)}


async def finish(switch: KillSwitch, desk: Desk, timeout_s: float = 20) -> KillReport:
    """Wait for the proof, look at the book, and release."""
    report = await switch.wait_flat(timeout_s)
    assert report.flat, report
    assert desk.misdeeds() == []
    assert placed_twice(desk.book) == []
    await switch.deactivate(force=True)
    return report


async def audit_of(desk: Desk, event: str | None = None) -> list[object]:
    store = await SqliteStore.open(desk.database)
    try:
        await store.transact(lambda tx: tx.drain_outbox())
        return list(await store.read(lambda tx: tx.audit_rows(event_type=event)))
    finally:
        await store.close()


async def test_everything_of_ours_is_closed_and_the_owners_coins_stay(
    make: Callable[..., Desk],
) -> None:
    desk = await full(make())
    async with desk.switch() as switch:
        await switch.activate(CLOSE)
        report = await finish(switch, desk)
    assert await desk.held() == OWNERS
    assert await desk.resting() == set()
    venue = report.venues["paper"]
    told = {p.symbol: (p.wanted, p.sent, p.filled, p.left, p.dust) for p in venue.positions}
    assert told == {
        BTC: (D(1), D(1), D(1), D(0), False),
        ETH: (D(5), D(5), D(5), D(0), False),
        SOL: (D(30), D(30), D(30), D(0), False),
        PERP: (D("2.5"), D("2.5"), D("2.5"), D(0), False),
        OTHER: (D(40), D(40), D(40), D(0), False),
    }
    assert len(venue.cancelled) == 4
    # Two reads a second apart lie between the last fill and the word FLAT.
    last_ms = rows(desk.book, "SELECT max(filled_ms) FROM fill")[0][0]
    record_ms = rows(desk.database, "SELECT updated_ms FROM close_progress")[0][0]
    assert record_ms - last_ms >= 1000
    audit = await audit_of(desk, "KILL_STEP")
    sent = rows(
        desk.book, f"SELECT count(*) FROM placement WHERE client_order_id LIKE '{CLOSE_ID}%'"
    )
    assert len(steps(audit, "CLOSE")) == sent[0][0] == 5
    assert len(steps(audit, "FLAT")) == 1


PLACES = [
    [PlaceFault.REJECT, PlaceFault.PARTIAL, PlaceFault.REJECT],
    [PlaceFault.LOST_AFTER, PlaceFault.LOST_AFTER, PlaceFault.LOST_BEFORE],
    [PlaceFault.PARTIAL, PlaceFault.DUST, PlaceFault.LOST_AFTER, PlaceFault.PARTIAL],
]


@pytest.mark.parametrize("faults", PLACES, ids=["rejected", "ambiguous", "partial"])
async def test_sends_that_go_wrong_are_made_good(
    make: Callable[..., Desk], faults: list[PlaceFault]
) -> None:
    script = ScriptedFaults()
    desk = await full(make(faults=script))
    script.place(*faults)
    async with desk.switch() as switch:
        await switch.activate(CLOSE)
        report = await finish(switch, desk)
    held = await desk.held()
    for symbol, left in held.items():
        ours = left - OWNERS.get(symbol, D(0))
        position = next(p for p in report.venues["paper"].positions if p.symbol == symbol)
        assert abs(ours) == position.left
        assert ours == 0 or position.dust, (symbol, left)


async def test_calls_that_fail_are_never_taken_for_flat(make: Callable[..., Desk]) -> None:
    script = ScriptedFaults()
    desk = await full(make(faults=script))
    before, after = CallFault.BEFORE, CallFault.AFTER
    script.call("positions", [before, None, before, None, after])
    script.call("open_orders", [before, after, None, before])
    script.call("cancel", [after, before, after])
    script.call("find", [before, before])
    script.call("market", [before, after])
    script.place(PlaceFault.LOST_AFTER, PlaceFault.LOST_AFTER)
    async with desk.switch() as switch:
        await switch.activate(CLOSE)
        await finish(switch, desk)
    assert await desk.held() == OWNERS
    assert await desk.resting() == set()


async def test_a_halt_leaves_what_protects_and_then_escalates(make: Callable[..., Desk]) -> None:
    desk = await full(make())
    async with desk.switch() as switch:
        held = await desk.held()
        report = await switch.activate(HALT)
        assert report.state is KillState.HALTED
        await eventually(lambda: _rest(desk, {"SETUP-exit-perp", "SETUP-exit-spot"}))
        assert await desk.held() == held
        await switch.activate(CLOSE)
        await finish(switch, desk)
    assert await desk.held() == OWNERS


async def _rest(desk: Desk, wanted: set[str]) -> bool:
    return await desk.resting() == wanted


async def test_large_positions_go_in_slices_the_venue_takes(make: Callable[..., Desk]) -> None:
    rules = {
        BTC: MarketRules(BTC, D("0.001"), D("0.3"), D("0.001"), notional_min=D(5)),
        PERP: MarketRules(PERP, D("0.1"), D(1), D("0.1"), reduce_only=True, spot=False),
    }
    desk = make()
    await desk.open(BTC, "1.5", managed="1.0004")
    await desk.open(PERP, "-2.5")
    await desk.keep_ledger()
    desk.exchange._config = replace(desk.config, rules=rules)
    async with desk.switch() as switch:
        await switch.activate(CLOSE)
        report = await finish(switch, desk)
    sizes = rows(
        desk.book,
        f"SELECT symbol, amount FROM fill WHERE client_order_id LIKE '{CLOSE_ID}%' ORDER BY rowid",
    )
    assert [D(a) for s, a in sizes if s == PERP] == [D(1), D(1), D("0.5")]
    assert [D(a) for s, a in sizes if s == BTC] == [D("0.3")] * 3 + [D("0.1")]
    dust = next(p for p in report.venues["paper"].positions if p.symbol == BTC)
    assert (dust.dust, dust.left) == (True, D("0.0004"))


async def test_an_order_that_was_in_flight_when_the_stop_came_is_swept(
    make: Callable[..., Desk],
) -> None:
    desk = make()
    await desk.open(PERP, 1)
    await desk.keep_ledger()
    async with desk.switch(quick(in_flight_grace=2)) as switch:
        await intend(switch, "SETUP-late", PERP, Side.BUY, "0.5")
        await switch.activate(CLOSE)
        await eventually(lambda: _flat_at_venue(desk))
        await desk.send("BUY", PERP, "0.5", order_id="SETUP-late")
        await finish(switch, desk)
    assert await desk.held() == {}


async def _flat_at_venue(desk: Desk) -> bool:
    return await desk.held() == {}


async def intend(switch: KillSwitch, order_id: str, symbol: str, side: Side, amount: str) -> None:
    now_ms = to_ms(switch._clock.now())
    key = PositionKey("paper", "default", symbol)
    hold = Hold(
        order_id, key, side, OrderType.MARKET, D(amount), None, HoldState.INTENDED, now_ms,
        intent_ms=now_ms,
    )  # fmt: skip
    await switch._register.store.write(lambda tx: tx.put_hold(hold))


async def test_a_release_is_refused_while_closing_and_a_forced_one_stops_the_flattener(
    make: Callable[..., Desk],
) -> None:
    script = ScriptedFaults().place(None, *[PlaceFault.REJECT] * 500)
    desk = make(faults=script)
    await desk.open(PERP, 1)
    await desk.keep_ledger()
    async with desk.switch() as switch:
        await switch.activate(CLOSE)
        await eventually(lambda: _error(switch))
        with pytest.raises(ReleaseRefused, match="close is running"):
            await switch.deactivate()
        await switch.deactivate(force=True)
        flattener = switch._flattener
        assert flattener is not None
        await eventually(lambda: not flattener.running)
        script._place.clear()
        sent = rows(desk.book, "SELECT count(*) FROM placement")
    assert await desk.held() == {PERP: D(1)}
    assert rows(desk.book, "SELECT count(*) FROM placement") == sent
    assert not [h for h in await _open_holds(desk) if h.flatten]


async def _error(switch: KillSwitch) -> bool:
    venues = (await switch.get_status()).venues.values()
    return any(p.error for v in venues for p in v.positions)


async def _open_holds(desk: Desk) -> list[Hold]:
    store = await SqliteStore.open(desk.database)
    try:
        return await store.read(lambda tx: list(tx.book().holds.values()))
    finally:
        await store.close()


async def test_a_close_sent_before_a_forced_release_is_followed_to_its_end(
    make: Callable[..., Desk],
) -> None:
    script = ScriptedFaults().place(None, PlaceFault.LOST_AFTER)
    script.call("find", [CallFault.BEFORE] * 3)
    desk = make(faults=script)
    await desk.open(PERP, 1)
    await desk.keep_ledger()
    async with desk.switch() as switch:
        await switch.activate(CLOSE)
        await eventually(lambda: _error(switch))
        await switch.deactivate(force=True)
        await eventually(lambda: _settled(desk))
    store = await SqliteStore.open(desk.database)
    assert await store.read(lambda tx: dict(tx.book().positions)) == {}
    await store.close()


async def _settled(desk: Desk) -> bool:
    return not await _open_holds(desk)


async def test_an_incomplete_close_pages_once_and_keeps_trying(make: Callable[..., Desk]) -> None:
    script = ScriptedFaults().place(None, *[PlaceFault.REJECT] * 1000)
    desk = make(faults=script)
    await desk.open(PERP, 1)
    await desk.keep_ledger()
    async with desk.switch(quick(close_deadline=0.5)) as switch:
        await switch.activate(CLOSE)
        await eventually(lambda: _in_state(switch, KillState.INCOMPLETE))
        script._place.clear()
        await finish(switch, desk)
    assert len(await audit_of(desk, "KILL_INCOMPLETE")) == 1


async def _in_state(switch: KillSwitch, state: KillState) -> bool:
    return (await switch.get_status()).state is state


async def test_what_appears_after_flat_has_the_whole_deadline(make: Callable[..., Desk]) -> None:
    desk = make()
    await desk.keep_ledger()
    async with desk.switch(quick(close_deadline=1.5)) as switch:
        await switch.activate(CLOSE)
        assert (await switch.wait_flat(10)).flat
        await asyncio.sleep(1)  # the deadline of the first close passes
        await desk.send("BUY", PERP, 1)
        await eventually(lambda: _in_state(switch, KillState.CLOSING))
        await finish(switch, desk)
    assert await audit_of(desk, "KILL_INCOMPLETE") == []
    assert await desk.held() == {}


async def test_two_flatteners_close_once_and_whoever_waits_shows_the_others_progress(
    make: Callable[..., Desk],
) -> None:
    desk = await full(make(config=PaperConfig(latency_s=0.02)))
    async with desk.switch() as one, desk.switch() as two:
        await asyncio.gather(one.activate(CLOSE), two.activate(CLOSE))
        assert (await two.wait_flat(20)).flat
        await finish(one, desk)
    assert await desk.held() == OWNERS


async def test_an_owner_that_lost_the_lease_sends_nothing_more(make: Callable[..., Desk]) -> None:
    desk = await full(make(config=PaperConfig(latency_s=0.1)))
    async with desk.switch() as switch:
        await switch.activate(CLOSE)
        await eventually(lambda: _placements(desk) >= 6 + 4)
        store = await SqliteStore.open(desk.database)

        def steal(tx: object) -> int:
            lease = tx.lease("flatten/paper")  # type: ignore[attr-defined]
            now_ms = to_ms(switch._clock.now())
            tx.put_lease(  # type: ignore[attr-defined]
                replace(lease, owner="thief", fence=lease.fence + 1, heartbeat_ms=now_ms + 4000)
            )
            return lease.fence + 1

        await store.transact(steal)
        sent = _placements(desk)
        await asyncio.sleep(1)
        # At most the one that was approved in the moment of the theft.
        assert _placements(desk) <= sent + 1
        await store.transact(
            lambda tx: tx.put_lease(
                replace(tx.lease("flatten/paper"), heartbeat_ms=0)  # type: ignore[type-var]
            )
        )
        await store.close()
        await finish(switch, desk)


def _placements(desk: Desk) -> int:
    return int(rows(desk.book, "SELECT count(*) FROM placement")[0][0])


class Hangs(PaperExchange):
    """A venue that takes connections and never answers."""

    async def positions(self) -> tuple[VenuePosition, ...]:
        await asyncio.sleep(3600)
        return ()

    async def open_orders(self) -> tuple[()]:
        await asyncio.sleep(3600)
        return ()

    def fork(self) -> Hangs:
        return Hangs(self._path, self._board, clock=self._clock, name=self._name)


async def test_a_venue_that_hangs_delays_no_other(make: Callable[..., Desk]) -> None:
    good, bad = await full(make()), make(name="bad", kind=Hangs)
    config = quick(venue_timeout=4)
    switch = KillSwitch(None, [good.exchange, bad.exchange], good.database, config=config)
    async with switch:
        begun = time.monotonic()
        await switch.activate(CLOSE)
        await eventually(lambda: _venue_flat(switch, "paper"))
        assert time.monotonic() - begun < 10
        status = await switch.get_status()
        assert status.venues["bad"].state is KillState.CLOSING
        assert status.state is KillState.CLOSING
        await switch.deactivate(force=True)


async def _venue_flat(switch: KillSwitch, name: str) -> bool:
    return (await switch.get_status()).venues[name].flat


async def test_a_venue_that_liquidates_meanwhile_is_not_bought_from(
    make: Callable[..., Desk],
) -> None:
    script = ScriptedFaults().place(None, None, *[PlaceFault.LOST_BEFORE] * 2)
    desk = make(faults=script)
    await desk.open(PERP, 2)
    await desk.open(OTHER, -3)
    await desk.keep_ledger()
    async with desk.switch() as switch:
        await switch.activate(CLOSE)
        await eventually(lambda: _error(switch))
        assert desk.exchange.liquidate(PERP) is not None
        report = await finish(switch, desk)
    assert await desk.held() == {}
    told = {p.symbol: (p.filled, p.left) for p in report.venues["paper"].positions}
    assert told == {PERP: (D(0), D(0)), OTHER: (D(3), D(0))}


async def test_two_hundred_orders_and_twenty_positions_within_ten_seconds(
    make: Callable[..., Desk],
) -> None:
    bases = [f"C{chr(65 + n)}" for n in range(18)]
    prices = {**PRICES, **{f"{base}/USDT:USDT": 10 for base in bases}}
    desk = make(prices=prices, config=PaperConfig(latency_s=0.005))
    for base in bases:
        await desk.open(f"{base}/USDT:USDT", 100)
    await desk.open(PERP, 1)
    await desk.open(BTC, 1)
    for number in range(200):
        await desk.rest(f"SETUP-rest-{number}", "BUY", f"{bases[number % 18]}/USDT:USDT", 1, 5)
    await desk.keep_ledger()
    async with desk.switch() as switch:
        begun = time.monotonic()
        await switch.activate(CLOSE)
        await finish(switch, desk)
        took_s = time.monotonic() - begun
    print(f"200 orders and 20 positions: flat after {took_s:.1f} s")
    assert await desk.held() == {}
    assert await desk.resting() == set()
    assert took_s < 10


async def test_the_report_is_told_in_plain_data(make: Callable[..., Desk]) -> None:
    script = ScriptedFaults().place(None, *[PlaceFault.REJECT] * 2)
    desk = make(faults=script)
    await desk.open(PERP, 1)
    await desk.keep_ledger()
    async with desk.switch() as switch:
        await switch.activate(CLOSE)
        await eventually(lambda: _error(switch))
        data = json.loads(json.dumps((await switch.wait_flat(0)).to_data()))
        position = data["venues"]["paper"]["positions"][0]
        assert set(position) == {
            "symbol", "leg", "wanted", "sent", "filled", "left", "dust", "error"
        }  # fmt: skip
        assert "rejected" in position["error"]
        await finish(switch, desk)
