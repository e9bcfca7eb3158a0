"""The gate: every reason for a refusal is reached, and the order in which they are told."""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from breaker_world import FakeClock
from gate_world import BTC, ETH, PERP, PRICE, SOL, Desk, Venue, code, codes, limits, opened, order
from kill_worlds import FakeBell

from tinywindow.safety.domain.approval import Approved, mint
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.domain.kill import KillSwitchMode
from tinywindow.safety.domain.order import Order
from tinywindow.safety.domain.records import HoldState, TradingState
from tinywindow.safety.domain.venue import MarketRules, Placed
from tinywindow.safety.errors import InvariantBroken
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.gate import OrderGate
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.order_validator import OrderValidator
from tinywindow.safety.services.outcome import ApprovedInPrinciple, Outcome, Refused
from tinywindow.safety.services.position_limits import PositionLimitEnforcer
from tinywindow.safety.stores.ticket import ticket_path
from tinywindow.testing import Fault

REACHED_BY = {
    Reason.KILL_SWITCH_ACTIVE: "test_a_latch_refuses_entries",
    Reason.CIRCUIT_BREAKER_TRIPPED: "test_a_trip_refuses_entries",
    Reason.TRADING_STOPPED: "test_stopped_trading_refuses_entries_until_a_start",
    Reason.STATE_UNKNOWN: "test_an_unreachable_doorbell_refuses_entries_and_lets_exits_pass",
    Reason.METRIC_UNKNOWN: "test_without_a_trusted_mark_no_entry_is_sent",
    Reason.MONITOR_STALE: "test_a_monitor_that_fell_silent_refuses_entries",
    Reason.CLOCK_UNTRUSTED: "test_a_clock_that_jumped_refuses_entries_and_lets_exits_pass",
    Reason.STORE_ROLLED_BACK: "test_a_database_behind_its_anchor_refuses_entries",
    Reason.LEDGER_BUSY: "test_no_turn_at_the_store_is_a_refusal_and_decides_nothing",
    Reason.TRADE_VELOCITY: "test_the_fifty_first_order_is_refused_and_trips",
    Reason.VALIDATION_FAILED: "test_a_malformed_order_is_refused_with_everything_that_is_wrong",
    Reason.DUPLICATE_ORDER_ID: "test_an_id_is_sent_once",
    Reason.DUPLICATE_DECISION: "test_a_decision_is_spent_once",
    Reason.SYMBOL_NOT_ALLOWED: "test_a_symbol_that_is_not_listed_is_refused",
    Reason.PRICE_UNAVAILABLE: "test_an_entry_needs_a_fresh_price",
    Reason.PRICE_COLLAR: "test_a_limit_price_far_beyond_the_reference_is_refused",
    Reason.INSUFFICIENT_POSITION: "test_a_spot_sell_beyond_what_is_held_is_refused",
    Reason.REDUCE_ONLY: "test_a_reduce_only_order_may_only_reduce",
    Reason.POSITION_CLOSING: "test_no_exit_is_sent_while_the_kill_switch_closes",
    Reason.POSITION_STALE: "test_an_exit_that_cannot_be_told_to_reduce_needs_a_fresh_position",
    Reason.POSITION_SIZE: "test_the_position_limit_counts_what_is_held",
    Reason.TOTAL_EXPOSURE: "test_the_total_is_limited",
    Reason.LEVERAGE: "test_leverage_is_limited",
    Reason.SECTOR_EXPOSURE: "test_a_sector_is_limited",
    Reason.APPROVAL_EXPIRED: "test_an_approval_that_is_not_sent_at_once_expires",
    Reason.LIMITS_DIFFER: "test_a_process_with_other_limits_sends_nothing",
    Reason.INTERNAL_ERROR: "test_a_fault_of_our_own_refuses_and_trips",
}


def test_every_reason_is_reached_by_a_test() -> None:
    assert set(REACHED_BY) == set(Reason)
    assert [name for name in REACHED_BY.values() if name not in globals()] == []


