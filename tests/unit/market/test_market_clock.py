"""Clocks: the wall's and the market's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from market_time import START

from tinywindow.market.clock import MarketClock, SystemClock
from tinywindow.safety.errors import InvariantBroken
from tinywindow.safety.ports import Clock


def test_the_system_clock_is_aware_and_its_monotonic_part_never_goes_back() -> None:
    clock: Clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() <= clock.monotonic()


def test_the_market_clock_stands_until_it_is_moved() -> None:
    clock = MarketClock(START)
    assert isinstance(clock, Clock)
    assert (clock.now(), clock.monotonic()) == (START, 0)
    clock.move_to(START + timedelta(seconds=1.5))
    assert (clock.now(), clock.monotonic()) == (START + timedelta(seconds=1.5), 1.5)


def test_the_market_clock_never_goes_back() -> None:
    clock = MarketClock(START)
    clock.move_to(START)
    with pytest.raises(InvariantBroken):
        clock.move_to(START - timedelta(microseconds=1))


def test_the_market_clock_tells_utc_and_refuses_a_time_without_zone() -> None:
    clock = MarketClock(datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now() == START
    assert clock.now().tzinfo is UTC
    with pytest.raises(InvariantBroken):
        MarketClock(datetime(2024, 1, 1))  # noqa: DTZ001
