"""Every snippet of the user's page runs as it stands, but for the objects it takes as given."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tinywindow.safety import (
    CircuitBreaker,
    CircuitBreakerConfig,
    KillSwitch,
    KillSwitchMode,
    Order,
    PositionLimitEnforcer,
    run_circuit_breaker_monitor,
)
from tinywindow.testing import ScriptedExchange

CIRCUIT_BREAKER = """
from tinywindow.safety import CircuitBreaker

# Initialize with Redis for state persistence
circuit_breaker = CircuitBreaker(redis_client, db_connection)

# Check metrics and status
status = await circuit_breaker.check_all_metrics()

# Check if trading is allowed
if circuit_breaker.is_halted:
    print("Trading halted due to:", circuit_breaker.halt_reason)

# Manual reset (requires confirmation)
circuit_breaker.reset()
"""

CONFIGURATION = """
config = CircuitBreakerConfig(
    daily_loss_limit=-10.0,  # Percentage
    drawdown_limit=-15.0,     # Percentage
    max_trades_per_hour=50,
    error_rate_limit=10.0,    # Percentage
    consecutive_failure_limit=5,
)
"""

KILL_SWITCH = """
from tinywindow.safety import KillSwitch, KillSwitchMode

kill_switch = KillSwitch(redis_client, exchanges, db_connection)

# Activate (halt only)
await kill_switch.activate(
    mode=KillSwitchMode.HALT_ONLY,
    reason="Market volatility too high"
)

# Activate (close all positions)
await kill_switch.activate(
    mode=KillSwitchMode.CLOSE_POSITIONS,
    reason="Emergency stop requested"
)

# Check status
if await kill_switch.is_active():
    status = await kill_switch.get_status()
    print(f"Kill switch active: {status}")

# Deactivate
await kill_switch.deactivate()
"""

POSITION_LIMITS = """
from tinywindow.safety import PositionLimitEnforcer

enforcer = PositionLimitEnforcer(db_connection)

# Check if order is allowed
result = await enforcer.check_order_allowed(order)

if not result.allowed:
    print(f"Order rejected: {result.rejection_reason}")
else:
    # Proceed with execution
    pass
"""

VALIDATION = """
from tinywindow.safety import OrderValidator, PromptSanitizer

# Validate order
validator = OrderValidator()
result = validator.validate_order(order)

if not result.is_valid:
    print(f"Invalid order: {result.errors}")

