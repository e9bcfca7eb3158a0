"""The simulated market is its seed's alone, and each scenario does what it says."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from math import log
from statistics import correlation, stdev

import pytest
from market_time import START, Sleeps, all_of

from tinywindow.market.clock import MarketClock, SystemClock
from tinywindow.market.feed import Feed, Moment
from tinywindow.market.scenarios import SCENARIOS, Scenario
from tinywindow.market.simulated import CORRELATION, SimulatedFeed
from tinywindow.safety.errors import ConfigurationError

SEEDS = (1, 2, 3, 4, 5)


def played(
    scenario: str | Scenario, seed: int = 1, steps: int = 400, **terms: object
) -> list[Moment]:
    clock = MarketClock(START)
    feed = SimulatedFeed(
        scenario,
        seed=seed,
        clock=clock,
        steps=steps,
        sleep=Sleeps(),
        **terms,  # type: ignore[arg-type]
    )
    return all_of(feed)


def path(moments: list[Moment], symbol: str = "BTC/USDT") -> list[Decimal]:
    return [moment.prices[symbol] for moment in moments if symbol in moment.prices]


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_one_seed_gives_one_market(scenario: str) -> None:
    assert played(scenario, 7) == played(scenario, 7)
    assert played(scenario, 7) != played(scenario, 8)


def test_the_order_of_symbols_and_a_second_market_of_an_asset_change_no_price() -> None:
    one = played("calm", symbols=("BTC/USDT", "ETH/USDT"))
    other = played("calm", symbols=("ETH/USDT", "BTC/USDT:USDT", "BTC/USDT"))
    assert path(one) == path(other) == path(other, "BTC/USDT:USDT")
    assert path(one, "ETH/USDT") == path(other, "ETH/USDT")


def test_prices_start_where_they_usually_are_and_are_decimals() -> None:
    first = played("calm", steps=1)[0]
    assert first.at == START
    assert first.prices == {
        "BTC/USDT": Decimal(65_000),
        "ETH/USDT": Decimal(3_200),
        "SOL/USDT": Decimal(150),
    }
    assert all(isinstance(price, Decimal) for price in path(played("crash")))


def test_time_goes_on_by_the_step_and_moves_the_markets_clock() -> None:
    clock, sleeps = MarketClock(START), Sleeps()
    feed: Feed = SimulatedFeed(
        "calm", seed=1, clock=clock, step_s=5, steps=3, speed=10, sleep=sleeps
    )
    times = [moment.at - START for moment in all_of(feed)]
    assert times == [timedelta(seconds=5 * n) for n in range(3)]
    assert clock.now() == START + timedelta(seconds=10)
    assert sleeps.seconds == [0.5, 0.5]
    assert isinstance(feed, Feed)


def test_a_clock_that_is_not_the_markets_is_only_read() -> None:
    clock = SystemClock()
    before = clock.now()
    feed = SimulatedFeed("calm", seed=1, clock=clock, steps=3, speed=None, sleep=Sleeps())
    moments = all_of(feed)
    assert all(before <= moment.at <= clock.now() for moment in moments)
    assert feed.progress == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_calm_stays_within_two_percent(seed: int) -> None:
    prices = path(played("calm", seed))
    assert max(prices) / min(prices) < Decimal("1.02")


@pytest.mark.parametrize("seed", SEEDS)
def test_trend_rises_within_an_hour(seed: int) -> None:
    prices = path(played("trend", seed, 3_600))
    assert prices[-1] / prices[0] > Decimal("1.005")


@pytest.mark.parametrize("seed", SEEDS)
def test_crash_takes_more_than_a_fifth_within_the_first_minutes(seed: int) -> None:
    prices = path(played("crash", seed, 300))
    assert min(prices) / prices[0] < Decimal("0.8")
    assert max(prices[:90]) > prices[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_flash_crash_falls_and_is_nearly_back(seed: int) -> None:
    prices = path(played("flash-crash", seed))
    assert min(prices) / prices[0] < Decimal("0.85")
    assert prices[-1] / prices[0] > Decimal("0.95")


def test_outage_has_no_prices_for_a_while_and_time_goes_on() -> None:
    moments = played("outage")
    dark = [(moment.at - START).total_seconds() for moment in moments if not moment.prices]
    assert dark == [*range(60, 150), *range(300, 390)]
    assert len(moments) == 400


def returns(prices: list[Decimal]) -> list[float]:
    return [log(b / a) for a, b in pairwise(prices)]


def test_assets_move_together_as_much_as_promised() -> None:
    moments = played("calm", steps=4_000, step_s=60)
    btc, eth = returns(path(moments)), returns(path(moments, "ETH/USDT"))
    assert correlation(btc, eth) == pytest.approx(CORRELATION, abs=0.04)
    assert stdev(btc) * (86_400 / 60) ** 0.5 == pytest.approx(0.025, rel=0.05)


def test_a_move_is_the_same_whatever_the_step() -> None:
    coarse = path(played("crash", steps=6, step_s=60))
    fine = path(played("crash", steps=301, step_s=1))
    assert float(coarse[-1] / fine[-1]) == pytest.approx(1, abs=0.02)


def test_a_scenario_of_ones_own_can_be_played() -> None:
    moments = played(Scenario("mine", "Nothing moves.", volatility=0), steps=50)
    assert set(path(moments)) == {Decimal(65_000)}


@pytest.mark.parametrize(
    "terms",
    [{"scenario": "storm"}, {"step_s": 0}, {"step_s": float("nan")}, {"symbols": ()}, {"speed": 0}],
)
def test_what_cannot_be_played_is_refused(terms: dict[str, object]) -> None:
    settings: dict[str, object] = {"scenario": "calm", "seed": 1, "clock": MarketClock(START)}
    with pytest.raises(ConfigurationError):
        SimulatedFeed(**{**settings, **terms})  # type: ignore[arg-type]
