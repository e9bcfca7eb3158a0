"""Planning a close: never flips, never sells what is not ours, and ends by proof only."""

from __future__ import annotations

from decimal import Decimal as D

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain.flatten import (
    SLICES_MAX,
    ClosePlan,
    FlatProof,
    Observation,
    closing_order,
    orders_to_cancel,
    plan_close,
)
from tinywindow.safety.domain.kill import KillSwitchMode
from tinywindow.safety.domain.order import OrderType, Side
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.domain.venue import (
    MarketRules,
    OrderReport,
    ReportStatus,
    VenuePosition,
)

PERP, SPOT = "BTC/USDT:USDT", "BTC/USDT"
HALT, CLOSE = KillSwitchMode.HALT_ONLY, KillSwitchMode.CLOSE_POSITIONS


def perp(**rules: object) -> MarketRules:
    given_rules = {name: None if v is None else D(str(v)) for name, v in rules.items()}
    return MarketRules(PERP, reduce_only=True, spot=False, **given_rules)  # type: ignore[arg-type]


def spot(**rules: object) -> MarketRules:
    return MarketRules(SPOT, **{name: D(str(v)) for name, v in rules.items()})  # type: ignore[arg-type]


def held(symbol: str, amount: object, free: object = None, mark: object = 100) -> VenuePosition:
    available = amount if free is None else free
    price = None if mark is None else D(str(mark))
    return VenuePosition(symbol, D(str(amount)), D(str(available)), mark_price=price)


def test_a_long_is_sold_and_a_short_bought_back_reduce_only() -> None:
    long = plan_close(held(PERP, 2), perp())
    short = plan_close(held(PERP, -3), perp())
    assert (long.side, long.slices, long.reduce_only) == (Side.SELL, (D(2),), True)
    assert (short.side, short.slices, short.reduce_only) == (Side.BUY, (D(3),), True)
    assert not long.done


def test_what_is_in_flight_is_not_sent_again() -> None:
    assert plan_close(held(PERP, 2), perp(), in_flight=D("0.5")).slices == (D("1.5"),)
    waiting = plan_close(held(PERP, 2), perp(), in_flight=D(2))
    assert waiting.slices == ()
    assert waiting.blocked is not None
    assert not waiting.done


def test_an_order_is_cut_down_to_the_step_and_sliced_at_the_largest_size() -> None:
    assert plan_close(held(PERP, "2.57"), perp(amount_step="0.1")).slices == (D("2.5"),)
    assert plan_close(held(PERP, 25), perp(amount_max=10)).slices == (D(10), D(10), D(5))
    assert plan_close(held(PERP, 10), perp(amount_max=10)).slices == (D(10),)
    assert plan_close(held(PERP, 5), perp(amount_max="0.05", amount_step="0.1")).slices == (D(5),)
    assert plan_close(held(PERP, 5), perp(amount_step=0)).slices == (D(5),)


def test_a_last_slice_that_would_be_dust_takes_from_the_one_before() -> None:
    plan = plan_close(held(PERP, "10.5"), perp(amount_max=10, amount_min=1))
    assert plan.slices == (D("9.5"), D(1))
    stepped = plan_close(
        held(PERP, "10.2"), perp(amount_max=10, amount_min="0.5", amount_step="0.2")
    )
    assert stepped.slices == (D("9.6"), D("0.6"))
    tight = plan_close(held(PERP, "1.5"), perp(amount_max=1, amount_min=1))
    assert tight.slices == (D(1), D("0.5"))


def test_slices_are_bounded_and_the_rest_waits_for_the_next_read() -> None:
    plan = plan_close(held(PERP, 1000), perp(amount_max=1))
    assert len(plan.slices) == SLICES_MAX


def test_what_is_below_the_smallest_size_is_dust() -> None:
    for plan in (
        plan_close(held(PERP, "0.4"), perp(amount_min=1)),
        plan_close(held(PERP, "0.04"), perp(amount_step="0.1")),
    ):
        assert plan.done
        assert plan.dust == plan.wanted
        assert plan.slices == ()


def test_a_least_notional_spares_reduce_only_and_holds_for_spot() -> None:
    assert plan_close(held(PERP, "0.01"), perp(notional_min=5)).slices == (D("0.01"),)
    assert plan_close(held(SPOT, "0.01"), spot(notional_min=5), managed=D(1)).done
    assert plan_close(held(SPOT, "0.1"), spot(notional_min=5), managed=D(1)).slices == (D("0.1"),)
    unpriced = plan_close(held(SPOT, "0.01", mark=None), spot(notional_min=5), managed=D(1))
    assert unpriced.slices == (D("0.01"),)


