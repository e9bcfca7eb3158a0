"""A replay tells each bar when it closes, several symbols in step."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from market_time import MINUTE_MS, START, Sleeps, all_of, candles

from tinywindow.market.clock import MarketClock
from tinywindow.market.feed import Feed
from tinywindow.market.replay import ReplayFeed
from tinywindow.safety.errors import ConfigurationError

LAST_MS = timedelta(milliseconds=1)


def test_a_bar_is_told_at_its_last_millisecond() -> None:
    feed: Feed = ReplayFeed([candles("BTC/USDT", {0: 100, 1: 101})], sleep=Sleeps())
    first, second = all_of(feed)
    assert first.at == START + timedelta(minutes=1) - LAST_MS
    assert second.at == START + timedelta(minutes=2) - LAST_MS
    assert first.prices == {"BTC/USDT": Decimal(100)}
    assert first.bars["BTC/USDT"].close == 100
    assert isinstance(feed, Feed)


def test_symbols_go_in_step_and_a_missing_bar_gives_no_price() -> None:
    btc = candles("BTC/USDT", {0: 1, 1: 2, 2: 3})
    eth = candles("ETH/USDT", {0: 10, 2: 30})
    feed = ReplayFeed([btc, eth], sleep=Sleeps())
    assert feed.symbols == ("BTC/USDT", "ETH/USDT")
    prices = [dict(moment.prices) for moment in all_of(feed)]
    assert prices == [
        {"BTC/USDT": 1, "ETH/USDT": 10},
        {"BTC/USDT": 2},
        {"BTC/USDT": 3, "ETH/USDT": 30},
    ]


def test_intervals_may_differ() -> None:
    fast = candles("BTC/USDT", dict.fromkeys(range(5), 1))
    slow = candles("ETH/USDT", {0: 2}, interval_ms=5 * MINUTE_MS)
    moments = all_of(ReplayFeed([fast, slow], sleep=Sleeps()))
    assert [len(moment.prices) for moment in moments] == [1, 1, 1, 1, 2]


def test_the_clock_moves_with_the_replay_and_progress_is_the_share_told() -> None:
    clock = MarketClock(START)
    feed = ReplayFeed([candles("BTC/USDT", {0: 1, 1: 2, 3: 4})], clock=clock, sleep=Sleeps())
    assert feed.progress == 0
    assert clock.now() == START
    (first,) = all_of(feed, at_most=1)
    assert clock.now() == first.at
    assert feed.progress == pytest.approx(1 / 3)
    all_of(feed)
    assert feed.progress == 1
    assert clock.now() == START + timedelta(minutes=4) - LAST_MS
    assert all_of(feed) == []


def test_speed_divides_the_markets_time_and_a_long_gap_is_bounded() -> None:
    sleeps = Sleeps()
    file = candles("BTC/USDT", {0: 1, 1: 2, 3: 3, 5000: 4})
    all_of(ReplayFeed([file], speed=60, sleep=sleeps))
    assert sleeps.seconds == [1, 2, 60]


def test_at_full_speed_the_loop_still_gets_its_turns() -> None:
    sleeps = Sleeps()
    all_of(ReplayFeed([candles("BTC/USDT", {0: 1, 1: 2, 2: 3})], sleep=sleeps))
    assert sleeps.seconds == [0, 0]


def test_files_of_one_symbol_follow_each_other_but_may_not_overlap() -> None:
    early, late = candles("BTC/USDT", {0: 1, 1: 2}), candles("BTC/USDT", {2: 3})
    moments = all_of(ReplayFeed([late, early], sleep=Sleeps()))
    assert [int(moment.prices["BTC/USDT"]) for moment in moments] == [1, 2, 3]
    with pytest.raises(ConfigurationError, match="overlap"):
        ReplayFeed([early, candles("BTC/USDT", {1: 3})])


def test_a_replay_without_bars_is_refused() -> None:
    for files in ([], [candles("BTC/USDT", {})]):
        with pytest.raises(ConfigurationError):
            ReplayFeed(files)


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused(speed: float) -> None:
    with pytest.raises(ConfigurationError):
        ReplayFeed([candles("BTC/USDT", {0: 1})], speed=speed)


def test_what_was_seen_already_is_passed_over() -> None:
    """A second start goes on behind the newest moment of the first; time never goes back."""
    sleeps = Sleeps()
    file = candles("BTC/USDT", {0: 1, 1: 2, 2: 3, 3: 4})
    feed = ReplayFeed([file], speed=60, sleep=sleeps)
    seen = START + timedelta(minutes=2) - LAST_MS
    assert [moment.prices["BTC/USDT"] for moment in feed.skip_to(seen)] == [1, 2]
    assert feed.clock.now() == seen
    assert feed.progress == pytest.approx(1 / 2)
    assert [moment.prices["BTC/USDT"] for moment in all_of(feed)] == [3, 4]
    assert sleeps.seconds == [1, 1]
    assert list(feed.skip_to(START)) == []
    assert feed.clock.now() == START + timedelta(minutes=4) - LAST_MS