# Sanitize prompt
sanitizer = PromptSanitizer()
safe_prompt = sanitizer.sanitize(user_input)
"""


ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT.parent / "shared" / "spec" / "requirement.md"


def snippets_of(page: Path) -> list[str]:
    """The Python snippets of a page, without the space between words, which may be set anew."""
    found = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return ["".join(snippet.split()) for snippet in found]


def test_the_readme_shows_the_snippets_that_run_here_word_for_word() -> None:
    ours = (CIRCUIT_BREAKER, CONFIGURATION, KILL_SWITCH, POSITION_LIMITS, VALIDATION)
    # The last snippet is the orchestrator below, which needs a class around it.
    shown = snippets_of(ROOT / "README.md")
    assert shown[:-1] == ["".join(snippet.split()) for snippet in ours]
    assert "run_circuit_breaker_monitor(self.circuit_breaker)" in shown[-1]


@pytest.mark.skipif(
    not PAGE.exists(),
    reason=f"NO REQUIREMENT: {PAGE} is not here; that these are its snippets was not shown",
)
def test_the_snippets_are_the_requirements_word_for_word() -> None:
    ours = (CIRCUIT_BREAKER, CONFIGURATION, KILL_SWITCH, POSITION_LIMITS, VALIDATION)
    # The page's last snippet is the orchestrator below, which needs a class around it.
    assert snippets_of(PAGE)[:-1] == ["".join(snippet.split()) for snippet in ours]


async def run_snippet(source: str, given: Mapping[str, object]) -> dict[str, object]:
    """Run a snippet with top-level await, as in an asynchronous shell; give its names back."""
    names: dict[str, object] = dict(given)
    code = compile(source, "snippet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result
    return names


@contextlib.asynccontextmanager
async def closing(names: Mapping[str, object], *keys: str) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for key in keys:
            await names[key].close()  # type: ignore[attr-defined]


@pytest.fixture
def db_connection(tmp_path: Path) -> Path:
    return tmp_path / "tinywindow.db"


async def test_the_circuit_breaker_snippet_runs_and_reset_clears_nothing(
    db_connection: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breaker = CircuitBreaker(None, db_connection)
    await breaker.record_equity(20_000)
    await breaker.record_equity(17_000)

    names = await run_snippet(
        CIRCUIT_BREAKER, {"redis_client": None, "db_connection": db_connection}
    )

    async with closing(names, "circuit_breaker"):
        assert names["circuit_breaker"].is_halted  # type: ignore[attr-defined]
        assert names["status"].is_halted  # type: ignore[attr-defined]
        assert "Trading halted due to: DAILY_PNL" in capsys.readouterr().out
    await breaker.close()


async def test_the_configuration_snippet_gives_the_thresholds_of_the_table() -> None:
    names = await run_snippet(CONFIGURATION, {"CircuitBreakerConfig": CircuitBreakerConfig})

    assert names["config"] == CircuitBreakerConfig()


async def test_the_kill_switch_snippet_stops_closes_and_releases(
    db_connection: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange = ScriptedExchange("fake")
    given = {"redis_client": None, "exchanges": [exchange], "db_connection": db_connection}

    names = await run_snippet(KILL_SWITCH, given)

    async with closing(names, "kill_switch"):
        assert "Kill switch active" in capsys.readouterr().out
        assert not await names["kill_switch"].is_active()  # type: ignore[attr-defined]


@pytest.mark.parametrize("as_mapping", [False, True])
async def test_the_position_limit_snippet_refuses_and_allows(
    db_connection: Path, as_mapping: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    order: object = Order("BTC/USDT", "BUY", "0.1")
    if as_mapping:
        order = {"symbol": "BTC/USDT", "side": "BUY", "amount": "0.1"}
    given = {"db_connection": db_connection, "order": order}

    names = await run_snippet(POSITION_LIMITS, given)
    async with closing(names, "enforcer"):
        assert not names["result"].allowed  # type: ignore[attr-defined]
        assert "Order rejected: PRICE_UNAVAILABLE" in capsys.readouterr().out

        async with PositionLimitEnforcer(db_connection) as feeder:
            await feeder.record_equity(20_000)
            await feeder.set_reference_price("BTC/USDT", 60_000)
            again = await run_snippet(POSITION_LIMITS, given)
        async with closing(again, "enforcer"):
            assert again["result"].allowed  # type: ignore[attr-defined]


async def test_the_validation_snippet_names_what_is_wrong_and_keeps_the_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = await run_snippet(
        VALIDATION,
        {"order": Order("btc/usdt", "HOLD", 0), "user_input": "BTC rose 5 %\u200b today"},
    )

    assert "Invalid order: (" in capsys.readouterr().out
    assert len(names["result"].errors) == 3  # type: ignore[attr-defined]
    assert names["safe_prompt"] == "BTC rose 5 % today"


class Orchestrator:
    """The requirement's orchestrator, its methods as they stand on the page."""

    def __init__(self, redis: object, exchanges: object, db: object) -> None:
        self.circuit_breaker = CircuitBreaker(redis, db)
        self.kill_switch = KillSwitch(redis, exchanges, db)
        self.limits = PositionLimitEnforcer(db)
        self.cycles = 0

    async def execute_cycle(self) -> None:
        self.cycles += 1
        await self.circuit_breaker.record_equity(20_000)
        if self.cycles == 3:
            await self.kill_switch.activate(mode=KillSwitchMode.HALT_ONLY, reason="enough")

    # In trading loop
    async def run(self) -> None:
        # Start circuit breaker monitor
        asyncio.create_task(run_circuit_breaker_monitor(self.circuit_breaker))  # noqa: RUF006 - the page's own line

        while True:
            # Check kill switch
            if await self.kill_switch.is_active():
                break

            # Check circuit breaker
            if self.circuit_breaker.is_halted:
                break

            # Execute trading cycle
            await self.execute_cycle()


async def test_the_requirements_loop_trades_until_it_is_stopped(db_connection: Path) -> None:
    orchestrator = Orchestrator(None, [ScriptedExchange("fake")], db_connection)

    await asyncio.wait_for(orchestrator.run(), 20)

    assert orchestrator.cycles == 3
    await orchestrator.limits.close()
    await orchestrator.kill_switch.close()
    await orchestrator.circuit_breaker.close()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