def test_spot_sells_no_more_than_is_free_and_ours() -> None:
    assert plan_close(held(SPOT, 5), spot(), managed=D(2)).slices == (D(2),)
    assert plan_close(held(SPOT, 1), spot(), managed=D(2)).slices == (D(1),)
    partly = plan_close(held(SPOT, 2, free=1), spot(), managed=D(2))
    assert (partly.slices, partly.wanted) == ((D(1),), D(2))
    assert plan_close(held(SPOT, 2, free=0), spot(), managed=D(2)).blocked is not None


@pytest.mark.parametrize("managed", [0, -1])
def test_the_owners_other_coins_are_nothing_to_close(managed: int) -> None:
    plan = plan_close(held(SPOT, 5), spot(), managed=D(managed))
    assert plan.done
    assert plan.slices == ()


def test_a_debt_is_reported_and_not_bought_back() -> None:
    plan = plan_close(held(SPOT, -5), spot(), managed=D(5))
    assert plan.slices == ()
    assert plan.blocked is not None
    assert not plan.done


amounts = st.decimals("0.001", "1000", places=3)
optional = st.one_of(st.none(), st.decimals("0.001", "50", places=3))


@given(
    size=amounts,
    short=st.booleans(),
    is_spot=st.booleans(),
    free=amounts,
    managed=amounts,
    in_flight=st.decimals("0", "1000", places=3),
    least=optional,
    most=optional,
    step=optional,
)
def test_a_close_strictly_reduces_and_never_flips(
    size: D,
    short: bool,
    is_spot: bool,
    free: D,
    managed: D,
    in_flight: D,
    least: D | None,
    most: D | None,
    step: D | None,
) -> None:
    amount = -size if short and not is_spot else size
    rules = MarketRules(
        SPOT if is_spot else PERP, least, most, step, reduce_only=not is_spot, spot=is_spot
    )
    position = VenuePosition(rules.symbol, amount, min(free, size), mark_price=D(100))
    plan = plan_close(position, rules, managed=managed, in_flight=in_flight)
    assert plan.side is (Side.BUY if amount < 0 else Side.SELL)
    assert all(part > 0 for part in plan.slices)
    bound = min(size, managed, position.available) if is_spot else size
    assert sum(plan.slices, D(0)) <= max(bound - in_flight, D(0))
    if step is not None:
        assert all(part % step == 0 for part in plan.slices)
    if most is not None and (step is None or most >= step):
        assert all(part <= most for part in plan.slices)
    assert plan.done == (not plan.slices and plan.blocked is None)


def test_a_slice_becomes_a_market_order_for_its_amount() -> None:
    plan = plan_close(held(PERP, 2), perp())
    order = closing_order(
        parse_symbol(PERP), plan, D(1), client_order_id="TW1", venue="v", account="a"
    )
    assert (order.type, order.side, order.amount) == (OrderType.MARKET, Side.SELL, D(1))
    assert (order.price, order.reduce_only, order.venue) == (None, True, "v")


def resting(
    order_id: str,
    symbol: str = PERP,
    side: Side = Side.BUY,
    amount: object = 1,
    price: object = 100,
    *,
    reduce_only: bool = False,
    trigger: bool = False,
    ours: bool = True,
) -> OrderReport:
    return OrderReport(
        order_id,
        "v",
        symbol,
        side,
        OrderType.LIMIT,
        D(str(amount)),
        D(0),
        ReportStatus.OPEN,
        price=None if price is None else D(str(price)),
        reduce_only=reduce_only,
        trigger=trigger,
        ours=ours,
    )


def ids(orders: tuple[OrderReport, ...]) -> list[str]:
    return [order.client_order_id for order in orders]


def test_a_halt_cancels_entries_and_spares_what_protects() -> None:
    orders = [
        resting("entry"),
        resting("stop-entry", trigger=True),
        resting("exit", side=Side.SELL, reduce_only=True),
        resting("spot-sell", SPOT, Side.SELL, 1),
        resting("spot-buy", SPOT, Side.BUY, 1),
    ]
    cancelled = ids(orders_to_cancel(orders, HALT, managed={SPOT: D(1)}))
    assert sorted(cancelled) == ["entry", "spot-buy", "stop-entry"]
    assert "spot-sell" in ids(orders_to_cancel(orders, HALT, managed={}))


def test_spot_sells_are_spared_only_as_far_as_the_managed_balance_goes_stops_first() -> None:
    orders = [
        resting("a-profit", SPOT, Side.SELL, 1),
        resting("z-stop", SPOT, Side.SELL, 1, trigger=True),
    ]
    assert ids(orders_to_cancel(orders, HALT, managed={SPOT: D(1)})) == ["a-profit"]


def test_a_close_cancels_everything_of_ours_the_largest_entry_first() -> None:
    orders = [
        resting("small"),
        resting("exit", side=Side.SELL, amount=99, reduce_only=True),
        resting("large", amount=5),
        resting("unpriced", amount=5, price=None),
        resting("manual", ours=False),
        resting("known", ours=False, amount=2),
    ]
    cancelled = ids(orders_to_cancel(orders, CLOSE, known_ids=frozenset({"known"})))
    assert cancelled == ["large", "known", "small", "unpriced", "exit"]


