"""Admission: one order, one decision, one draft with everything that is committed with it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal as D
from typing import Any

import pytest
from admission_cases import (
    BTC,
    BUY,
    CLOCK,
    MOMENT,
    NOW,
    PERP,
    PROBED,
    ROLLED,
    SELL,
    TRIP,
    asked,
    codes,
    held,
    latch,
    long,
    order,
    view_of,
)

from tinywindow.safety.domain.admission import (
    Admitted,
    admit,
    halting_reasons,
    standing_stops,
)
from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.book import Draft
from tinywindow.safety.domain.decision import Reason, Refusal
from tinywindow.safety.domain.kill import KillSwitchMode, Latch
from tinywindow.safety.domain.limits import EquityView
from tinywindow.safety.domain.order import OrderType, PositionKey
from tinywindow.safety.domain.records import (
    HoldState,
    TradingState,
)


def test_an_entry_that_passes_is_held_with_its_guard_sums_and_one_audit_row() -> None:
    draft = admit(asked(order(BUY, "1.0000005")), view_of(long()))

    assert draft.result == Admitted(draft.hold, epoch=4, reduces=False)
    assert draft.hold is not None
    assert (draft.hold.state, draft.hold.intent_ms) == (HoldState.INTENDED, NOW)
    assert (draft.hold.client_order_id, draft.hold.decision_id) == ("c1", "d1")
    assert draft.entry
    assert draft.take_slot
    assert (draft.exposure_micros, draft.symbol_micros) == (600_000_050, 600_000_050)
    assert (draft.exposure_cap_micros, draft.symbol_cap_micros) == (50_000 * 10**6, 10_000 * 10**6)
    assert (draft.trip, draft.at_ms) == (None, NOW)
    (row,) = draft.audit
    assert (row.id, row.event_type, row.actor) == ("row", EventType.ORDER_APPROVED, "gate")
    assert (row.order_id, row.decision_id, row.agent_id) == ("c1", "d1", "a1")
    assert row.data["exposure"] == {
        "symbol_usd": "600.00005",
        "symbol_limit_usd": "10000",
        "total_usd": "600.00005",
        "total_limit_usd": "50000",
    }


def test_the_enforcer_alone_reserves_without_an_intent_a_slot_or_the_breakers_metrics() -> None:
    view = view_of(orders=500, equities=(100, 1), trading=TradingState.STOPPED)
    draft = admit(asked(with_intent=False, breaker=None), view)

    assert draft.hold is not None
    assert (draft.hold.state, draft.hold.intent_ms, draft.take_slot) == (
        HoldState.HELD,
        None,
        False,
    )
    assert codes(admit(asked(breaker=None), view_of(TRIP))) == ["CIRCUIT_BREAKER_TRIPPED"]


def test_the_evidence_of_the_shell_is_in_the_row() -> None:
    (row,) = admit(asked(order(price=D(100), type=OrderType.LIMIT), data={"x": 1}), view_of()).audit

    assert row.data["x"] == 1
    assert row.data["order"] == {
        "symbol": PERP, "side": "BUY", "type": "LIMIT", "amount": "1", "price": "100",
        "reduce_only": False, "venue": "paper", "account": "default",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "changes", "code"),
    [
        ((latch(),), {}, "KILL_SWITCH_ACTIVE"),
        ((latch(KillSwitchMode.CLOSE_POSITIONS),), {}, "KILL_SWITCH_ACTIVE"),
        ((), {"stop_probe": lambda: PROBED}, "KILL_SWITCH_ACTIVE"),
        ((), {"found": (ROLLED,)}, "STORE_ROLLED_BACK"),
        ((), {"found": (CLOCK,)}, "CLOCK_UNTRUSTED"),
        ((TRIP,), {}, "CIRCUIT_BREAKER_TRIPPED"),
        ((), {"order": order(BUY, 101)}, "POSITION_SIZE"),
        ((), {"order": order(BUY, 1, "ETH/USDT")}, "SYMBOL_NOT_ALLOWED"),
        ((), {"equity_of": lambda _: EquityView(None, known=False)}, "LEVERAGE"),
    ],
)
def test_each_stop_refuses_an_entry_with_one_row_and_holds_nothing(
    parts: tuple[Any, ...], changes: dict[str, Any], code: str
) -> None:
    draft = admit(asked(**changes), view_of(*parts))

    assert codes(draft)[0] == code
    assert (draft.hold, draft.entry, draft.take_slot, draft.trip) == (None, False, False, None)
    (row,) = draft.audit
    halted = Reason(code) in halting_reasons
    assert row.event_type.value == ("ORDER_REJECTED_HALTED" if halted else "ORDER_REJECTED_LIMITS")
    assert str(row.data["reason"]).startswith(f"{code}: ")
    breaches = row.data["breaches"]
    assert isinstance(breaches, list)
    assert [one["code"] for one in breaches] == codes(draft)


def test_the_order_of_checks_is_kill_switch_found_breaker_metrics_ids() -> None:
    old = held(order(), state=HoldState.FILLED)
    view = view_of(latch(), TRIP, orders=60, existing=old)
    draft = admit(asked(found=(ROLLED,), stop_probe=lambda: PROBED), view)
    assert codes(draft) == [
        "KILL_SWITCH_ACTIVE", "STORE_ROLLED_BACK", "CIRCUIT_BREAKER_TRIPPED", "DUPLICATE_ORDER_ID",
    ]  # fmt: skip

    draft = admit(asked(found=(ROLLED,), stop_probe=lambda: PROBED), view_of(orders=60, spent=True))
    assert codes(draft) == [
        "KILL_SWITCH_ACTIVE", "STORE_ROLLED_BACK", "TRADE_VELOCITY", "DUPLICATE_DECISION",
    ]  # fmt: skip


def test_the_strongest_latch_is_named_and_the_probe_is_not_asked_beside_it() -> None:
    def probe() -> Refusal | None:
        raise AssertionError("asked")

    close = replace(latch(KillSwitchMode.CLOSE_POSITIONS), id="l2", reason="all of it")
    draft = admit(asked(stop_probe=probe), view_of(latch(), close))

    assert codes(draft) == ["KILL_SWITCH_ACTIVE"]
    assert "CLOSE_POSITIONS by who: all of it" in draft.result.reason  # type: ignore[union-attr]
    assert [one.code for one in standing_stops(view_of(TRIP, latch()).book)] == [
        Reason.KILL_SWITCH_ACTIVE,
        Reason.CIRCUIT_BREAKER_TRIPPED,
    ]
    assert standing_stops(view_of().book) == ()


def test_stopped_trading_refuses_entries_and_is_named_only_when_nothing_else_is() -> None:
    assert codes(admit(asked(), view_of(trading=TradingState.STOPPED))) == ["TRADING_STOPPED"]
    both = view_of(latch(), trading=TradingState.STOPPED)
    assert codes(admit(asked(), both)) == ["KILL_SWITCH_ACTIVE"]
    exit_ = admit(asked(order(SELL)), view_of(long(), trading=TradingState.STOPPED))
    assert codes(exit_) == []


def test_a_loss_that_crosses_its_line_refuses_the_entry_and_trips_with_a_row_of_its_own() -> None:
    draft = admit(asked(), view_of(equities=(10_000, 9_000)))

    assert codes(draft)[0] == "CIRCUIT_BREAKER_TRIPPED"
    assert draft.trip is not None
    assert (draft.trip.id, draft.trip.metric) == ("trip", "daily_pnl")
    assert [(row.id, row.event_type.value) for row in draft.audit] == [
        ("trip", "CIRCUIT_BREAKER_TRIP"),
        ("row", "ORDER_REJECTED_HALTED"),
    ]


@pytest.mark.parametrize(("before", "passes"), [(49, True), (50, False)])
def test_the_fifty_first_entry_in_an_hour_is_refused_and_trips(
    before: int, *, passes: bool
) -> None:
    draft = admit(asked(), view_of(orders=before))

    assert codes(draft) == ([] if passes else ["TRADE_VELOCITY"])
    assert (draft.trip is None) is passes
    assert draft.take_slot is passes
    if draft.trip is not None:
        assert draft.trip.metric == "trade_velocity"
        assert [row.event_type.value for row in draft.audit] == [
            "CIRCUIT_BREAKER_TRIP",
            "ORDER_REJECTED_HALTED",
        ]


def test_the_fifty_first_order_is_sent_and_trips_when_it_strictly_reduces() -> None:
    draft = admit(asked(order(SELL)), view_of(long(), orders=50))

    assert draft.result == Admitted(draft.hold, epoch=5, reduces=True)
    assert draft.take_slot
    assert not draft.entry
    assert draft.trip is not None
    assert [row.event_type.value for row in draft.audit] == [
        "CIRCUIT_BREAKER_TRIP",
        "ORDER_APPROVED",
    ]
    again = admit(asked(order(SELL)), view_of(long(), TRIP, orders=60))
    assert (again.trip, codes(again), len(again.audit)) == (None, [], 1)


def test_an_exit_passes_whatever_may_only_stop_risk_from_growing() -> None:
    def unasked(_: object) -> Any:
        raise AssertionError("an exit asks for neither price, equity nor the probe")

    view = view_of(long(5, "DOGE/USDT:USDT"), latch(), TRIP, trading=TradingState.STOPPED)
    view.book.prices.clear()
    exit_ = order(SELL, 5, "DOGE/USDT:USDT", type=OrderType.LIMIT, price=D("0.01"))
    draft = admit(
        asked(exit_, found=(ROLLED, CLOCK), equity_of=unasked, price_source=unasked), view
    )
    assert codes(draft) == []
    assert draft.hold is not None
    assert draft.hold.reduces


@pytest.mark.parametrize(
    ("resting", "amount", "reduces"),
    [(0, 5, True), (0, "5.01", False), (2, 3, True), (2, 4, False)],
)
def test_an_order_strictly_reduces_up_to_what_is_not_yet_offered(
    resting: int, amount: object, *, reduces: bool
) -> None:
    rests = [] if not resting else [replace(held(order(SELL, resting)), client_order_id="rests")]
    draft = admit(asked(order(SELL, amount)), view_of(long(), TRIP, *rests))

    assert (codes(draft) == []) is reduces


def test_a_running_close_refuses_an_exit() -> None:
    draft = admit(
        asked(order(SELL)), view_of(long(), latch(KillSwitchMode.CLOSE_POSITIONS), spent=True)
    )
    assert codes(draft) == ["POSITION_CLOSING"]
    assert draft.audit[0].event_type is EventType.ORDER_REJECTED_HALTED


HALT, CLOSE = KillSwitchMode.HALT_ONLY, KillSwitchMode.CLOSE_POSITIONS


@pytest.mark.parametrize(
    ("latched", "beside", "closing"),
    [
        ((), (latch(CLOSE),), True),
        ((), (latch(HALT),), False),
        ((replace(latch(HALT), id="l0"),), (latch(CLOSE),), True),
        # The database took the same stop on as a halt only, since it was older than a release.
        ((latch(HALT),), (latch(CLOSE),), False),
        ((), (replace(latch(CLOSE), released_at=MOMENT),), False),
    ],
)
def test_a_close_that_only_the_file_or_the_own_flag_knows_refuses_an_exit(
    latched: tuple[Latch, ...], beside: tuple[Latch, ...], *, closing: bool
) -> None:
    draft = admit(
        asked(order(SELL), stops_beside=lambda: beside), view_of(long(), *latched, spent=True)
    )
    assert codes(draft) == (["POSITION_CLOSING"] if closing else [])


@pytest.mark.parametrize(
    ("read_ms", "changes", "code"),
    [
        (NOW - 5_000, {}, None),
        (NOW - 5_001, {}, "POSITION_STALE"),
        (None, {}, "POSITION_STALE"),
        (None, {"venue_reduces_only": True}, None),
        (None, {"with_intent": False}, None),
        (None, {"order": order(SELL, 1, BTC)}, None),
    ],
)
def test_without_a_reduce_only_flag_the_position_must_have_been_read(
    read_ms: int | None, changes: dict[str, Any], code: str | None
) -> None:
    fields = {"order": order(SELL), "venue_reduces_only": False, **changes}
    view = view_of(long(read_ms=read_ms), long(symbol=BTC, read_ms=read_ms))
    draft = admit(asked(fields.pop("order"), **fields), view)

    assert codes(draft) == ([] if code is None else [code])
    if isinstance(draft.result, Refusal):
        assert (draft.result.breaches[0].limit, draft.result.breaches[0].unit) == (D(5), "s")


def test_a_position_that_vanished_leaves_nothing_to_rely_on() -> None:
    exit_ = order(SELL)
    draft = admit(asked(exit_, venue_reduces_only=False), view_of(existing=held(exit_)))

    assert codes(draft) == ["POSITION_STALE"]


def test_the_same_open_order_again_reserves_nothing_more_and_may_get_its_intent() -> None:
    view = view_of(existing=held(order()))
    asks = admit(asked(with_intent=False, breaker=None), view)
    assert asks == Draft(Admitted(view.existing, 4, reduces=False), at_ms=NOW)  # type: ignore[arg-type]

    sends = admit(asked(), view)
    assert sends.hold is not None
    assert (sends.hold.state, sends.hold.intent_ms) == (HoldState.INTENDED, NOW)
    assert (sends.take_slot, sends.entry, sends.exposure_micros) == (True, False, 0)
    assert [row.data["reserved_before"] for row in sends.audit] == [True]


def test_asking_again_reads_the_stops_again() -> None:
    view = view_of(latch(), existing=held(order()))

    assert codes(admit(asked(), view)) == ["KILL_SWITCH_ACTIVE"]


def test_a_reserved_exit_that_trips_when_it_is_sent_is_sent_at_the_epoch_of_its_trip() -> None:
    exit_ = order(SELL)
    draft = admit(asked(exit_), view_of(long(), orders=50, existing=held(exit_)))

    assert isinstance(draft.result, Admitted)
    assert (draft.result.epoch, draft.result.reduces) == (5, True)
    assert draft.trip is not None
    assert [row.event_type.value for row in draft.audit] == [
        "CIRCUIT_BREAKER_TRIP",
        "ORDER_APPROVED",
    ]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"state": HoldState.FILLED}, "has ended FILLED"),
        ({"state": HoldState.RELEASED}, "has ended RELEASED"),
        ({"state": HoldState.LAPSED}, "has ended LAPSED"),
        ({"intent_ms": NOW, "state": HoldState.WORKING}, "already given to be sent"),
        ({"amount": D(2)}, "stands for another order"),
        ({"side": SELL}, "stands for another order"),
        ({"price": D(1)}, "stands for another order"),
        ({"type": OrderType.LIMIT}, "stands for another order"),
        ({"reduce_only": True}, "stands for another order"),
        ({"key": PositionKey("paper", "x", PERP)}, "stands for another order"),
    ],
)
def test_an_id_stands_for_one_order_once(other: dict[str, Any], words: str) -> None:
    draft = admit(asked(), view_of(existing=held(order(), **other), spent=True, orders=50))

    assert codes(draft) == ["DUPLICATE_ORDER_ID"]
    assert words in draft.result.reason  # type: ignore[union-attr]
    assert draft.trip is None  # what will never be sent takes no slot
    assert [row.event_type.value for row in draft.audit] == ["ORDER_REJECTED_LIMITS"]


def test_a_decision_is_spent_once() -> None:
    draft = admit(asked(), view_of(spent=True))

    assert codes(draft) == ["DUPLICATE_DECISION"]
    assert "decision d1" in draft.result.reason  # type: ignore[union-attr]


def test_a_spent_decision_holds_back_no_exit() -> None:
    draft = admit(asked(order(SELL)), view_of(long(), spent=True))

    assert codes(draft) == []
    assert draft.hold is not None
    assert draft.hold.decision_id is None
    assert draft.audit[0].decision_id == "d1"


@pytest.mark.parametrize("counted", [True, False])
def test_a_refusal_that_is_counted_with_others_has_no_row_of_its_own(*, counted: bool) -> None:
    seen: list[Refusal] = []

    def coalesced(refusal: Refusal) -> bool:
        seen.append(refusal)
        return counted

    draft = admit(asked(coalesced=coalesced), view_of(orders=50))
    assert [draft.result] == seen
    rows = [row.event_type.value for row in draft.audit]
    assert rows == ["CIRCUIT_BREAKER_TRIP", *([] if counted else ["ORDER_REJECTED_HALTED"])]
