"""`reset`: it shows what would trip again, asks, and clears only what was confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
WHO = ("reset", "--operator", "Ada", "--reason", "looked at")


@pytest.fixture
def tripped(store: Path) -> Path:
    """A breaker that tripped on a loss of 11 %."""
    from tinywindow.safety import CircuitBreaker

    async def lose() -> None:
        async with CircuitBreaker(None, store) as breaker:
            await breaker.record_equity(10_000)
            await breaker.record_equity(8_900)
            await breaker.check_all_metrics()

    asyncio.run(lose())
    return store


def test_there_is_nothing_to_reset(cli: Cli, store: Path) -> None:
    answer = cli(*WHO, "--yes")
    assert answer.code == 0
    assert "nothing to reset" in answer.out


def test_it_asks_first(cli: Cli, tripped: Path) -> None:
    answer = cli(*WHO)
    assert answer.code == 1
    assert "DAILY_PNL" in answer.out
    assert "--yes" in answer.err
    assert cli("status", "--json").document["circuit_breaker"]["is_halted"] is True


def test_a_loss_that_is_still_breached_needs_a_rebaseline(cli: Cli, tripped: Path) -> None:
    refused = cli(*WHO, "--yes")
    assert refused.code == 1
    assert "--rebaseline" in refused.out
    done = cli(*WHO, "--yes", "--rebaseline", "--json")
    assert done.code == 0, done
    assert done.document["reset"] is True
    assert done.document["still_breached"]
    status = cli("status", "--json").document
    assert status["circuit_breaker"]["is_halted"] is False
    assert status["trading"] == "STOPPED"


@pytest.fixture
def silent(store: Path) -> Path:
    """Two accounts, of which one was last marked an hour ago."""
    from tinywindow.safety import CircuitBreaker

    async def mark() -> None:
        async with CircuitBreaker(None, store) as breaker:
            await breaker.record_equity(10_000)
            await breaker.record_equity(
                5_000, account="gone", at=datetime.now(UTC) - timedelta(hours=1)
            )

    asyncio.run(mark())
    return store


RETIRE = (*WHO, "--retire-account", "gone")


def test_an_account_is_retired_only_while_trading_is_stopped(cli: Cli, silent: Path) -> None:
    refused = cli(*RETIRE, "--yes")
    assert refused.code == 1
    assert "trading must be stopped first" in refused.err
    assert cli("stop").code == 0
    done = cli(*RETIRE, "--yes", "--json")
    assert (done.code, done.document) == (0, {"retired": "gone"})
    assert cli(*RETIRE, "--yes").code == 1
    assert "ACCOUNT_RETIRED" in cli("audit", "tail").out


def test_a_retirement_asks_first_and_goes_with_no_rebaseline(cli: Cli, silent: Path) -> None:
    assert cli("stop").code == 0
    answer = cli(*RETIRE)
    assert answer.code == 1
    assert "Nothing was changed" in answer.out
    assert "ACCOUNT_RETIRED" not in cli("audit", "tail").out
    assert cli(*RETIRE, "--rebaseline", "--yes").code == 2
