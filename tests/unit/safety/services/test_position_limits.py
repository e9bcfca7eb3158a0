"""The enforcer by itself: check is reserve, and what is held is given back exactly once."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from breaker_world import FakeClock
from gate_world import BTC, ETH, Desk, limits, opened, order
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.config import PositionLimits
from tinywindow.safety.domain.records import HoldState
from tinywindow.safety.errors import ConfigurationError, LimitsDiffer, StoreUnavailable
from tinywindow.safety.services.position_limits import PositionLimitEnforcer
from tinywindow.safety.stores.sqlite import SqliteStore
from tinywindow.testing import Fault


async def check(desk: Desk, side: str = "BUY", amount: object = 1, **terms: object) -> str | None:
    result = await desk.limits.check_order_allowed(order(side, amount, **terms))
    return None if result.reason_code is None else result.reason_code.value


async def test_an_allowed_order_is_held_until_it_is_released(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        result = await desk.limits.check_order_allowed(order("BUY", 60))
        assert (result.allowed, result.rejection_reason) == (True, None)
        assert await check(desk, amount=60) == "POSITION_SIZE"
        assert result.client_order_id is not None
        await desk.limits.release(result.client_order_id)
        assert await check(desk, amount=60) is None


async def test_a_fill_moves_what_was_held_into_the_position(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await check(desk, amount=60, client_order_id="a")
        await desk.limits.record_fill("a", 60, 100, final=True)
        assert await check(desk, amount=41) == "POSITION_SIZE"
        assert await check(desk, amount=40) is None


async def test_a_fee_and_its_time_are_kept_with_the_fill(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await check(desk, amount=60, client_order_id="a")
        await desk.limits.record_fill("a", 30, "99.5", fee="0.3", at=desk.clock.now())
        hold = await desk.hold("a")
        assert (hold.fee, hold.average_price, hold.state) == (
            Decimal("0.3"),
            Decimal("99.5"),
            HoldState.WORKING,
        )


async def test_five_hundred_orders_of_a_hundred_fit_into_fifty_thousand(tmp_path: Path) -> None:
    """Exactly: not one fewer, not one more, whichever of two processes asks."""
    wide = limits(max_position_size=10**9, max_sector_exposure_pct=100, max_leverage=10**6)
    async with opened(tmp_path, position_limits=wide) as desk:
        async with PositionLimitEnforcer(
            desk.limits._handle._location, limits=wide, clock=desk.clock
        ) as other:
            allowed = 0
            for number in range(502):
                one = (desk.limits, other)[number % 2]
                result = await one.check_order_allowed(order("BUY", 1, price=100))
                allowed += result.allowed
        assert allowed == 500


async def test_asking_again_reserves_once_and_reads_the_stops_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        for _ in range(3):
            assert await check(desk, amount=60, client_order_id="a") is None
        assert (await desk.limits.capacity(BTC)).buy == 40
        assert await check(desk, amount=61, client_order_id="a") == "DUPLICATE_ORDER_ID"
        await desk.kill_switch.activate(reason="enough")
        assert await check(desk, amount=60, client_order_id="a") == "KILL_SWITCH_ACTIVE"
        assert (await desk.limits.capacity(BTC)).buy == 40


@pytest.mark.parametrize("end", ["filled", "released", "lapsed"])
async def test_an_id_that_has_ended_is_spent(tmp_path: Path, end: str) -> None:
    async with opened(tmp_path) as desk:
        await check(desk, client_order_id="a")
        if end == "filled":
            await desk.limits.record_fill("a", 1, 100)
        elif end == "released":
            await desk.limits.release("a")
        else:
            desk.clock.advance(60.001)
            await desk.refresh()
        assert await check(desk, client_order_id="a") == "DUPLICATE_ORDER_ID"
        assert (await desk.hold("a")).state.value == end.upper()


async def test_a_market_order_that_nobody_reports_on_lapses_after_its_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await check(desk, amount=60, client_order_id="a")
        desk.clock.advance(60)
        await desk.refresh()
        assert await check(desk, amount=60) == "POSITION_SIZE"
        desk.clock.advance(0.001)
        await desk.refresh()
        assert await check(desk, amount=60) is None
        assert (await desk.hold("a")).state is HoldState.LAPSED
        assert len(await desk.rows("ORDER_LAPSED")) == 1


async def lapse_is_due(desk: Desk) -> None:
    """A market order of 60 that nobody reports on, one moment after its time."""
    await check(desk, amount=60, client_order_id="a")
    desk.clock.advance(60.001)
    await desk.refresh()


async def test_an_order_that_its_venue_knows_is_booked_and_does_not_lapse(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await lapse_is_due(desk)
        desk.exchange.fill("a", BTC, "BUY", 60)
        assert await check(desk, amount=60) == "POSITION_SIZE"
        assert (await desk.hold("a")).state is HoldState.FILLED
        assert await desk.position() == 60
        assert await desk.rows("ORDER_LAPSED") == ()


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.CRASH])
async def test_while_its_venue_does_not_answer_an_order_does_not_lapse(
    tmp_path: Path, fault: Fault
) -> None:
    """And the venue is asked again only after a moment, however many orders come meanwhile."""
    async with opened(tmp_path) as desk:
        await lapse_is_due(desk)
        desk.exchange.break_down("find", fault)
        for _ in range(3):
            assert await check(desk, amount=60) == "POSITION_SIZE"
        assert (await desk.hold("a")).state is HoldState.HELD
        assert desk.exchange.calls["find"] == 1
        desk.exchange.break_down("find", None)
        desk.clock.advance(5)
        await desk.refresh()
        assert await check(desk, amount=60) is None
        assert (await desk.hold("a")).state is HoldState.LAPSED
        assert desk.exchange.calls["find"] == 2


async def test_an_order_waits_once_for_a_silent_venue_however_many_have_lapsed(
    tmp_path: Path,
) -> None:
    """An exit, too, comes this way: it may not wait for every hold in turn."""
    async with opened(tmp_path) as desk:
        for number in range(4):
            await check(desk, amount=1, client_order_id=f"a{number}")
        desk.clock.advance(60.001)
        await desk.refresh()
        desk.exchange.break_down("find", Fault.HANG)
        async with asyncio.timeout(2):
            assert await check(desk) is None
            assert await check(desk) is None
        assert desk.exchange.calls["find"] == 1
        for number in range(4):
            assert (await desk.hold(f"a{number}")).state is HoldState.HELD
        desk.exchange.break_down("find", None)


async def test_a_venue_that_is_not_known_here_is_not_asked(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await check(desk, amount=60, client_order_id="a", venue="elsewhere")
        desk.clock.advance(60.001)
        await desk.refresh()
        assert await check(desk, amount=60) is None
        assert (await desk.hold("a")).state is HoldState.LAPSED
        assert "find" not in desk.exchange.calls


async def test_a_limit_order_an_intent_and_a_partial_fill_never_lapse(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await check(desk, amount=1, client_order_id="limit", price=95)
        await check(desk, amount=2, client_order_id="partly")
        await desk.limits.record_fill("partly", 1, 100)
        await desk.buy(1, client_order_id="sent", price=95)
        desk.clock.advance(86_400)
        await desk.refresh()
        await check(desk)
        for name in ("limit", "partly", "sent"):
            assert (await desk.hold(name)).state.open


async def test_the_enforcer_does_not_ask_whether_trading_was_started(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.kill_switch.stop_trading(actor="ada")
        assert await check(desk) is None


async def test_the_enforcer_takes_no_velocity_slot_and_reads_standing_trips(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        for _ in range(60):
            assert await check(desk, amount="0.01") is None
        assert await desk.velocity() == 0
        await desk.breaker.record_equity(1_000)
        assert await check(desk) == "CIRCUIT_BREAKER_TRIPPED"


async def test_a_malformed_order_is_a_refusal_and_audited(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        for junk in (None, 7, {}, {"symbol": BTC, "side": "BUY", "amount": True}, object()):
            result = await desk.limits.check_order_allowed(junk)
            assert not result.allowed
            assert result.rejection_reason is not None
            assert result.rejection_reason.startswith("VALIDATION_FAILED: ")
        assert len(await desk.rows("ORDER_VALIDATION_FAILED")) == 5


async def test_a_store_that_is_gone_is_a_refusal(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        (tmp_path / "tinywindow.db").rename(tmp_path / "gone")
        assert await check(desk) == "STATE_UNKNOWN"
        result = await desk.limits.check_order_allowed(None)
        assert [b.code.value for b in result.breaches] == ["STATE_UNKNOWN", "VALIDATION_FAILED"]
        (tmp_path / "gone").rename(tmp_path / "tinywindow.db")


async def test_a_fault_of_our_own_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as desk:

        def broken(*_: object) -> object:
            raise RuntimeError("a bug")

        monkeypatch.setattr("tinywindow.safety.services.admitter.admit", broken)
        assert await check(desk) == "INTERNAL_ERROR"


# Limits in force.


async def test_the_limits_live_in_the_store_and_are_adopted_by_who_gives_none(
    tmp_path: Path,
) -> None:
    where = tmp_path / "tinywindow.db"
    async with PositionLimitEnforcer(where, limits=PositionLimits(max_leverage=3)):
        pass
    async with PositionLimitEnforcer(where) as enforcer:
        assert enforcer.admitter.limits.max_leverage == 3


async def test_who_is_given_other_limits_does_not_start_unless_told_to_change_them(
    tmp_path: Path,
) -> None:
    where, clock = tmp_path / "tinywindow.db", FakeClock()
    async with opened(tmp_path, clock=clock):
        pass
    other = limits(max_position_size=9_000, sectors={"BTC": "Metal"})
    refused = PositionLimitEnforcer(where, limits=other)
    with pytest.raises(LimitsDiffer) as caught:
        await refused.check_order_allowed(order("BUY"))
    assert caught.value.violations[:2] == (
        "LIMITS_DIFFER: max_position_size is 10000 in the store, 9000 here",
        "LIMITS_DIFFER: sectors is none in the store, BTC=Metal here",
    )
    await refused.close()
    async with PositionLimitEnforcer(where, limits=other, change_limits=True):
        pass
    async with opened(tmp_path, position_limits=other, clock=clock) as desk:
        changes = await desk.data("CONFIG_CHANGED")
        assert [change["before"] is None for change in changes] == [True, False]
        assert '"max_position_size":"9000"' in changes[-1]["after"]


async def test_limits_that_are_changed_meanwhile_stop_the_entries_of_who_was_given_others(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1)
        where = desk.limits._handle._location
        adopting = PositionLimitEnforcer(where, clock=desk.clock)
        assert (await adopting.check_order_allowed(order("BUY", 1))).allowed
        smaller = limits(max_position_size=500)
        async with PositionLimitEnforcer(where, limits=smaller, change_limits=True):
            pass
        assert await check(desk) == "LIMITS_DIFFER"
        assert await check(desk, "SELL") is None
        result = await adopting.check_order_allowed(order("BUY", 10))
        assert result.rejection_reason is not None
        assert "above the limit of 500 USD" in result.rejection_reason
        await adopting.close()


async def test_limits_that_cannot_be_read_refuse(tmp_path: Path) -> None:
    where = tmp_path / "tinywindow.db"
    store = await SqliteStore.open(where)
    await store.transact(lambda tx: tx.put_document("limits", '{"max_leverage": "3"}'))
    await store.close()
    enforcer = PositionLimitEnforcer(where)
    result = await enforcer.check_order_allowed(order("BUY"))
    assert result.rejection_reason is not None
    assert result.rejection_reason.startswith("STATE_UNKNOWN: the limits in the store cannot be")
    await enforcer.close()


# Prices and marks.


async def test_a_price_source_that_fails_is_a_price_that_nobody_knows(tmp_path: Path) -> None:
    class Broken:
        def reference_price(self, symbol: str) -> object:
            if symbol == BTC:
                raise RuntimeError("the feed broke")
            return ("not a number", None)

    async with opened(tmp_path, prices=Broken()) as desk:
        assert await check(desk) is None
        desk.clock.advance(6)
        await desk.breaker.record_equity(10_000)
        for symbol in (BTC, ETH):
            assert await check(desk, symbol=symbol) == "PRICE_UNAVAILABLE"


async def test_the_newer_of_two_prices_counts(tmp_path: Path) -> None:
    class Source:
        def reference_price(self, symbol: str) -> tuple[object, object]:
            return 200, clock.now()

    clock = FakeClock()
    async with opened(tmp_path, prices=Source(), clock=clock) as desk:
        clock.advance(1)
        assert (await desk.limits.capacity(BTC)).buy == 50
        await desk.limits.set_reference_price(BTC, 1, at=clock.wall.replace(hour=1))
        assert (await desk.limits.capacity(BTC)).buy == 50


@pytest.mark.parametrize("price", [0, -1, "NaN", True, None])
async def test_a_reference_price_that_is_none_is_refused(tmp_path: Path, price: object) -> None:
    async with opened(tmp_path) as desk:
        with pytest.raises(ValueError):
            await desk.limits.set_reference_price(BTC, price)


async def test_a_mark_that_is_not_taken_on_is_said_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.limits.record_equity(0)
        with pytest.raises(ValueError, match="NAV is zero or less"):
            await desk.limits.record_equity(500, cash_flow=500)


async def test_equity_that_is_unknown_or_gone_refuses(tmp_path: Path) -> None:
    async with opened(tmp_path, funded=False) as desk:
        await desk.limits.set_reference_price(BTC, 100)
        assert await check(desk) == "LEVERAGE"
        await desk.limits.record_equity(10_000)
        assert await check(desk) is None
        desk.clock.advance(61)
        await desk.limits.set_reference_price(BTC, 100)
        assert await check(desk) == "LEVERAGE"


@pytest.mark.parametrize("where", [None, ":memory:", "sqlite://", 7])
def test_a_database_that_would_forget_is_refused_at_once(where: object) -> None:
    with pytest.raises(ConfigurationError):
        PositionLimitEnforcer(where)


# Whatever happens, the sum stays below the cap.


@given(
    amounts=st.lists(
        st.tuples(
            st.sampled_from(["BUY", "SELL"]),
            st.integers(1, 60),
            st.sampled_from(["fill", "release", "keep", "half"]),
        ),
        max_size=12,
    )
)
def test_no_approval_leaves_the_worst_case_above_the_position_limit(
    amounts: list[tuple[str, int, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def play(folder: Path) -> None:
        async with opened(folder) as desk:
            for number, (side, amount, end) in enumerate(amounts):
                name = f"o{number}"
                refused = await check(
                    desk, side, amount, symbol="BTC/USDT:USDT", client_order_id=name, price=100
                )
                if refused is None and end in {"fill", "half"}:
                    done = Decimal(amount) / (1 if end == "fill" else 2)
                    await desk.limits.record_fill(name, done, 100, final=end == "fill")
                elif refused is None and end == "release":
                    await desk.limits.release(name)
                book = await desk.read(lambda tx: tx.book())
                position = await desk.position("BTC/USDT:USDT")
                for sums in book.sums.values():
                    assert abs(position + sums.buys) * 100 <= 10_000
                    assert abs(position - sums.sells) * 100 <= 10_000

    asyncio.run(play(tmp_path_factory.mktemp("worst")))


async def test_a_kill_file_that_appears_during_the_commit_takes_the_approval_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock is shared with a file: it is looked for once more before the answer is given."""
    async with opened(tmp_path) as desk:
        assert await check(desk, amount=10, client_order_id="before") is None
        decide = desk.context.store.decide

        async def stopped(*given: Any) -> object:
            decided = await decide(*given)
            (tmp_path / "KILL").touch()
            return decided

        monkeypatch.setattr(desk.context.store, "decide", stopped)
        await desk.have(5, ETH)
        assert await check(desk, "SELL", 5, symbol=ETH, client_order_id="exit") is None
        (tmp_path / "KILL").unlink()
        assert await check(desk, amount=10, client_order_id="a") == "KILL_SWITCH_ACTIVE"
        assert (await desk.hold("a")).state is HoldState.RELEASED
        assert [row.order_id for row in await desk.rows("ORDER_RELEASED")] == ["a"]
        # Asked for again, an order that was approved before keeps what it holds.
        (tmp_path / "KILL").unlink()
        assert await check(desk, amount=10, client_order_id="before") == "KILL_SWITCH_ACTIVE"
        assert (await desk.hold("before")).state is HoldState.HELD


async def test_an_approval_that_cannot_be_taken_back_is_refused_and_stays_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as desk:
        decide = desk.context.store.decide

        async def away(*_: object, **__: object) -> object:
            raise StoreUnavailable("the database is away")

        async def stopped(*given: Any) -> object:
            decided = await decide(*given)
            (tmp_path / "KILL").touch()
            monkeypatch.setattr(desk.context.store, "transact", away)
            return decided

        monkeypatch.setattr(desk.context.store, "decide", stopped)
        assert await check(desk, amount=10, client_order_id="a") == "KILL_SWITCH_ACTIVE"
        monkeypatch.undo()
        assert (await desk.hold("a")).state is HoldState.HELD
