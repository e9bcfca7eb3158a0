"""`reset`: it shows what would trip again, asks, and clears only what was confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
