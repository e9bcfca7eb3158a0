"""The breaker: boundaries of the five metrics, its sentences, its machine, and the reset."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.breaker import (
    LOSSES,
    TRANSITIONS,
    Audit,
    Breach,
    BreakerLimits,
    BreakerState,
    CancelEntries,
    ClearCounts,
    ClearLatch,
    ConfirmReset,
    Latch,
    Metric,
    MetricReading,
    MetricState,
    Rebaseline,
    breaches,
    evaluate,
    halt_reason,
    step,
    velocity,
)
from tinywindow.safety.domain.nav import Mark, NavConfig, NavState, apply_mark
from tinywindow.safety.domain.reset import (
    RESET_LIFETIME_MS,
    PendingReset,
    ResetVerdict,
    judge,
    pending_reset,
)
from tinywindow.safety.domain.windows import Execution, ExecutionBook, ExecutionKind, Outcome
from tinywindow.safety.errors import InvariantBroken

NOW = 1_700_000_000_000
LIMITS = BreakerLimits()
OK, BREACHED, UNKNOWN = MetricState.OK, MetricState.BREACHED, MetricState.UNKNOWN


def nav(*equities: Any, estimated: bool = False) -> NavState:
    state = NavState()
    for number, equity in enumerate(equities):
        last = number == len(equities) - 1
        mark = Mark(
            "default", Decimal(equity), Decimal(0), NOW + number, estimated and last, NOW + number
        )
        moved = apply_mark(state, mark, NavConfig())
        assert isinstance(moved, NavState)
        state = moved
    return state


def book(*outcomes: Outcome, kind: ExecutionKind = ExecutionKind.ORDER) -> ExecutionBook:
    executions = ExecutionBook()
    for number, outcome in enumerate(outcomes, start=1):
        executions.upsert(Execution(number, kind, NOW, outcome))
    return executions


def read(
    state: NavState | None = None, executions: ExecutionBook | None = None, now_ms: int = NOW
) -> dict[Metric, MetricReading]:
    return evaluate(
        nav(100) if state is None else state, executions or ExecutionBook(), LIMITS, now_ms
    )


# Boundaries


@pytest.mark.parametrize(
    ("equity", "state"),
    [("90.000000000001", OK), ("90.01", OK), ("90", BREACHED), ("89.99", BREACHED)],
)
def test_the_daily_loss_is_breached_at_its_limit(equity: str, state: MetricState) -> None:
    assert read(nav(100, equity))[Metric.DAILY_PNL].state is state


@pytest.mark.parametrize(
    ("equity", "state"), [("85.01", OK), ("85", BREACHED), ("84.99", BREACHED)]
)
def test_the_drawdown_is_breached_at_its_limit(equity: str, state: MetricState) -> None:
    assert read(nav(100, equity))[Metric.DRAWDOWN].state is state


@pytest.mark.parametrize(("orders", "state"), [(49, OK), (50, OK), (51, BREACHED)])
def test_fifty_orders_an_hour_are_allowed(orders: int, state: MetricState) -> None:
    executions = book(*[Outcome.OK] * orders)
    assert read(executions=executions)[Metric.TRADE_VELOCITY].state is state
    asked = velocity(book(*[Outcome.OK] * (orders - 1)), LIMITS, NOW, asking=1)
    assert (asked.state, asked.value) == (state, orders)


def test_an_order_an_hour_old_makes_room() -> None:
    executions = book(*[Outcome.OK] * 51)
    before = read(executions=executions, now_ms=NOW + 3_599_999)[Metric.TRADE_VELOCITY]
    after = read(executions=executions, now_ms=NOW + 3_600_000)[Metric.TRADE_VELOCITY]
    assert (before.state, after.state, after.value) == (BREACHED, OK, 0)


@pytest.mark.parametrize(
    ("failed", "attempted", "state"),
    [(2, 21, OK), (2, 20, BREACHED), (3, 20, BREACHED), (19, 19, OK), (20, 20, BREACHED)],
)
def test_the_error_rate_is_breached_at_its_limit_once_there_are_samples(
    failed: int, attempted: int, state: MetricState
) -> None:
    outcomes = [Outcome.FAILED] * failed + [Outcome.OK] * (attempted - failed)
    executions = book(*outcomes, kind=ExecutionKind.DECISION)
    reading = read(executions=executions)[Metric.ERROR_RATE]
    assert reading.state is state
    assert bool(reading.note) is (attempted < 20)


def test_an_error_rate_is_rounded_toward_the_breach() -> None:
    executions = book(*[Outcome.FAILED] * 2, *[Outcome.OK] * 28)
    assert read(executions=executions)[Metric.ERROR_RATE].value == Decimal("6.666666666667")


@pytest.mark.parametrize(("failures", "state"), [(4, OK), (5, BREACHED), (6, BREACHED)])
def test_the_fifth_failure_in_a_row_trips(failures: int, state: MetricState) -> None:
    executions = book(*[Outcome.FAILED] * failures)
    assert read(executions=executions)[Metric.CONSECUTIVE_FAILURES].state is state


# Unknown


def test_a_loss_without_a_mark_is_unknown_and_a_count_without_one_is_ok() -> None:
    readings = read(NavState())
    assert {metric for metric, one in readings.items() if one.state is UNKNOWN} == LOSSES
    assert readings[Metric.DAILY_PNL].note == "no trusted mark"
    assert readings[Metric.ERROR_RATE].value is None
    assert not breaches(readings)


def test_a_loss_is_unknown_once_its_mark_is_too_old_unless_it_is_breached() -> None:
    assert read(nav(100, 95), now_ms=NOW + 60_002)[Metric.DAILY_PNL].state is UNKNOWN
    assert read(nav(100, 80), now_ms=NOW + 60_002)[Metric.DAILY_PNL].state is BREACHED
    assert read(nav(100, 80, estimated=True))[Metric.DRAWDOWN].state is BREACHED


def test_an_estimated_baseline_is_said() -> None:
    reading = read(nav(100, 95))[Metric.DAILY_PNL]
    assert (reading.note, reading.fed_at_ms) == ("estimated baseline", NOW + 1)


def test_a_baseline_that_is_not_estimated_is_passed_over_in_silence() -> None:
    state = nav(100, 95)
    settled = replace(state, day=replace(state.day, estimated=False))
    assert read(settled)[Metric.DAILY_PNL].note == ""
    # Where nothing may be believed, that is what has to be said.
    assert read(state, now_ms=NOW + 60_002)[Metric.DAILY_PNL].note == "no trusted mark"


def test_velocity_and_streak_are_fed_by_orders_alone() -> None:
    executions = book(Outcome.OK)
    executions.upsert(Execution(2, ExecutionKind.CANCEL, NOW - 5, Outcome.OK, NOW + 7))
    fed = {metric: one.fed_at_ms for metric, one in read(executions=executions).items()}
    assert fed[Metric.TRADE_VELOCITY] == fed[Metric.CONSECUTIVE_FAILURES] == NOW
    assert fed[Metric.ERROR_RATE] == NOW + 7


def test_a_day_may_be_held_open() -> None:
    tomorrow = NOW + 86_400_000
    state = nav(100, 80)
    open_day = evaluate(state, ExecutionBook(), LIMITS, tomorrow, day_may_roll=False)
    assert open_day[Metric.DAILY_PNL].value == -20
    assert read(state, now_ms=tomorrow)[Metric.DAILY_PNL].value == 0


@pytest.mark.parametrize("why", ["overflowed", "unread"])
def test_attempts_that_nobody_can_count_count_as_breached(why: str) -> None:
    executions = ExecutionBook()
    setattr(executions, why, True)
    found = breaches(read(executions=executions))
    assert [one.metric for one in found] == list(Metric)[2:]
    assert found[0].sentence.startswith("TRADE_VELOCITY: more attempts than can be kept")
    assert found[1].sentence.startswith("ERROR_RATE: more attempts than can be kept")


# Sentences


@pytest.mark.parametrize(
    ("metric", "value", "limit", "sentence"),
    [
        (
            Metric.DAILY_PNL,
            "-10.416",
            "-10.0",
            "DAILY_PNL: -10.42 % is at or beyond the limit of -10.00 %",
        ),
        (
            Metric.DAILY_PNL,
            "-10.004",
            "-10",
            "DAILY_PNL: -10.00 % is at or beyond the limit of -10.00 %",
        ),
        (
            Metric.DRAWDOWN,
            "-15",
            "-15",
            "DRAWDOWN: -15.00 % is at or beyond the limit of -15.00 %",
        ),
        (
            Metric.TRADE_VELOCITY,
            "51",
            "50",
            "TRADE_VELOCITY: 51 orders within an hour are above the limit of 50",
        ),
        (
            Metric.ERROR_RATE,
            "12.5",
            "10",
            "ERROR_RATE: 12.50 % is at or above the limit of 10.00 %",
        ),
        (
            Metric.CONSECUTIVE_FAILURES,
            "5",
            "5",
            "CONSECUTIVE_FAILURES: a streak of 5 is at or above the limit of 5",
        ),
        (
            Metric.DAILY_PNL,
            "-10.0016",
            "-10.0012",
            "DAILY_PNL: -10.002 % is at or beyond the limit of -10.0012 %",
        ),
        (
            Metric.ERROR_RATE,
            "33.333333333334",
            "33.3333",
            "ERROR_RATE: 33.3333 % is at or above the limit of 33.3333 %",
        ),
        (
            Metric.DRAWDOWN,
            "-15.000000000001",
            "-15.0000000000005",
            "DRAWDOWN: -15.000000000001 % is at or beyond the limit of -15.0000000000005 %",
        ),
    ],
)
def test_the_reason_is_a_sentence_that_does_not_lie(
    metric: Metric, value: str, limit: str, sentence: str
) -> None:
    reading = MetricReading(Decimal(value), Decimal(limit), BREACHED)
    assert halt_reason(metric, reading) == sentence
    assert Breach(metric, reading).sentence == sentence


@given(
    st.decimals(-100, Decimal("-0.01"), places=12), st.decimals(-100, Decimal("-0.01"), places=4)
)
def test_a_shown_loss_is_on_its_side_of_the_shown_limit(value: Decimal, limit: Decimal) -> None:
    value = min(value, limit)
    words = halt_reason(Metric.DRAWDOWN, MetricReading(value, limit, BREACHED)).split()
    shown, shown_limit = Decimal(words[1]), Decimal(words[-2])
    assert shown_limit == limit
    assert shown <= shown_limit
    assert abs(shown - value) <= Decimal("0.005")


# The machine

A_BREACH = Breach(Metric.DRAWDOWN, MetricReading(Decimal(-20), Decimal(-15), BREACHED))
A_RESET = ConfirmReset("t1", "ada", "looked at it", frozenset({Metric.DRAWDOWN}))


def test_a_breach_trips_latches_audits_and_cancels() -> None:
    tripped = step(BreakerState.ARMED, A_BREACH)
    assert tripped.state is BreakerState.TRIPPED
    latch, audit, cancel = tripped.effects
    assert latch == Latch(A_BREACH)
    assert cancel == CancelEntries()
    assert audit == Audit(
        EventType.CIRCUIT_BREAKER_TRIP,
        {"metric": "drawdown", "value": "-20", "limit": "-15", "reason": A_BREACH.sentence},
    )


def test_a_breach_that_cannot_be_counted_is_audited_without_a_value() -> None:
    breach = Breach(Metric.ERROR_RATE, MetricReading(None, Decimal(10), BREACHED, note="full"))
    audit = step(BreakerState.ARMED, breach).effects[1]
    assert isinstance(audit, Audit)
    assert (audit.data["value"], audit.data["reason"]) == (None, "ERROR_RATE: full")


def test_a_tripped_breaker_trips_no_second_time() -> None:
    again = step(BreakerState.TRIPPED, A_BREACH)
    assert (again.state, again.effects) == (BreakerState.TRIPPED, ())


def test_a_confirmed_reset_arms_and_clears() -> None:
    armed = step(BreakerState.TRIPPED, A_RESET)
    assert armed.state is BreakerState.ARMED
    *first, audit = armed.effects
    assert first == [ClearLatch("t1"), ClearCounts(), Rebaseline(frozenset({Metric.DRAWDOWN}))]
    assert audit == Audit(
        EventType.CIRCUIT_BREAKER_RESET,
        {
            "trip_id": "t1",
            "operator": "ada",
            "reason": "looked at it",
            "rebaselined": ["drawdown"],
        },
    )


def test_a_reset_of_an_armed_breaker_clears_the_counts_only() -> None:
    armed = step(BreakerState.ARMED, ConfirmReset(None, "ada", "why not"))
    assert armed.state is BreakerState.ARMED
    assert [type(effect) for effect in armed.effects] == [ClearCounts, Audit]


def test_a_reset_names_the_trip_that_it_clears() -> None:
    with pytest.raises(InvariantBroken):
        step(BreakerState.TRIPPED, ConfirmReset(None, "ada", "why not"))


@given(st.lists(st.sampled_from([A_BREACH, A_RESET])))
def test_only_a_breach_trips_and_only_a_reset_arms(events: list[Any]) -> None:
    state = BreakerState.ARMED
    for event in events:
        state = step(state, event).state
        assert state is (BreakerState.TRIPPED if event is A_BREACH else BreakerState.ARMED)
    assert set(TRANSITIONS) == {
        (state, kind) for state in BreakerState for kind in (Breach, ConfirmReset)
    }


# The reset


def judged(pending: PendingReset, readings: Any, **more: Any) -> ResetVerdict:
    given: dict[str, Any] = {
        "trip_id": "t1",
        "now_ms": NOW,
        "nav_trusted": True,
        "operator": "ada",
        "reason": "looked",
        "rebaseline": False,
    }
    return judge(pending, readings=readings, **{**given, **more})


def test_a_recovered_breaker_is_reset_without_a_rebaseline() -> None:
    pending = pending_reset("t1", read(nav(100, 80)), NOW)
    assert pending.expires_ms == NOW + RESET_LIFETIME_MS
    verdict = judged(pending, read(nav(100, 99)), rebaseline=True, operator=" ada ")
    assert verdict == ResetVerdict(ConfirmReset("t1", "ada", "looked", frozenset()))


def test_what_would_trip_again_are_the_losses() -> None:
    pending = pending_reset("t1", read(nav(100, 88), book(*[Outcome.FAILED] * 5)), NOW)
    shown = [breach.metric for breach in pending.shown]
    assert shown == [Metric.DAILY_PNL, Metric.CONSECUTIVE_FAILURES]
    assert [breach.metric for breach in pending.still_breached] == [Metric.DAILY_PNL]


def test_a_standing_loss_needs_a_rebaseline_and_a_trusted_mark() -> None:
    readings = read(nav(100, 88))
    pending = pending_reset("t1", readings, NOW)
    refused = judged(pending, readings)
    assert (refused.confirmed, refused.void) == (None, False)
    assert refused.reasons == ("daily_pnl would trip again at once; it needs a rebaseline",)
    untrusted = judged(pending, readings, rebaseline=True, nav_trusted=False)
    assert untrusted.reasons == ("a rebaseline needs a trusted mark",)
    verdict = judged(pending, readings, rebaseline=True)
    assert verdict.confirmed is not None
    assert verdict.confirmed.rebaseline == {Metric.DAILY_PNL}


def test_counts_are_cleared_without_a_rebaseline() -> None:
    readings = read(executions=book(*[Outcome.FAILED] * 5))
    assert judged(pending_reset("t1", readings, NOW), readings).confirmed is not None


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_operator_or_reason_is_refused(blank: str) -> None:
    pending = pending_reset("t1", read(), NOW)
    verdict = judged(pending, read(), operator=blank, reason=blank)
    assert verdict.reasons == ("the operator is blank", "the reason is blank")
    assert not verdict.void


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"now_ms": NOW + RESET_LIFETIME_MS}, "the pending reset is older than 10 min"),
        ({"trip_id": "t2"}, "a newer trip stands"),
        ({"trip_id": None}, "the trip was already cleared"),
    ],
)
def test_a_pending_reset_becomes_void(more: dict[str, Any], reason: str) -> None:
    pending = pending_reset("t1", read(), NOW)
    verdict = judged(pending, read(), **more)
    assert (verdict.confirmed, verdict.void, verdict.reasons) == (None, True, (reason,))
    assert judged(pending, read(), now_ms=NOW + RESET_LIFETIME_MS - 1).confirmed is not None


def test_a_breach_that_was_not_shown_voids_it() -> None:
    pending = pending_reset("t1", read(nav(100, 88)), NOW)
    verdict = judged(pending, read(nav(100, 80)), rebaseline=True)
    assert (verdict.void, verdict.reasons) == (
        True,
        ("drawdown is breached, which was not shown",),
    )