def seen(begun: int, ended: int, *, terminal: int | None = 0, clean: bool = True) -> Observation:
    return Observation(begun, ended, terminal, clean)


def test_two_clean_reads_a_second_apart_prove_flat() -> None:
    proof = FlatProof().observe(seen(0, 10))
    assert not proof.proven
    assert not proof.observe(seen(1009, 1010)).proven
    assert proof.observe(seen(1010, 1020)).proven
    assert proof.observe(seen(1009, 1011)).observe(seen(1010, 1012)).proven
    assert proof.observe(seen(1010, 1020)).observe(seen(1030, 1031)).proven


@pytest.mark.parametrize(
    "spoiler",
    [
        None,
        seen(500, 510, clean=False),
        seen(500, 510, terminal=None),
        seen(500, 510, terminal=501),
    ],
    ids=["a failed read", "something left", "an intent is open", "read before the intent ended"],
)
def test_whatever_is_no_clean_read_starts_the_proof_anew(spoiler: Observation | None) -> None:
    proof = FlatProof().observe(seen(0, 10)).observe(spoiler)
    assert proof == FlatProof()
    assert not proof.observe(seen(2000, 2010)).proven


def test_a_read_that_began_before_an_intent_ended_proves_nothing_later_either() -> None:
    first = FlatProof().observe(seen(0, 10))
    # Something was sent and ended between the reads: the second is a first one again.
    again = first.observe(seen(2000, 2010, terminal=1500))
    assert not again.proven
    assert not again.observe(seen(3009, 3010, terminal=1500)).proven
    assert again.observe(seen(3010, 3020, terminal=1500)).proven
    # At the very moment at which the last one ended is early enough.
    exact = FlatProof().observe(seen(1500, 1510, terminal=1500))
    assert exact.observe(seen(2510, 2520, terminal=1500)).proven


def test_what_is_managed_is_unknown_and_not_zero_while_the_ledger_was_never_read() -> None:
    unknown = plan_close(held(SPOT, 5), spot(), managed=None)
    assert (unknown.slices, unknown.dust, unknown.done) == ((), D(0), False)
    assert "ledger cannot be read" in str(unknown.blocked)
    assert plan_close(held(PERP, 5), perp(), managed=None).slices == (D(5),)
    orders = [
        resting("spot-sell", SPOT, Side.SELL, 1),
        resting("spot-stop", SPOT, Side.SELL, 9, trigger=True),
        resting("spot-buy", SPOT, Side.BUY, 1),
        resting("perp-sell", PERP, Side.SELL, 1),
    ]
    assert sorted(ids(orders_to_cancel(orders, HALT))) == ["perp-sell", "spot-buy"]
    assert len(orders_to_cancel(orders, CLOSE)) == 4


def test_sizes_exactly_at_the_venues_least_are_sent() -> None:
    assert plan_close(held(PERP, 1), perp(amount_min=1)).slices == (D(1),)
    assert plan_close(held(SPOT, "0.05"), spot(notional_min=5), managed=D(1)).slices == (D("0.05"),)
    assert plan_close(held(SPOT, "0.0499"), spot(notional_min=5), managed=D(1)).done


def test_a_last_slice_takes_no_more_than_it_lacks_and_never_makes_the_giver_dust() -> None:
    on_step = perp(amount_max=10, amount_min="0.4", amount_step="0.2")
    assert plan_close(held(PERP, "10.2"), on_step).slices == (D("9.8"), D("0.4"))
    assert plan_close(held(PERP, "10.4"), on_step).slices == (D(10), D("0.4"))
    three = perp(amount_max=10, amount_min=1)
    assert plan_close(held(PERP, "20.5"), three).slices == (D(10), D("9.5"), D(1))
    halves = perp(amount_max="1.5", amount_min=1)
    assert plan_close(held(PERP, 2), halves).slices == (D(1), D(1))
    assert plan_close(held(PERP, "1.9"), halves).slices == (D("1.5"), D("0.4"))
    assert plan_close(held(PERP, 1), halves).slices == (D(1),)


def test_only_a_contract_on_a_venue_with_the_flag_is_sent_reduce_only() -> None:
    flagged = MarketRules(SPOT, reduce_only=True, spot=True)
    assert not plan_close(held(SPOT, 1), flagged, managed=D(1)).reduce_only
    assert not plan_close(held(PERP, 1), MarketRules(PERP, spot=False)).reduce_only
    assert not ClosePlan(PERP, "net", Side.SELL, D(1)).reduce_only


def test_a_position_of_nothing_is_closed() -> None:
    for plan in (
        plan_close(held(SPOT, 0), spot(), managed=D(1)),
        plan_close(held(PERP, 0), perp()),
    ):
        assert (plan.done, plan.slices, plan.side) == (True, (), Side.BUY)
