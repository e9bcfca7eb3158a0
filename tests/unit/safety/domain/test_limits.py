"""The limits: exactly at one is allowed, the smallest step above it is not."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal as D
from typing import Any

import pytest

from tinywindow.safety.domain.book import Book, Changes
from tinywindow.safety.domain.decision import Breach, Reason
from tinywindow.safety.domain.limits import (
    EquityView,
    LimitSet,
    check_limits,
    default_quotes,
    exposure_of,
    newest_price,
)
from tinywindow.safety.domain.order import CheckedOrder, OrderType, PositionKey, Side
from tinywindow.safety.domain.records import (
    Head,
    Hold,
    HoldState,
    Position,
    ReferencePrice,
    TradingState,
)
from tinywindow.safety.domain.symbols import parse_symbol

NOW = 1_700_000_000_000
HEAD = Head(1, 0, TradingState.RUNNING, 0, "0" * 64, 0)
BTC, ETH, SOL, PERP = "BTC/USDT", "ETH/USDT", "SOL/USDT", "BTC/USDT:USDT"
RICH = EquityView(D(1_000_000), known=True)
STEP = D("1e-18")
BUY, SELL = Side.BUY, Side.SELL
DEFAULTS = LimitSet(
    max_position_size=D(10_000),
    max_total_exposure=D(50_000),
    max_leverage=D(20),
    max_sector_exposure_pct=D(40),
    allowed_symbols=frozenset({BTC, ETH, SOL, PERP}),
    price_max_age_ms=5_000,
    equity_max_age_ms=60_000,
    price_collar_pct=D(5),
    reservation_ttl_ms=60_000,
    position_max_age_ms=5_000,
    quote_usd=default_quotes(),
)
WIDE = replace(DEFAULTS, max_position_size=D(10**9), max_sector_exposure_pct=D(10**9))
"""Only total exposure and leverage bind."""


def order(side: Side, amount: object, symbol: str = BTC, **changes: Any) -> CheckedOrder:
    price = changes.pop("price", None)
    fields: dict[str, Any] = {
        "symbol": parse_symbol(symbol),
        "side": side,
        "amount": D(str(amount)),
        "type": OrderType.MARKET if price is None else OrderType.LIMIT,
        "price": None if price is None else D(str(price)),
        "client_order_id": "c1",
        "reduce_only": False,
        "decision_id": None,
        "agent_id": None,
        "venue": "paper",
        "account": "default",
        **changes,
    }
    return CheckedOrder(**fields)


def hold(side: Side, amount: object, symbol: str = BTC, price: object = None, n: int = 0) -> Hold:
    key = PositionKey("paper", "default", symbol)
    limit = None if price is None else D(str(price))
    name = f"h{n}-{side}-{amount}-{symbol}"
    kind = OrderType.MARKET if price is None else OrderType.LIMIT
    return Hold(name, key, side, kind, D(str(amount)), limit, HoldState.WORKING, NOW)


def at(symbol: str, amount: object, **where: str) -> Position:
    key = PositionKey(where.get("venue", "paper"), where.get("account", "default"), symbol,
                      where.get("leg", "net"))  # fmt: skip
    return Position(key, D(str(amount)), D(1), NOW)


def book(*parts: Hold | Position, price: object = 100, age_ms: int = 0) -> Book:
    made = Book(HEAD)
    prices = [
        ReferencePrice(symbol, D(str(price)), NOW - age_ms)
        for symbol in (BTC, ETH, SOL, PERP, "LTC/USDT", "XYZ/USDT")
    ]
    holds = tuple(part for part in parts if isinstance(part, Hold))
    positions = tuple(part for part in parts if isinstance(part, Position))
    made.apply(Changes(HEAD, holds=holds, positions=positions, prices=tuple(prices)))
    return made


def check(
    asked: CheckedOrder, held: Book, limits: LimitSet = DEFAULTS, equity: EquityView = RICH
) -> tuple[Breach, ...]:
    return check_limits(asked, held, limits, equity, newest_price(held, None), NOW)[0]


def codes(*args: Any, **kwargs: Any) -> list[str]:
    return [breach.code.value for breach in check(*args, **kwargs)]


def around(edge: object) -> list[tuple[D, bool]]:
    return [(D(str(edge)) - STEP, True), (D(str(edge)), True), (D(str(edge)) + STEP, False)]


@pytest.mark.parametrize(("amount", "passes"), around(100))
@pytest.mark.parametrize("side", list(Side))
def test_POSITION_SIZE_is_allowed_at_the_limit(side: Side, amount: D, *, passes: bool) -> None:
    breaches = check(order(side, amount, PERP), book())

    assert [one.code for one in breaches] == ([] if passes else [Reason.POSITION_SIZE])
    if not passes:
        assert (breaches[0].limit, breaches[0].unit) == (D(10_000), "USD")
        assert breaches[0].observed == D("10000.0000000000000001")
        assert "10000.00000001 USD, above the limit of 10000 USD" in breaches[0].message


@pytest.mark.parametrize(("amount", "passes"), around(200))
def test_TOTAL_EXPOSURE_is_allowed_at_the_limit(amount: D, *, passes: bool) -> None:
    held = book(at(ETH, 100), at(PERP, -100), hold(BUY, 100, SOL))
    breaches = check(order(BUY, amount), held, WIDE)

    assert [one.code for one in breaches] == ([] if passes else [Reason.TOTAL_EXPOSURE])
    assert passes or breaches[0].limit == 50_000


@pytest.mark.parametrize(("amount", "passes"), around(100))
def test_LEVERAGE_is_allowed_at_the_limit(amount: D, *, passes: bool) -> None:
    breaches = check(order(BUY, amount), book(), WIDE, EquityView(D(500), known=True))

    assert [one.code for one in breaches] == ([] if passes else [Reason.LEVERAGE])
    assert passes or (breaches[0].limit, breaches[0].unit) == (D(20), "x")
    assert passes or breaches[0].observed == D("20.000000000000000001")


@pytest.mark.parametrize(("amount", "passes"), around(100))
def test_SECTOR_EXPOSURE_is_a_share_of_the_greatest_total(amount: D, *, passes: bool) -> None:
    breaches = check(order(BUY, amount, ETH), book(at(SOL, 100), at(BTC, 90)))
    sector = [one for one in breaches if one.code is Reason.SECTOR_EXPOSURE]

    assert (not sector) is passes
    if sector:
        assert (sector[0].limit, sector[0].unit) == (D(40), "%")
        assert sector[0].observed is not None
        assert sector[0].observed > 40
        assert "Smart Contract Platform" in sector[0].message


def test_the_first_order_is_no_breach_of_its_sector_and_other_sectors_do_not_count() -> None:
    assert codes(order(BUY, 100), book()) == []
    assert codes(order(BUY, 100), book(at(ETH, 100), at(SOL, 100))) == []
    assert DEFAULTS.max_sector_exposure == 20_000
    named = replace(DEFAULTS, sectors={"BTC": "mine", "ETH": "mine", "SOL": "mine"})
    assert codes(order(BUY, 1), book(at(ETH, 100), at(SOL, 100)), named) == ["SECTOR_EXPOSURE"]


@pytest.mark.parametrize(
    ("side", "price", "passes"),
    [
        *((BUY, price, passes) for price, passes in around(105)),
        (SELL, D(95) + STEP, True),
        (SELL, D(95), True),
        (SELL, D(95) - STEP, False),
        (BUY, D(1), True),
        (SELL, D(10_000), True),
    ],
)
def test_PRICE_COLLAR_bounds_what_is_worse_for_us(side: Side, price: D, *, passes: bool) -> None:
    breaches = check(order(side, "0.001", PERP, price=price), book())

    assert [one.code for one in breaches] == ([] if passes else [Reason.PRICE_COLLAR])
    if breaches:
        assert (breaches[0].limit, breaches[0].unit) == (D(5), "%")
        assert breaches[0].observed == D(5) + STEP


@pytest.mark.parametrize(
    ("age_ms", "passes"),
    [(4_999, True), (5_000, True), (5_001, False), (-2_000, True), (-2_001, False)],
)
def test_a_price_counts_at_its_greatest_age_and_not_later(age_ms: int, *, passes: bool) -> None:
    breaches = check(order(BUY, 1), book(age_ms=age_ms))

    assert [one.code for one in breaches] == ([] if passes else [Reason.PRICE_UNAVAILABLE])
    assert passes or (breaches[0].limit, breaches[0].unit, breaches[0].observed) == (5, "s", None)


@pytest.mark.parametrize("change", [None, "stale", "future"])
@pytest.mark.parametrize("part", [at(SOL, 1), at(SOL, -1), hold(BUY, 1, SOL), hold(SELL, 1, SOL)])
def test_every_symbol_held_or_resting_needs_its_price(
    part: Hold | Position, change: str | None
) -> None:
    held = book(part)
    if change is None:
        del held.prices[SOL]
    else:
        moved_ms = -5_001 if change == "stale" else 2_001
        held.prices[SOL] = ReferencePrice(SOL, D(100), NOW + moved_ms)
    breaches = check(order(BUY, 1), held)

    assert [one.code for one in breaches] == [Reason.PRICE_UNAVAILABLE]
    assert SOL in breaches[0].message
    assert BTC not in breaches[0].message


def test_a_quote_without_a_rate_in_usd_has_no_price() -> None:
    held = book(price=100)
    held.prices["ETH/BTC"] = ReferencePrice("ETH/BTC", D("0.05"), NOW)
    limits = replace(DEFAULTS, allowed_symbols=frozenset({"ETH/BTC"}))

    assert codes(order(BUY, 1, "ETH/BTC", price="0.05"), held, limits) == ["PRICE_UNAVAILABLE"]
    rated = replace(limits, quote_usd={**limits.quote_usd, "BTC": D(100_000)})
    assert codes(order(BUY, 2, "ETH/BTC", price="0.05"), held, rated) == []
    assert codes(order(BUY, "2.1", "ETH/BTC", price="0.05"), held, rated) == ["POSITION_SIZE"]


def test_a_symbol_must_be_on_the_whitelist_and_spot_does_not_admit_the_perpetual() -> None:
    spot = replace(DEFAULTS, allowed_symbols=frozenset({BTC, ETH}))
    breaches = check(order(BUY, 1, PERP), book(), spot)

    assert [one.code for one in breaches] == [Reason.SYMBOL_NOT_ALLOWED]
    assert f"{PERP} is not on the whitelist ({BTC}, {ETH})" in breaches[0].message
    assert codes(order(BUY, 1, BTC), book(), spot) == []


def total(*parts: Hold | Position, extra: CheckedOrder | None = None) -> D:
    held = book(*parts)
    return exposure_of(held, DEFAULTS, newest_price(held, None), NOW, extra=extra).total


@pytest.mark.parametrize(
    ("parts", "extra", "worst"),
    [
        ((at(PERP, 3), hold(SELL, 5, PERP)), None, 3),
        ((at(PERP, 3), hold(SELL, 7, PERP)), None, 4),
        ((at(PERP, 3), hold(BUY, 5, PERP), hold(SELL, 9, PERP)), None, 8),
        ((at(PERP, -3), hold(BUY, 5, PERP), hold(SELL, 9, PERP)), None, 12),
        ((at(PERP, -3),), order(SELL, 2, PERP), 5),
        ((at(PERP, -3), hold(BUY, 1, PERP)), order(BUY, 7, PERP), 5),
        ((hold(BUY, 1, PERP), hold(BUY, 2, PERP, n=1)), order(BUY, 4, PERP), 7),
        ((at(BTC, 3), at(PERP, -3)), None, 6),
        ((at(PERP, 3), at(PERP, -3, venue="other")), None, 6),
        ((at(PERP, 3), at(PERP, -3, account="second")), None, 6),
        ((at(PERP, 3, leg="long"), at(PERP, -3, leg="short")), None, 6),
        ((at(PERP, 3),), order(SELL, 3, PERP, venue="other"), 6),
        ((), order(SELL, 3, PERP), 3),
        ((), None, 0),
    ],
)
def test_exposure_is_the_worst_case_gross_and_nets_nothing(
    parts: tuple[Hold | Position, ...], extra: CheckedOrder | None, worst: int
) -> None:
    assert total(*parts, extra=extra) == worst * 100


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize(
    ("limit", "resting", "valuation"),
    [(None, None, 100), (90, None, 100), (104, None, 104), (99, 103, 103), (104, 103, 104)],
)
def test_the_valuation_is_the_dearest_of_reference_and_limits_on_both_sides(
    side: Side, limit: int | None, resting: int | None, valuation: int
) -> None:
    parts = () if resting is None else (hold(side, 1, PERP, price=resting),)
    worth = total(*parts, extra=order(side, 2, PERP, price=limit))

    assert worth == (2 + len(parts)) * valuation


def test_a_low_limit_understates_no_sale() -> None:
    assert codes(order(SELL, 101, PERP, price=96), book()) == ["POSITION_SIZE"]


def test_a_limit_per_symbol_counts_all_venues_together() -> None:
    held = book(at(PERP, 60, venue="other"))

    assert codes(order(SELL, 40, PERP), held) == []
    assert codes(order(SELL, 41, PERP), held) == ["POSITION_SIZE"]


def test_a_spot_sell_beyond_what_is_held_names_what_would_pass() -> None:
    breaches = check(order(SELL, 5), book(at(BTC, 4), hold(SELL, 1)))

    assert [one.code for one in breaches] == [Reason.INSUFFICIENT_POSITION]
    assert (breaches[0].limit, breaches[0].observed, breaches[0].unit) == (3, 5, "BTC")
    assert breaches[0].message.endswith("not yet offered; 3 would pass")
    nothing = check(order(SELL, 5), book())
    assert (nothing[0].code, nothing[0].limit) == (Reason.INSUFFICIENT_POSITION, 0)


@pytest.mark.parametrize("symbol", [BTC, PERP])
@pytest.mark.parametrize(("side", "may"), [(SELL, 4), (BUY, 0)])
def test_reduce_only_never_turns_or_grows_a_position(symbol: str, side: Side, may: int) -> None:
    breaches = check(order(side, 5, symbol, reduce_only=True), book(at(symbol, 4)))

    assert [one.code for one in breaches] == [Reason.REDUCE_ONLY]
    assert (breaches[0].limit, breaches[0].observed, breaches[0].unit) == (may, 5, "BTC")


def test_an_order_beyond_zero_is_refused_whole_and_the_refusal_names_what_would_pass() -> None:
    held = book(at(PERP, 4), hold(SELL, 1, PERP))
    breaches = check(order(SELL, 104, PERP), held)

    assert [one.code for one in breaches] == [Reason.POSITION_SIZE]
    assert breaches[0].message.endswith("; 3 BTC would pass as a reduction")
    assert codes(order(SELL, 103, PERP), held) == []


@pytest.mark.parametrize(
    ("equity", "note"),
    [
        (EquityView(None, known=False), "equity is unknown"),
        (EquityView(D(10**6), known=False, note="the mark is stale"), "the mark is stale"),
        (EquityView(None, known=True), "equity is unknown"),
        (EquityView(D(0), known=True), "an equity of 0 USD"),
        (EquityView(D(-5), known=True), "an equity of -5 USD"),
    ],
)
def test_equity_that_is_unknown_or_not_positive_refuses(equity: EquityView, note: str) -> None:
    breaches = check(order(BUY, "0.001"), book(), equity=equity)

    assert [one.code for one in breaches] == [Reason.LEVERAGE]
    assert note in breaches[0].message
    assert (breaches[0].limit, breaches[0].observed, breaches[0].unit) == (20, None, "x")


def test_every_rule_that_is_broken_is_listed_and_the_first_in_order_decides() -> None:
    limits = replace(DEFAULTS, allowed_symbols=frozenset({ETH}))
    held = book(at(ETH, 10), at("LTC/USDT", 5))
    del held.prices["LTC/USDT"]
    asked = order(SELL, 600, price=94, reduce_only=True)
    breaches = check(asked, held, limits, EquityView(D(1), known=True))

    assert [one.code for one in breaches] == [
        Reason.SYMBOL_NOT_ALLOWED,
        Reason.PRICE_UNAVAILABLE,
        Reason.PRICE_COLLAR,
        Reason.REDUCE_ONLY,
        Reason.POSITION_SIZE,
        Reason.TOTAL_EXPOSURE,
        Reason.LEVERAGE,
        Reason.SECTOR_EXPOSURE,
    ]
    assert all(one.limit is not None and one.unit for one in breaches[1:])
    assert all(one.observed is not None for one in breaches[2:])


def test_the_newer_of_two_prices_counts() -> None:
    old, new = ReferencePrice(BTC, D(1), NOW - 1), ReferencePrice(BTC, D(2), NOW)
    held, empty = book(), Book(HEAD)
    held.prices[BTC] = old
    assert newest_price(held, lambda _: new)(BTC) is new
    held.prices[BTC] = new
    assert newest_price(held, lambda _: old)(BTC) is new
    assert newest_price(held, lambda _: replace(new, price=D(3)))(BTC) == replace(new, price=D(3))
    assert newest_price(held, lambda _: None)(BTC) is new
    assert newest_price(empty, lambda _: old)(BTC) is old
    assert newest_price(empty, lambda _: None)(BTC) is None
    assert newest_price(empty, None)(BTC) is None


def test_limits_survive_the_store_whole() -> None:
    limits = replace(DEFAULTS, sectors={"BTC": "x"}, max_leverage=D("2.50"))
    assert LimitSet.from_text(limits.to_text()) == limits
    assert limits.to_text() == replace(limits, max_leverage=D("2.5")).to_text()
