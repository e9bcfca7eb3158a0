"""NAV per unit: flows, trust, the peak, and the day's baseline."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain import nav as nav_module
from tinywindow.safety.domain.money import EXACT
from tinywindow.safety.domain.nav import (
    Mark,
    MarkRefused,
    NavConfig,
    NavState,
    Trust,
    apply_mark,
    change_pct,
    is_trusted,
    open_day,
    performance,
    rebaseline,
    retire,
    trust_of,
)
from tinywindow.safety.domain.nav_state import NO_DAY
from tinywindow.safety.domain.trading_day import DAY_MS, DayRule

CONFIG = NavConfig()
MINUTE = 60_000
HOUR = 3_600_000
DAY = 20_000 * DAY_MS
"""A midnight in UTC."""
NOON = DAY + 12 * HOUR
ORDINAL = 20_000 + datetime(1970, 1, 1, tzinfo=UTC).toordinal()


def mark(equity: Any, at_ms: int, flow: Any = 0, **more: Any) -> Mark:
    return Mark(
        account=more.get("account", "default"),
        equity=Decimal(equity),
        cash_flow=Decimal(flow),
        at_ms=at_ms,
        estimated=more.get("estimated", False),
        received_ms=more.get("received_ms", at_ms),
    )


def fed(*marks: Mark, state: NavState | None = None, may_roll: bool = True) -> NavState:
    state = state or NavState()
    for one in marks:
        moved = apply_mark(state, one, CONFIG, day_may_roll=may_roll)
        assert isinstance(moved, NavState), moved
        state = moved
    return state


def losses(state: NavState, now_ms: int) -> tuple[Decimal | None, Decimal | None]:
    seen = performance(state, now_ms, CONFIG)
    return seen.daily_pnl, seen.drawdown


# Trust


@pytest.mark.parametrize(
    ("at_ms", "estimated", "jump", "trust"),
    [
        (NOON, False, False, Trust.TRUSTED),
        (NOON, True, False, Trust.ESTIMATED),
        (NOON - 60_000, False, False, Trust.TRUSTED),
        (NOON - 60_001, False, False, Trust.TOO_OLD),
        (NOON + 2_000, False, False, Trust.TRUSTED),
        (NOON + 2_001, False, False, Trust.IN_THE_FUTURE),
        (NOON, False, True, Trust.UNEXPLAINED_JUMP),
    ],
)
def test_what_makes_a_mark_believed(at_ms: int, estimated: bool, jump: bool, trust: Trust) -> None:
    one = mark(1, at_ms, estimated=estimated)
    assert trust_of(one, NOON, CONFIG, unexplained_jump=jump) is trust


def test_a_portfolio_is_trusted_when_all_its_accounts_are() -> None:
    state = fed(mark(100, NOON), mark(50, NOON + 1_000, account="b"))
    assert is_trusted(state, NOON + 60_000, CONFIG)
    assert not is_trusted(state, NOON + 60_001, CONFIG)
    assert is_trusted(state, NOON - 1_000, CONFIG)
    assert not is_trusted(state, NOON - 1_001, CONFIG)
    assert not is_trusted(NavState(), NOON, CONFIG)
    assert not is_trusted(
        fed(mark(50, NOON, account="b", estimated=True), state=state), NOON, CONFIG
    )


def test_nothing_is_measured_before_the_first_trusted_mark() -> None:
    state = fed(mark(100, NOON, estimated=True))
    seen = performance(state, NOON, CONFIG)
    assert (seen.daily_pnl, seen.drawdown, seen.trusted) == (None, None, False)
    state = fed(mark(80, NOON), state=state)
    assert losses(state, NOON) == (0, 0)


def test_an_estimate_may_deepen_a_loss_and_only_a_trusted_mark_lowers_it() -> None:
    state = fed(mark(100, NOON), mark(80, NOON + 1, estimated=True))
    assert losses(state, NOON) == (-20, -20)
    state = fed(mark(150, NOON + 2, estimated=True), state=state)
    assert losses(state, NOON) == (-20, -20)
    assert state.peak_nav == 100
    state = fed(mark(90, NOON + 3), state=state)
    assert losses(state, NOON) == (-10, -10)


def test_a_jump_that_nothing_explains_raises_no_peak() -> None:
    state = apply_mark(fed(mark(100, NOON)), mark(500, NOON + 1), CONFIG, unexplained_jump=True)
    assert isinstance(state, NavState)
    assert state.peak_nav == state.nav == 100


def test_one_stale_account_keeps_the_peak_down() -> None:
    state = fed(mark(100, NOON), mark(100, NOON, account="b"))
    state = fed(mark(300, NOON + 60_001), state=state)
    assert (state.nav, state.peak_nav) == (100, 100)
    state = fed(mark(100, NOON + 60_002, account="b"), state=state)
    assert (state.nav, state.peak_nav) == (200, 200)


# Flows


def test_a_deposit_and_a_withdrawal_are_no_profit_and_no_loss() -> None:
    state = fed(mark(1_000, NOON), mark(3_000, NOON + 1, 2_000), mark(300, NOON + 2, -2_700))
    assert losses(state, NOON) == (0, 0)
    assert state.equity == 300


def test_the_first_mark_of_an_account_is_a_flow() -> None:
    state = fed(mark(1_000, NOON), mark(900, NOON + 1), mark(5_000, NOON + 2, account="b"))
    assert losses(state, NOON) == (-10, -10)
    state = fed(mark(4_410, NOON + 3, account="b"), state=state)
    assert losses(state, NOON) == (-19, -19)


def test_a_loss_exactly_at_the_limit_stays_so_across_flows() -> None:
    state = fed(mark(3, NOON), mark(10, NOON + 1, 7), mark("33.7", NOON + 2, "23.7"))
    state = fed(mark("30.33", NOON + 3), state=state)
    assert losses(state, NOON) == (-10, -10)
    daily, _ = losses(fed(mark("30.330000001", NOON + 4), state=state), NOON)
    assert daily is not None
    assert daily > -10


def test_all_may_be_drawn_out_and_paid_in_again() -> None:
    state = fed(mark(100, NOON), mark(90, NOON + 1), mark(0, NOON + 2, -90))
    assert (state.units, losses(state, NOON)) == (0, (-10, -10))
    state = fed(mark(0, NOON + 3), state=state)
    state = fed(mark(40, NOON + 4, 40, estimated=True), state=state)
    assert (state.units, losses(state, NOON)) == (0, (-10, -10))
    state = fed(mark(50, NOON + 5), state=state)
    assert losses(state, NOON) == (-10, -10)
    state = fed(mark(45, NOON + 6), state=state)
    assert losses(state, NOON) == (-19, -19)


def test_debt_without_capital_is_a_total_loss() -> None:
    state = fed(mark(100, NOON), mark(0, NOON + 1, -100), mark(-1, NOON + 2))
    assert losses(state, NOON) == (-100, -100)
    assert losses(fed(mark(50, NOON + 3), state=state), NOON) == (-100, -100)


def test_an_empty_account_is_no_beginning() -> None:
    state = fed(mark(0, NOON), mark(0, NOON + 1))
    assert losses(state, NOON) == (None, None)
    state = fed(mark(100, NOON + 2, 100), mark(50, NOON + 3), state=state)
    assert losses(state, NOON) == (-50, -50)


def test_flows_are_refused_at_a_nav_of_zero_or_less_until_a_rebaseline() -> None:
    for low in (0, -50):
        state = fed(mark(100, NOON), mark(low, NOON + 1))
        assert losses(state, NOON) == (-100, -100)
        refused = apply_mark(state, mark(low + 500, NOON + 2, 500), CONFIG)
        assert isinstance(refused, MarkRefused)
        assert "flows are refused" in refused.reason
        anew = rebaseline(state, NOON + 2, CONFIG, daily_pnl=True, drawdown=True)
        assert isinstance(anew, NavState)
        assert losses(anew, NOON + 2) == (None, None)
        state = fed(mark(low + 500, NOON + 3, 500), state=anew)
        assert losses(state, NOON + 3) == (0, 0)


def test_a_flow_is_refused_until_the_nav_is_seen_above_zero() -> None:
    ruined = fed(mark(100, NOON), mark(0, NOON + 1))
    assert isinstance(apply_mark(ruined, mark(600, NOON + 2, 500), CONFIG), MarkRefused)
    risen = fed(mark(50, NOON + 2), mark(550, NOON + 3, 500), state=ruined)
    assert losses(risen, NOON) == (-50, -50)


@pytest.mark.parametrize("flow", [50, 60])
def test_a_flow_is_refused_where_the_mark_itself_shows_a_nav_of_zero_or_less(flow: int) -> None:
    assert isinstance(apply_mark(fed(mark(100, NOON)), mark(50, NOON, flow), CONFIG), MarkRefused)


def test_a_late_mark_lifts_nothing_that_is_newer_and_not_believed() -> None:
    state = fed(
        mark(100, NOON),
        mark(90, NOON + 2_000, estimated=True),
        mark(99, NOON + 3_000, estimated=True),
        mark(100, NOON + 1_000, received_ms=NOON + 4_000),
    )
    assert state.nav == 90


def test_a_withdrawal_that_is_reported_late_was_no_loss() -> None:
    state = fed(mark(100, NOON), mark(50, NOON + 2_000))
    assert state.nav == 50
    assert fed(mark(50, NOON + 1_000, -50, received_ms=NOON + 3_000), state=state).nav == 100


def test_a_rebaseline_is_what_the_next_day_is_measured_from() -> None:
    state = fed(mark(100, NOON), mark(80, NOON + 1_000))
    state = replace(state, trusted_nav=Decimal(100))
    moved = rebaseline(state, NOON + 2_000, CONFIG, daily_pnl=True, drawdown=False)
    assert isinstance(moved, NavState)
    assert (moved.trusted_nav, moved.trusted_at_ms) == (80, NOON + 2_000)
    kept = rebaseline(state, NOON + 2_000, CONFIG, daily_pnl=False, drawdown=True)
    assert isinstance(kept, NavState)
    assert (kept.trusted_nav, kept.trusted_at_ms) == (100, NOON + 1_000)


def test_a_withdrawal_of_more_than_there_is_is_refused() -> None:
    refused = apply_mark(fed(mark(100, NOON)), mark(-1, NOON, -101), CONFIG)
    assert isinstance(refused, MarkRefused)
    assert "less than nothing" in refused.reason


def test_an_unbelieved_flow_is_priced_so_that_it_hides_no_loss() -> None:
    doubtful = fed(mark(100, NOON), mark(180, NOON + 1, 100, estimated=True))
    boasting = fed(mark(100, NOON), mark(300, NOON + 1, 100, estimated=True))
    assert fed(mark(180, NOON + 2), state=doubtful).nav == 80
    assert boasting.units == 2
    assert fed(mark(160, NOON + 2), state=boasting).nav == 80
    drawn = fed(mark(100, NOON), mark(30, NOON + 1, -50, estimated=True))
    assert fed(mark(30, NOON + 2), state=drawn).nav == 60
    emptied = fed(mark(100, NOON), mark(0, NOON + 1, -90, estimated=True))
    assert (emptied.units, emptied.nav) == (0, 90)


def test_there_are_only_so_many_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nav_module, "ACCOUNTS_MAX", 1)
    refused = apply_mark(fed(mark(1, NOON)), mark(1, NOON, account="b"), CONFIG)
    assert isinstance(refused, MarkRefused)


# Late marks


def test_a_late_mark_is_not_the_equity_of_now_but_may_raise_the_peak() -> None:
    state = fed(mark(100, NOON), mark(90, NOON + 20), mark(120, NOON + 10, received_ms=NOON + 30))
    assert (state.nav, state.peak_nav, state.equity) == (90, 120, 90)


def test_of_two_marks_of_one_millisecond_the_second_counts() -> None:
    state = fed(mark(100, NOON), mark(80, NOON))
    assert (losses(state, NOON), state.equity) == ((-20, -20), 80)
    late = fed(mark(120, NOON - 10, received_ms=NOON), state=state)
    assert (late.equity, late.nav, late.peak_nav) == (80, 80, 100)


def test_a_late_flow_still_moves_the_units() -> None:
    state = fed(mark(1_000, NOON), mark(2_000, NOON + 20))
    state = fed(mark(2_000, NOON + 10, 1_000, received_ms=NOON + 30), state=state)
    assert (state.units, state.nav) == (2, 1_000)


def test_a_late_mark_of_an_empty_portfolio_changes_nothing() -> None:
    state = fed(mark(100, NOON), mark(0, NOON + 20, -100))
    state = fed(mark(70, NOON + 10, received_ms=NOON + 30), state=state)
    assert (state.units, state.nav, state.equity) == (0, 100, 0)


def test_a_mark_from_the_future_does_not_make_the_next_ones_late() -> None:
    state = fed(mark(100, NOON), mark(100, NOON + HOUR, received_ms=NOON + 1), mark(80, NOON + 2))
    assert losses(state, NOON + 2) == (-20, -20)


def test_marks_go_on_after_the_clock_was_set_back() -> None:
    state = fed(mark(100, NOON), mark(80, NOON - HOUR))
    assert losses(state, NOON - HOUR) == (-20, -20)
    assert state.trusted_at_ms == NOON - HOUR


# The day


def test_the_days_baseline_is_the_last_trusted_mark_before_it() -> None:
    state = fed(mark(90, NOON), mark(100, DAY + DAY_MS - 1), mark(95, DAY + DAY_MS + 1))
    assert losses(state, DAY + DAY_MS + 1) == (-5, -5)
    assert not performance(state, NOON, CONFIG).estimated_baseline


def test_a_mark_at_the_opening_is_the_baseline() -> None:
    state = fed(mark(100, DAY - 1), mark(80, DAY), mark(60, DAY + 1))
    assert losses(state, DAY + 1) == (-25, -40)


def test_without_a_mark_before_the_first_one_is_an_estimated_baseline() -> None:
    state = fed(mark(100, NOON), mark(90, NOON + 1))
    seen = performance(state, NOON, CONFIG)
    assert (seen.daily_pnl, seen.estimated_baseline) == (-10, True)
    assert not performance(fed(mark(100, DAY)), DAY, CONFIG).estimated_baseline


@pytest.mark.parametrize(
    ("gap_ms", "first", "baseline"),
    [(HOUR, 120, 100), (HOUR + 1, 120, 120), (HOUR + 1, 80, 100)],
)
def test_an_old_mark_is_a_baseline_only_if_the_day_began_no_higher(
    gap_ms: int, first: int, baseline: int
) -> None:
    state = fed(mark(100, DAY - gap_ms), mark(first, DAY + 5), mark(200, DAY + 6))
    assert state.day.nav == baseline


def test_a_late_mark_may_only_raise_the_baseline() -> None:
    state = fed(mark(100, DAY - 30_000), mark(90, DAY + 1))
    lower = fed(mark(95, DAY - 10, received_ms=DAY + 2), state=state)
    assert lower.day.nav == 100
    higher = fed(mark(110, DAY - 5, received_ms=DAY + 3), state=lower)
    assert higher.day.nav == 110
    older = fed(mark(130, DAY - 20, received_ms=DAY + 4), state=higher)
    assert older.day.nav == 110


def test_a_late_mark_takes_the_place_of_an_estimate_only_upward() -> None:
    state = fed(mark(100, DAY + 5))
    higher = fed(mark(120, DAY - 5, received_ms=DAY + 6), state=state)
    assert (higher.day.nav, higher.day.estimated) == (120, False)
    lower = fed(mark(80, DAY - 5, received_ms=DAY + 6), state=state)
    assert (lower.day.nav, lower.day.estimated) == (100, True)


def test_a_late_mark_close_before_the_opening_ends_the_wait_for_the_days_first() -> None:
    state = fed(
        mark(100, DAY - 2 * HOUR),
        mark(90, DAY + 10_000, estimated=True),
        mark(95, DAY - 5_000, received_ms=DAY + 20_000),
        mark(120, DAY + 30_000),
    )
    assert state.day.nav == 100


def test_at_a_nav_of_zero_all_is_lost_even_where_a_day_has_no_baseline() -> None:
    state = fed(mark(100, NOON), mark(0, NOON + 1_000))
    state = replace(state, day=replace(state.day, nav=None), previous=NO_DAY)
    assert losses(state, NOON + 1_000) == (-100, -100)


def test_the_day_opens_on_time_even_before_its_first_mark() -> None:
    state = fed(mark(100, NOON), mark(80, DAY + DAY_MS - 10))
    assert performance(state, DAY + DAY_MS + 5, CONFIG).daily_pnl == 0
    held = performance(state, DAY + DAY_MS + 5, CONFIG, day_may_roll=False)
    assert held.daily_pnl == -20


def test_a_clock_set_back_opens_no_new_day_and_lowers_no_baseline() -> None:
    state = fed(mark(100, NOON), mark(80, NOON + 1))
    back = fed(mark(80, NOON - DAY_MS), state=state)
    assert (back.day.day, back.day.nav) == (state.day.day, state.day.nav)
    assert losses(back, NOON - DAY_MS) == (-20, -20)


def test_a_clock_set_forward_and_back_erases_no_loss() -> None:
    state = fed(mark(100, NOON), mark(80, NOON + 1), mark(80, NOON + DAY_MS))
    assert performance(state, NOON + DAY_MS, CONFIG).daily_pnl == 0
    back = fed(mark(79, NOON + 2), state=state)
    assert performance(back, NOON + 2, CONFIG).daily_pnl == -21


def test_an_untrusted_clock_holds_the_day_open() -> None:
    state = fed(mark(100, DAY - 1), mark(90, DAY + 10), may_roll=False)
    assert state.day.day == ORDINAL - 1
    assert losses(state, DAY - 1) == (-10, -10)
    state = fed(mark(85, DAY + 5 * MINUTE), state=state)
    assert (state.day.day, state.day.nav) == (ORDINAL, 100)


def test_a_rebaseline_measures_from_now() -> None:
    state = fed(mark(100, DAY - 1), mark(80, NOON))
    daily = rebaseline(state, NOON, CONFIG, daily_pnl=True, drawdown=False)
    assert isinstance(daily, NavState)
    assert losses(daily, NOON) == (0, -20)
    peak = rebaseline(state, NOON, CONFIG, daily_pnl=False, drawdown=True)
    assert isinstance(peak, NavState)
    assert losses(peak, NOON) == (-20, 0)
    late = fed(mark(100, NOON - 10, received_ms=NOON + 1), state=peak)
    assert late.peak_nav == 80
    at_once = fed(mark(90, NOON, received_ms=NOON + 1), state=peak)
    assert at_once.peak_nav == 90


def test_a_rebaseline_needs_a_trusted_mark() -> None:
    for state, now_ms in ((fed(mark(100, NOON)), NOON + 60_001), (fed(mark(0, NOON)), NOON)):
        refused = rebaseline(state, now_ms, CONFIG, daily_pnl=True, drawdown=True)
        assert isinstance(refused, MarkRefused)


def test_a_ruined_day_that_recovers_is_measured_as_a_gain() -> None:
    state = fed(mark(100, NOON), mark(-5, DAY + DAY_MS - 1), mark(50, DAY + DAY_MS + 1))
    daily, drawdown = losses(state, DAY + DAY_MS + 1)
    assert daily is not None
    assert daily > 0
    assert drawdown == -50


def test_a_held_day_without_a_baseline_measures_no_daily_loss() -> None:
    state = fed(mark(0, NOON))
    state = fed(mark(100, NOON + DAY_MS), state=state, may_roll=False)
    assert losses(state, NOON) == (None, 0)


# Numbers and form


@pytest.mark.parametrize(
    ("now", "base", "change"),
    [
        ("90", "100", "-10"),
        ("90.0001", "100", "-9.9999"),
        ("2", "3", "-33.333333333334"),
        ("4", "3", "33.333333333333"),
        ("0", "3", "-100"),
        ("-1", "3", "-100"),
        ("1e18", "1e-18", "99999999900"),
        ("1", "0", "99999999900"),
    ],
)
def test_a_change_is_rounded_toward_the_loss(now: str, base: str, change: str) -> None:
    assert change_pct(Decimal(now), Decimal(base)) == Decimal(change)


def test_days_may_begin_at_another_hour_or_elsewhere() -> None:
    rule = DayRule(start_ms=8 * HOUR)
    assert rule.day_of(DAY + 8 * HOUR) == rule.day_of(DAY + 8 * HOUR - 1) + 1
    assert rule.open_ms(rule.day_of(NOON)) == DAY + 8 * HOUR
    berlin = DayRule(timezone=ZoneInfo("Europe/Berlin"))
    spring = datetime(2024, 3, 31, tzinfo=ZoneInfo("Europe/Berlin"))
    open_ms = int(spring.timestamp() * 1000)
    day = spring.toordinal()
    assert berlin.open_ms(day) == open_ms
    assert berlin.open_ms(day + 1) - open_ms == 23 * HOUR
    assert (berlin.day_of(open_ms - 1), berlin.day_of(open_ms)) == (day - 1, day)


@pytest.mark.parametrize("start_ms", [-1, DAY_MS])
def test_a_day_starts_within_itself(start_ms: int) -> None:
    with pytest.raises(ValueError, match="within itself"):
        DayRule(start_ms=start_ms)


@given(
    st.sampled_from(["Europe/Berlin", "America/Havana", "Pacific/Apia", "Australia/Lord_Howe"]),
    st.integers(0, DAY_MS - 1),
    st.integers(0, 4_000_000_000_000),
    st.integers(0, 3 * DAY_MS),
)
def test_local_days_never_run_backwards(zone: str, start: int, at_ms: int, later: int) -> None:
    rule = DayRule(start, ZoneInfo(zone))
    day = rule.day_of(at_ms)
    assert rule.open_ms(day) <= at_ms < rule.open_ms(day + 1)
    assert rule.day_of(at_ms + later) >= day
    assert (
        abs(day - (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).toordinal())
        <= 2
    )


money = st.decimals(Decimal("0.01"), Decimal("1e9"), places=2)
steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        money,
        st.booleans(),
        st.integers(1, 90_000),
    ),
    min_size=1,
    max_size=30,
)


@given(steps, st.lists(st.decimals(Decimal("0.01"), Decimal(1000), places=2), min_size=30))
def test_flows_are_neutral(marks: list[Any], growth: list[Decimal]) -> None:
    """The same returns give the same losses, whatever is paid in or drawn out on the way."""
    plain, with_flows = NavState(), NavState()
    at_ms, level, equity = NOON, Decimal(100), Decimal(100)
    with_flows = fed(mark(100, at_ms), state=with_flows)
    plain = fed(mark(100, at_ms), state=plain)
    for (_, wanted, _, gap), factor in zip(marks, growth, strict=False):
        at_ms += gap
        level, equity = EXACT.multiply(level, factor), EXACT.multiply(equity, factor)
        plain = fed(mark(level, at_ms), state=plain)
        with_flows = fed(mark(wanted, at_ms, EXACT.subtract(wanted, equity)), state=with_flows)
        equity = wanted
        ours, theirs = losses(with_flows, at_ms), losses(plain, at_ms)
        assert ours == theirs


@given(steps)
def test_the_peak_and_a_days_baseline_only_rise(marks: list[Any]) -> None:
    state, at_ms = NavState(), NOON
    for account, equity, estimated, gap in marks:
        at_ms += gap
        before = state
        state = fed(mark(equity, at_ms, account=account, estimated=estimated), state=state)
        assert before.peak_nav is None or (state.peak_nav or 0) >= before.peak_nav
        if before.day.nav is not None and state.day.day == before.day.day:
            assert state.day.nav is not None
            assert state.day.nav >= before.day.nav
        assert state.day.day >= before.day.day
        if estimated and before.nav is not None:
            assert state.nav is not None
            assert state.nav <= before.nav
            assert state.peak_nav == before.peak_nav


@given(steps)
def test_the_state_survives_json(marks: list[Any]) -> None:
    state, at_ms = NavState(), NOON
    assert NavState.from_data(json.loads(json.dumps(state.to_data()))) == state
    for account, equity, estimated, gap in marks:
        at_ms += gap * 500
        state = fed(mark(equity, at_ms, account=account, estimated=estimated), state=state)
        assert NavState.from_data(json.loads(json.dumps(state.to_data()))) == state


wild = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.decimals(Decimal(-1000), Decimal(1000), places=2),
        st.decimals(Decimal(-1000), Decimal(1000), places=2),
        st.booleans(),
        st.integers(-200_000_000, 200_000_000),
        st.integers(-100_000, 100_000),
        st.booleans(),
    ),
    max_size=25,
)


@given(wild)
def test_anything_is_taken_or_refused_and_no_loss_is_below_all(marks: list[Any]) -> None:
    state = NavState()
    for account, equity, flow, estimated, offset, lag, may_roll in marks:
        one = mark(
            equity,
            NOON + offset,
            flow,
            account=account,
            estimated=estimated,
            received_ms=NOON + offset + lag,
        )
        moved = apply_mark(state, one, CONFIG, day_may_roll=may_roll)
        if isinstance(moved, NavState):
            assert moved.day.day >= state.day.day
            state = open_day(moved, moved.day.open_ms, CONFIG)
            assert state.units >= 0
        for value in losses(state, NOON + offset):
            assert value is None or value >= -100


def test_a_day_that_opens_late_in_a_local_zone_opens_after_its_midnight() -> None:
    berlin = DayRule(8 * HOUR, ZoneInfo("Europe/Berlin"))
    summer = datetime(2024, 7, 1, 6, tzinfo=UTC)
    assert berlin.open_ms(summer.toordinal()) == int(summer.timestamp() * 1000)
    assert berlin.day_of(int(summer.timestamp() * 1000)) == summer.toordinal()
    assert berlin.day_of(int(summer.timestamp() * 1000) - 1) == summer.toordinal() - 1
    assert DAY_MS == 24 * HOUR


def two_accounts() -> NavState:
    """Ten thousand and five thousand, after a loss of a tenth on the whole."""
    return fed(
        mark(10_000, NOON),
        mark(5_000, NOON, account="gone"),
        mark(8_500, NOON + 1),
    )


def test_a_retired_account_takes_its_equity_along_and_moves_no_loss() -> None:
    before = two_accounts()
    left = retire(before, "gone")
    assert isinstance(left, NavState)
    assert set(left.accounts) == {"default"}
    assert left.equity == 8_500
    assert performance(left, NOON + 2, CONFIG) == performance(before, NOON + 2, CONFIG)
    assert performance(left, NOON + 2, CONFIG).drawdown == -10
    # What is left goes on from there: half of it lost is half of the portfolio.
    half = fed(mark(4_250, NOON + 3), state=left)
    assert performance(half, NOON + 3, CONFIG).drawdown == -55


def test_a_portfolio_is_trusted_again_once_the_silent_account_is_retired() -> None:
    later = NOON + CONFIG.equity_max_age_ms + 1
    silent = fed(mark(8_500, later), state=two_accounts())
    assert not is_trusted(silent, later, CONFIG)
    left = retire(silent, "gone")
    assert isinstance(left, NavState)
    assert is_trusted(left, later, CONFIG)
    assert left.nav == silent.nav


def test_a_retired_account_that_comes_back_is_a_flow_and_no_profit() -> None:
    left = retire(two_accounts(), "gone")
    assert isinstance(left, NavState)
    back = fed(mark(50_000, NOON + 2, account="gone"), state=left)
    assert back.equity == 58_500
    assert performance(back, NOON + 2, CONFIG).drawdown == -10


def test_the_last_account_may_go_and_the_loss_is_remembered() -> None:
    alone = retire(fed(mark(10_000, NOON), mark(9_000, NOON + 1)), "default")
    assert isinstance(alone, NavState)
    assert (alone.units, alone.equity) == (0, 0)
    assert not is_trusted(alone, NOON + 1, CONFIG)
    again = fed(mark(3_000, NOON + 2, account="new"), state=alone)
    assert performance(again, NOON + 2, CONFIG).drawdown == -10


def test_an_account_that_was_never_believed_takes_nothing_along() -> None:
    doubted = mark(7_000, NOON + 1, account="doubted", estimated=True)
    before = fed(mark(10_000, NOON), doubted)
    left = retire(before, "doubted")
    assert isinstance(left, NavState)
    assert (left.units, left.nav, left.equity) == (before.units, before.nav, 10_000)


def test_an_account_that_lost_everything_may_go_and_its_loss_stays() -> None:
    gone = retire(fed(mark(10_000, NOON), mark(0, NOON + 1)), "default")
    assert isinstance(gone, NavState)
    assert (dict(gone.accounts), gone.nav) == ({}, 0)
    assert performance(gone, NOON + 2, CONFIG).drawdown == -100


@pytest.mark.parametrize(
    ("marks", "account", "why"),
    [
        ([mark(10_000, NOON)], "other", "there is no account 'other'"),
        ([mark(10_000, NOON), mark(-1, NOON + 1)], "default", "the NAV is zero or less"),
        (
            # What is not believed lifts equity, and no NAV.
            [mark(10_000, NOON), mark(-1, NOON + 1), mark(5_000, NOON + 2, estimated=True)],
            "default",
            "the NAV is zero or less",
        ),
        (
            [mark(1_000, NOON), mark(500, NOON, account="b"), mark(-100, NOON + 1)],
            "b",
            "less than nothing",
        ),
    ],
)
def test_what_cannot_leave_as_a_flow_is_not_retired(
    marks: list[Mark], account: str, why: str
) -> None:
    refused = retire(fed(*marks), account)
    assert isinstance(refused, MarkRefused)
    assert why in refused.reason


@given(first=st.integers(1, 10**9), second=st.integers(1, 10**9), moved=st.integers(1, 10**9))
def test_no_retirement_moves_a_loss(first: int, second: int, moved: int) -> None:
    state = fed(mark(first, NOON), mark(second, NOON, account="b"), mark(moved, NOON + 1))
    left = retire(state, "b")
    assert isinstance(left, NavState)
    seen = fed(mark(moved, NOON + 2), state=left)
    before, after = (performance(one, NOON + 2, CONFIG) for one in (state, seen))
    assert (after.daily_pnl, after.drawdown) == (before.daily_pnl, before.drawdown)