async def test_an_order_that_nothing_speaks_against_is_sent_and_booked(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        answer = await desk.buy(2, client_order_id="a")

        assert isinstance(answer, Outcome)
        assert (answer.status, answer.state, answer.filled) == ("ACCEPTED", HoldState.FILLED, 2)
        assert await desk.position() == 2
        assert await desk.velocity() == 1
        assert [row.event_type for row in await desk.rows()][-2:] == [
            "ORDER_APPROVED",
            "ORDER_OUTCOME",
        ]


# Each reason.


async def test_a_latch_refuses_entries(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.kill_switch.activate(reason="enough", actor="ada")
        answer = await desk.buy()

        assert code(answer) == "KILL_SWITCH_ACTIVE"
        assert isinstance(answer, Refused)
        assert answer.rejection_reason == "KILL_SWITCH_ACTIVE: HALT_ONLY by ada: enough"
        assert desk.sent() == []
        assert len(await desk.rows("ORDER_REJECTED_HALTED")) == 1


async def test_the_kill_file_refuses_entries_before_anybody_has_latched_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        (tmp_path / "KILL").write_text("")
        assert code(await desk.buy()) == "KILL_SWITCH_ACTIVE"


async def test_the_redis_key_refuses_entries(tmp_path: Path) -> None:
    bell = FakeBell()
    async with opened(tmp_path, bell=bell) as desk:
        bell.value = b"0"
        assert code(await desk.buy()) == "KILL_SWITCH_ACTIVE"


async def test_a_trip_refuses_entries(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.breaker.record_equity(8_500)
        answer = await desk.buy()
        assert code(answer) == "CIRCUIT_BREAKER_TRIPPED"
        assert isinstance(answer, Refused)
        assert answer.rejection_reason.startswith("CIRCUIT_BREAKER_TRIPPED: DAILY_PNL: -15.00 %")


async def test_a_metric_that_is_breached_at_this_moment_refuses_and_trips(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.limits.record_equity(8_500)
        assert code(await desk.buy()) == "CIRCUIT_BREAKER_TRIPPED"
        assert len(await desk.rows("CIRCUIT_BREAKER_TRIP")) == 1


async def test_stopped_trading_refuses_entries_until_a_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.kill_switch.activate(reason="enough")
        await desk.kill_switch.deactivate(reason="looked", actor="ada")
        assert code(await desk.buy()) == "TRADING_STOPPED"
        await desk.have(1)
        assert code(await desk.sell(1)) == "ACCEPTED"
        await desk.kill_switch.start_trading(actor="ada")
        assert code(await desk.buy()) == "ACCEPTED"


async def test_an_unreachable_doorbell_refuses_entries_and_lets_exits_pass(tmp_path: Path) -> None:
    bell = FakeBell()
    async with opened(tmp_path, bell=bell) as desk:
        await desk.have(1)
        bell.down = "connection refused"
        assert code(await desk.buy()) == "STATE_UNKNOWN"
        assert code(await desk.sell(1)) == "ACCEPTED"


async def test_a_venue_that_does_not_tell_its_rules_refuses_entries(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1)
        for fault in (Fault.FAIL, Fault.CRASH):
            desk.exchange.break_down("market", fault)
            assert code(await desk.buy()) == "STATE_UNKNOWN"
        assert code(await desk.sell(1)) == "ACCEPTED"
        assert not await desk.rows("CIRCUIT_BREAKER_TRIP")


async def test_without_a_trusted_mark_no_entry_is_sent(tmp_path: Path) -> None:
    async with opened(tmp_path, funded=False) as desk:
        await desk.breaker.check_all_metrics()
        await desk.reprice(PRICE)
        assert code(await desk.buy()) == "METRIC_UNKNOWN"


async def test_a_monitor_that_fell_silent_refuses_entries(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        desk.clock.advance(3.5)
        assert code(await desk.buy()) == "MONITOR_STALE"


@pytest.mark.parametrize("seconds", [3, -3, 86_400])
async def test_a_clock_that_jumped_refuses_entries_and_lets_exits_pass(
    tmp_path: Path, seconds: float
) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1)
        desk.clock.jump(seconds)
        assert code(await desk.buy()) == "CLOCK_UNTRUSTED"
        assert code(await desk.sell(1)) == "ACCEPTED"


async def test_a_database_behind_its_anchor_refuses_entries(tmp_path: Path) -> None:
    anchor = {"seq": 1_000, "hash": "0" * 64, "time": "2026-03-04T11:00:00.000000Z"}
    (tmp_path / "tinywindow.db.anchor").write_text(json.dumps(anchor) + "\n")
    async with opened(tmp_path) as desk:
        await desk.have(1)
        assert code(await desk.buy()) == "STORE_ROLLED_BACK"
        assert code(await desk.sell(1)) == "ACCEPTED"


async def test_a_database_replaced_by_an_older_copy_refuses_entries(tmp_path: Path) -> None:
    database = tmp_path / "tinywindow.db"
    async with opened(tmp_path) as desk:
        await desk.buy(1)
    older = database.read_bytes()
    async with opened(tmp_path) as desk:
        await desk.buy(1)
    for beside in ("-wal", "-shm"):
        database.with_name(database.name + beside).unlink(missing_ok=True)
    database.write_bytes(older)
    async with opened(tmp_path) as desk:
        assert code(await desk.buy(1)) == "STORE_ROLLED_BACK"


async def test_no_turn_at_the_store_is_a_refusal_and_decides_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        with ticket_path(tmp_path / "tinywindow.db").open("rb+") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert code(await desk.buy(1, client_order_id="a")) == "LEDGER_BUSY"
        assert await desk.read(lambda tx: tx.hold("a")) is None
        assert desk.sent() == []


async def test_the_fifty_first_order_is_refused_and_trips(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        for number in range(50):
            assert code(await desk.buy("0.01", client_order_id=f"o{number}")) == "ACCEPTED"
        assert code(await desk.buy("0.01", client_order_id="one too many")) == "VALIDATION_FAILED"
        assert code(await desk.buy("0.01", client_order_id="o50")) == "TRADE_VELOCITY"

        assert len(desk.sent()) == 50
        assert await desk.velocity() == 50
        (trip,) = await desk.rows("CIRCUIT_BREAKER_TRIP")
        assert trip.order_id == "o50"
        assert code(await desk.buy("0.01")) == "CIRCUIT_BREAKER_TRIPPED"


async def test_a_malformed_order_is_refused_with_everything_that_is_wrong(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        answer = await desk.gate.submit({"symbol": "btc", "side": "HOLD", "amount": "NaN"})
        assert codes(answer) == ["VALIDATION_FAILED"] * 3
        (row,) = await desk.data("ORDER_VALIDATION_FAILED")
        assert len(row["errors"]) == 3


async def test_an_order_for_another_venue_is_refused_and_audited(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        assert code(await desk.buy(1, venue="elsewhere")) == "VALIDATION_FAILED"
        assert len(await desk.rows("ORDER_VALIDATION_FAILED")) == 1
        assert isinstance(desk.gate.evaluate(order("BUY", venue="elsewhere")), Refused)


async def test_an_id_is_sent_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.buy(1, client_order_id="done")
        assert code(await desk.buy(1, client_order_id="done")) == "DUPLICATE_ORDER_ID"
        await desk.buy(1, client_order_id="rests", price=95)
        assert code(await desk.buy(1, client_order_id="rests", price=95)) == "DUPLICATE_ORDER_ID"
        assert code(await desk.buy(2, client_order_id="rests", price=95)) == "DUPLICATE_ORDER_ID"
        assert desk.sent() == ["done", "rests"]
        assert await desk.velocity() == 2


async def test_a_decision_is_spent_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        assert code(await desk.buy(1, decision_id="d1")) == "ACCEPTED"
        assert code(await desk.buy(1, decision_id="d1")) == "DUPLICATE_DECISION"
        assert len(desk.sent()) == 1


async def test_a_refused_order_spends_no_decision(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        assert code(await desk.buy(101, decision_id="d1")) == "POSITION_SIZE"
        assert code(await desk.buy(1, decision_id="d1")) == "ACCEPTED"


async def test_a_symbol_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        assert codes(await desk.buy(1, symbol="DOGE/USDT"))[0] == "SYMBOL_NOT_ALLOWED"


async def test_spot_on_the_whitelist_does_not_admit_the_perpetual(tmp_path: Path) -> None:
    async with opened(tmp_path, position_limits=limits(allowed_symbols=(BTC,))) as desk:
        assert codes(await desk.buy(1, symbol=PERP))[0] == "SYMBOL_NOT_ALLOWED"


async def test_an_entry_needs_a_fresh_price(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        desk.clock.advance(5.001)
        await desk.breaker.record_equity(10_000)
        await desk.breaker.check_all_metrics()
        assert code(await desk.buy()) == "PRICE_UNAVAILABLE"
        assert code(await desk.buy(price=100)) == "PRICE_UNAVAILABLE"


async def test_a_limit_price_far_beyond_the_reference_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        assert code(await desk.buy(1, price="105.01")) == "PRICE_COLLAR"
        assert code(await desk.buy(1, price="105")) == "ACCEPTED"


async def test_a_spot_sell_beyond_what_is_held_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1)
        answer = await desk.sell("1.5")
        assert code(answer) == "INSUFFICIENT_POSITION"
        assert isinstance(answer, Refused)
        assert "1 would pass" in answer.rejection_reason
        assert code(await desk.sell(1)) == "ACCEPTED"


async def test_a_reduce_only_order_may_only_reduce(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1, PERP)
        assert code(await desk.sell(2, symbol=PERP, reduce_only=True)) == "REDUCE_ONLY"
        assert code(await desk.sell(1, symbol=PERP, reduce_only=True)) == "ACCEPTED"


async def test_no_exit_is_sent_while_the_kill_switch_closes(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1)
        await desk.kill_switch.activate(KillSwitchMode.CLOSE_POSITIONS, "flat, now")
        assert code(await desk.sell(1)) == "POSITION_CLOSING"
        assert desk.sent() == []


@pytest.mark.parametrize(
    ("content", "answer"),
    [("CLOSE_POSITIONS", "POSITION_CLOSING"), ("HALT_ONLY", "ACCEPTED"), ("", "ACCEPTED")],
)
async def test_a_close_that_stands_only_in_the_kill_file_refuses_exits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, answer: str
) -> None:
    """The watcher has not latched it yet, or could not: the database hung just then."""
    async with opened(tmp_path) as desk:
        await desk.have(1)
        monkeypatch.setattr(desk.kill_switch._watch, "look", _sees_nothing)
        (desk.context.data_dir / "KILL").write_text(content)
        assert code(await desk.sell(1)) == answer
        assert await desk.read(lambda tx: tx.standing_latches()) == ()
        # Refused at the decision, and not only by the last look before the send.
        approved = len(await desk.rows("ORDER_APPROVED"))
        assert approved == (1 if answer == "ACCEPTED" else 0)


async def test_a_close_by_file_between_an_exits_approval_and_its_send_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1)
        monkeypatch.setattr(desk.kill_switch._watch, "look", _sees_nothing)

        async def interrupt(approved: Approved) -> None:
            (desk.context.data_dir / "KILL").write_text("CLOSE_POSITIONS")

        desk.exchange.hook = interrupt
        assert code(await desk.sell(1, client_order_id="a")) == "POSITION_CLOSING"
        assert desk.sent() == []
        assert (await desk.hold("a")).state is HoldState.RELEASED


async def _sees_nothing() -> None:
    """A watcher that has not come to look."""


async def test_an_exit_that_cannot_be_told_to_reduce_needs_a_fresh_position(
    tmp_path: Path,
) -> None:
    venue = Venue()
    venue.set_rules(MarketRules(PERP, reduce_only=False, spot=False))
    async with opened(tmp_path, exchange=venue) as desk:
        await desk.have(1, PERP, read=False)
        assert code(await desk.sell(1, symbol=PERP)) == "POSITION_STALE"
        await desk.have(1, PERP)
        assert code(await desk.sell(1, symbol=PERP)) == "ACCEPTED"


async def test_the_position_limit_counts_what_is_held(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(95)
        assert code(await desk.buy(6)) == "POSITION_SIZE"
        assert code(await desk.buy(5)) == "ACCEPTED"


async def test_the_total_is_limited(tmp_path: Path) -> None:
    caps = limits(max_total_exposure=15_000, max_sector_exposure_pct=100)
    async with opened(tmp_path, position_limits=caps) as desk:
        assert code(await desk.buy(100)) == "ACCEPTED"
        assert code(await desk.buy("50.00000001", symbol=ETH)) == "TOTAL_EXPOSURE"
        assert code(await desk.buy(50, symbol=ETH)) == "ACCEPTED"


async def test_leverage_is_limited(tmp_path: Path) -> None:
    async with opened(tmp_path, position_limits=limits(max_leverage="0.1")) as desk:
        assert code(await desk.buy("10.00000001")) == "LEVERAGE"
        assert code(await desk.buy(10)) == "ACCEPTED"


async def test_a_sector_is_limited(tmp_path: Path) -> None:
    caps = limits(max_sector_exposure_pct=30)
    async with opened(tmp_path, position_limits=caps) as desk:
        assert code(await desk.buy(100, symbol=ETH)) == "ACCEPTED"
        assert code(await desk.buy(51, symbol=SOL)) == "SECTOR_EXPOSURE"
        assert code(await desk.buy(50, symbol=SOL)) == "ACCEPTED"


async def test_an_approval_that_is_not_sent_at_once_expires(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:

        async def dawdle(approved: Approved) -> None:
            desk.clock.advance(0.251)

        desk.exchange.hook = dawdle
        assert code(await desk.buy(1, client_order_id="late")) == "APPROVAL_EXPIRED"
        assert desk.sent() == []
        assert (await desk.hold("late")).state is HoldState.RELEASED
        assert await desk.velocity() == 0


async def test_a_process_with_other_limits_sends_nothing(tmp_path: Path) -> None:
    async with (
        opened(tmp_path) as desk,
        opened(tmp_path, funded=False, position_limits=limits(max_leverage=3)) as other,
    ):
        answer = await other.buy()
        assert code(answer) == "LIMITS_DIFFER"
        assert isinstance(answer, Refused)
        assert "max_leverage is 20 in the store, 3 here" in answer.rejection_reason
        assert code(await desk.buy()) == "ACCEPTED"


async def test_a_fault_of_our_own_refuses_and_trips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as desk:

        def broken(*_: object) -> object:
            raise RuntimeError("a bug")

        monkeypatch.setattr("tinywindow.safety.services.admitter.admit", broken)
        answer = await desk.buy(1, client_order_id="a")
        monkeypatch.undo()

        assert code(answer) == "INTERNAL_ERROR"
        assert desk.sent() == []
        (trip,) = await desk.data("CIRCUIT_BREAKER_TRIP")
        assert trip["reason"] == "INTERNAL_ERROR: RuntimeError inside the order gate"
        assert [row.order_id for row in await desk.rows("INTERNAL_ERROR")] == ["a"]
        assert code(await desk.buy()) == "CIRCUIT_BREAKER_TRIPPED"


async def test_nothing_leaves_the_gate_but_a_value_even_when_the_trip_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as desk:

        def broken(*_: object, **__: object) -> object:
            raise RuntimeError("a bug")

        monkeypatch.setattr("tinywindow.safety.services.admitter.admit", broken)
        monkeypatch.setattr(desk.breaker, "latch_trip", broken)
        assert code(await desk.buy()) == "INTERNAL_ERROR"


# The order of checks.


async def test_the_first_reason_is_that_of_the_first_check(tmp_path: Path) -> None:
    """Each check is put right in turn, and the next one in line then decides."""
    bell = FakeBell()
    async with opened(tmp_path, bell=bell) as desk:

        async def first(**terms: object) -> str:
            given = {"symbol": "DOGE/USDT", "price": 200, **terms}
            return code(await desk.buy(1_000, **given))

        await desk.breaker.record_equity(8_500)
        await desk.kill_switch.activate(reason="enough", actor="ada")
        bell.down = "away"
        desk.clock.advance(6)
        assert await first() == "KILL_SWITCH_ACTIVE"
        assert code(await desk.buy("NaN")) == "KILL_SWITCH_ACTIVE"

        bell.down = None
        await desk.kill_switch.deactivate(reason="looked", actor="ada")
        await desk.breaker.check_all_metrics()
        assert await first() == "CIRCUIT_BREAKER_TRIPPED"
        assert code(await desk.buy("NaN")) == "CIRCUIT_BREAKER_TRIPPED"

        await desk.breaker.record_equity(8_500)
        pending = desk.breaker.reset()
        await pending.confirm("ada", "looked", rebaseline=True)
        assert await first() == "TRADING_STOPPED"
        await desk.kill_switch.start_trading(actor="ada")
        assert code(await desk.buy("NaN")) == "VALIDATION_FAILED"
        assert await first() == "SYMBOL_NOT_ALLOWED"
        assert await first(symbol=BTC) == "PRICE_UNAVAILABLE"
        await desk.reprice(PRICE)
        assert await first(symbol=BTC) == "PRICE_COLLAR"
        assert await first(symbol=BTC, price=100) == "POSITION_SIZE"
        assert desk.sent() == []


async def test_a_refusal_names_every_rule_that_the_order_breaks(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        assert codes(await desk.buy(6_000, price=200)) == [
            "PRICE_COLLAR",
            "POSITION_SIZE",
            "TOTAL_EXPOSURE",
            "LEVERAGE",
            "SECTOR_EXPOSURE",
        ]


# What only reduces is let through.


async def tripped(desk: Desk) -> None:
    await desk.breaker.record_equity(5_000)


async def latched(desk: Desk) -> None:
    await desk.kill_switch.activate(reason="enough")


async def stale(desk: Desk) -> None:
    desk.clock.advance(61)


async def unlisted(desk: Desk) -> None:
    await desk.limits.close()
    changed = PositionLimitEnforcer(
        desk.limits._handle._location,
        limits=limits(allowed_symbols=(ETH,)),
        clock=desk.clock,
        change_limits=True,
    )
    async with changed:
        pass


async def crowded(desk: Desk) -> None:
    for number in range(60):
        await desk.breaker.record_execution(ok=True, client_order_id=f"o{number}")


@pytest.mark.parametrize("worse", [latched, tripped, stale, unlisted, crowded])
@pytest.mark.parametrize("terms", [{}, {"price": 50}], ids=["market", "limit"])
async def test_an_exit_passes_whatever_stops_entries(
    tmp_path: Path, worse: Callable[[Desk], object], terms: dict[str, object]
) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1)
        await worse(desk)  # type: ignore[misc]
        assert code(await desk.buy(1)) not in {"ACCEPTED", "REJECTED"}
        assert code(await desk.sell(1, **terms)) == "ACCEPTED"
        ((_, reduce_only),) = desk.exchange.sent
        assert reduce_only


async def test_the_fifty_first_order_is_sent_where_it_only_reduces_and_trips(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1)
        for number in range(50):
            await desk.breaker.record_execution(ok=True, client_order_id=f"o{number}")
        assert code(await desk.sell("0.5")) == "ACCEPTED"
        assert desk.breaker.is_tripped
        assert len(await desk.rows("CIRCUIT_BREAKER_TRIP")) == 1
        assert code(await desk.sell("0.5")) == "ACCEPTED"


async def test_two_exits_may_not_together_be_more_than_the_position(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1)
        assert code(await desk.sell(1, price=120)) == "ACCEPTED"
        assert code(await desk.sell("0.1")) == "INSUFFICIENT_POSITION"


async def test_a_short_is_an_entry_and_its_cover_an_exit(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        assert code(await desk.sell(1, symbol=PERP)) == "ACCEPTED"
        await latched(desk)
        assert code(await desk.sell(1, symbol=PERP)) == "KILL_SWITCH_ACTIVE"
        assert code(await desk.buy(1, symbol=PERP)) == "ACCEPTED"


async def test_an_order_beyond_zero_is_an_entry_as_a_whole(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1, PERP)
        await latched(desk)
        assert code(await desk.sell("1.1", symbol=PERP)) == "KILL_SWITCH_ACTIVE"


# The approval.


def test_nobody_but_the_gate_can_make_an_approval() -> None:
    with pytest.raises(InvariantBroken, match="minted by the gate"):
        Approved(
            object(),
            None,  # type: ignore[arg-type]
            reduce_only=False,
            epoch=0,
            last_look=lambda: None,
        )


async def test_an_approval_is_used_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        kept: list[Approved] = []

        async def keep(approved: Approved) -> None:
            kept.append(approved)

        desk.exchange.hook = keep
        await desk.buy(1)
        with pytest.raises(InvariantBroken, match="used twice"):
            kept[0].redeem()
        assert mint(kept[0].order, reduce_only=False, epoch=0, last_look=lambda: None)


async def stop_by_python(desk: Desk) -> None:
    await desk.kill_switch.activate(reason="enough")


async def stop_by_file(desk: Desk) -> None:
    (desk.context.data_dir / "KILL").write_text("")


async def stop_by_trip(desk: Desk) -> None:
    await desk.breaker.record_equity(1_000)


async def stop_by_operator(desk: Desk) -> None:
    await desk.kill_switch.stop_trading(actor="ada")


async def stop_and_release(desk: Desk) -> None:
    await desk.kill_switch.activate(reason="enough")
    await desk.kill_switch.deactivate(reason="no", actor="ada")
    await desk.kill_switch.start_trading(actor="ada")


@pytest.mark.parametrize(
    ("stop", "why"),
    [
        (stop_by_python, "KILL_SWITCH_ACTIVE"),
        (stop_by_file, "KILL_SWITCH_ACTIVE"),
        (stop_by_trip, "CIRCUIT_BREAKER_TRIPPED"),
        (stop_by_operator, "TRADING_STOPPED"),
        (stop_and_release, "KILL_SWITCH_ACTIVE"),
    ],
)
async def test_a_stop_between_approval_and_send_stops_the_send(
    tmp_path: Path, stop: Callable[[Desk], object], why: str
) -> None:
    async with opened(tmp_path) as desk:

        async def interrupt(approved: Approved) -> None:
            await stop(desk)  # type: ignore[misc]

        desk.exchange.hook = interrupt
        assert code(await desk.buy(1, client_order_id="a")) == why
        assert desk.sent() == []
        assert (await desk.hold("a")).state is HoldState.RELEASED
        assert await desk.velocity() == 0
        assert (await desk.limits.capacity(BTC)).buy == 100


async def test_an_exit_is_sent_although_a_stop_came_but_not_into_a_close(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(2)
        mode = KillSwitchMode.HALT_ONLY

        async def interrupt(approved: Approved) -> None:
            await desk.kill_switch.activate(mode, "enough")

        desk.exchange.hook = interrupt
        assert code(await desk.sell(1)) == "ACCEPTED"
        mode = KillSwitchMode.CLOSE_POSITIONS
        assert code(await desk.sell(1, client_order_id="a")) == "POSITION_CLOSING"
        assert (await desk.hold("a")).state is HoldState.RELEASED


async def test_an_approval_dates_from_its_commit_and_not_from_when_the_loop_woke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as desk:
        store, decide = desk.context.store, desk.context.store.decide

        async def stalled(*given: object) -> object:
            verdict = await decide(*given)  # type: ignore[arg-type]
            desk.clock.advance(2)
            return verdict

        monkeypatch.setattr(store, "decide", stalled)
        assert code(await desk.buy(1)) == "APPROVAL_EXPIRED"


# Callers that go away.


async def test_a_cancelled_caller_leaves_no_unsettled_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as desk:
        reached, go_on = asyncio.Event(), asyncio.Event()
        place = desk.exchange.place

        async def slow(approved: Approved) -> Placed:
            placed = await place(approved)
            reached.set()
            await go_on.wait()
            return placed

        monkeypatch.setattr(desk.exchange, "place", slow)
        caller = asyncio.create_task(desk.buy(1, client_order_id="a"))
        await reached.wait()
        caller.cancel()
        await asyncio.wait({caller})
        go_on.set()
        await desk.gate.settled()
        assert caller.cancelled()
        assert (await desk.hold("a")).state is HoldState.FILLED
        assert await desk.position() == 1


async def test_an_order_whose_caller_went_away_before_the_send_is_not_sent(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def wait(approved: Approved) -> None:
            reached.set()
            await go_on.wait()

        desk.exchange.hook = wait
        caller = asyncio.create_task(desk.buy(1, client_order_id="a"))
        await reached.wait()
        caller.cancel()
        await asyncio.wait({caller})
        go_on.set()
        await desk.gate.settled()
        assert desk.sent() == []
        assert (await desk.hold("a")).state is HoldState.RELEASED
        assert await desk.velocity() == 0


# Evaluation.


async def test_evaluate_says_what_submit_would_and_holds_and_records_nothing(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        before, calls = await desk.rows(), dict(desk.exchange.calls)
        asked = desk.gate.evaluate(order("BUY", 1, client_order_id="a"))
        assert asked == ApprovedInPrinciple("a", reduces=False)
        for _ in range(50):
            assert code(desk.gate.evaluate(order("BUY", 101))) == "POSITION_SIZE"  # type: ignore[arg-type]
        assert code(desk.gate.evaluate("nonsense")) == "VALIDATION_FAILED"  # type: ignore[arg-type]
        desk.clock.advance(1)
        await desk.limits.admitter.flush_refusals(desk.context, everything=True)
        assert await desk.rows() == before
        assert desk.exchange.calls == calls
        assert await desk.read(lambda tx: tx.hold("a")) is None


async def test_evaluate_tells_of_stops_before_it_looks_at_the_form(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.kill_switch.activate(reason="enough")
        assert code(desk.gate.evaluate("nonsense")) == "KILL_SWITCH_ACTIVE"  # type: ignore[arg-type]
        assert code(desk.gate.evaluate(order("BUY"))) == "KILL_SWITCH_ACTIVE"  # type: ignore[arg-type]


async def test_evaluate_refuses_until_the_store_was_read(tmp_path: Path) -> None:
    async with opened(tmp_path, funded=False) as desk:
        assert code(desk.gate.evaluate(order("BUY"))) == "STATE_UNKNOWN"  # type: ignore[arg-type]


# Enforcer and gate together.


async def test_an_order_that_the_enforcer_reserved_is_sent_once_under_its_id(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        mine = order("BUY", 10, client_order_id="a")
        assert (await desk.limits.check_order_allowed(mine)).allowed
        assert code(await desk.gate.submit(mine)) == "ACCEPTED"
        assert code(await desk.gate.submit(mine)) == "DUPLICATE_ORDER_ID"
        assert await desk.position() == 10
        assert await desk.velocity() == 1


async def test_two_gates_may_share_one_enforcer(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        other = Venue("elsewhere")
        second = OrderGate(desk.breaker, desk.kill_switch, desk.limits, desk.gate._validator, other)
        assert code(await second.submit(Order(BTC, "BUY", 1))) == "ACCEPTED"
        assert code(await desk.buy(1)) == "ACCEPTED"
        assert (len(other.sent), len(desk.sent())) == (1, 1)


async def test_a_store_that_is_gone_refuses_and_raises_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.have(1)
        (tmp_path / "tinywindow.db").rename(tmp_path / "gone")
        for side in ("BUY", "SELL"):
            assert code(await desk.gate.submit(order(side))) == "STATE_UNKNOWN"
        assert codes(await desk.gate.submit(None)) == ["STATE_UNKNOWN", "VALIDATION_FAILED"]
        (tmp_path / "gone").rename(tmp_path / "tinywindow.db")
        assert code(await desk.sell()) == "ACCEPTED"


async def test_a_store_that_cannot_be_opened_refuses(tmp_path: Path) -> None:
    (tmp_path / "tinywindow.db").write_bytes(b"no database" * 1_000)
    async with opened(tmp_path, funded=False) as desk:
        assert code(await desk.buy()) == "STATE_UNKNOWN"


async def test_every_decision_has_exactly_one_row(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        before = len(await desk.rows())
        await desk.buy(1, client_order_id="sent")
        await desk.buy(101, client_order_id="refused")
        await desk.gate.submit(None)
        await desk.kill_switch.activate(reason="enough")
        await desk.buy(1, client_order_id="halted")
        rows = (await desk.rows())[before:]
        told = [(row.event_type, row.order_id) for row in rows if "ORDER" in row.event_type]
        assert told == [
            ("ORDER_APPROVED", "sent"),
            ("ORDER_OUTCOME", "sent"),
            ("ORDER_REJECTED_LIMITS", "refused"),
            ("ORDER_VALIDATION_FAILED", None),
            ("ORDER_REJECTED_HALTED", "halted"),
        ]
        assert len({row.id for row in rows}) == len(rows)


async def test_trading_is_running_on_a_fresh_store_and_stopped_by_every_stop(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        assert (await desk.read(lambda tx: tx.head())).trading is TradingState.RUNNING
        await desk.breaker.record_equity(1_000)
        assert (await desk.read(lambda tx: tx.head())).trading is TradingState.STOPPED


async def test_a_gate_is_built_of_parts_on_one_database(tmp_path: Path) -> None:
    clock, where = FakeClock(), tmp_path / "tinywindow.db"
    async with (
        CircuitBreaker(None, where, clock=clock) as breaker,
        KillSwitch(None, None, where, clock=clock) as switch,
        PositionLimitEnforcer(where, clock=clock) as enforcer,
        OrderGate(breaker, switch, enforcer, OrderValidator(), Venue()) as gate,
    ):
        at = clock.now() - timedelta(seconds=1)
        await breaker.record_equity(10_000, at=at)
        await enforcer.set_reference_price(BTC, 100, at=at)
        assert code(await gate.submit(Order(BTC, "BUY", 1))) == "ACCEPTED"
