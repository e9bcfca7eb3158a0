"""A user's file, checked by mypy strict: the requirement's snippets with their types.

It is type-checked, never run; `assert_type` holds what a user's editor shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import assert_type

from tinywindow.safety import (
    ApprovedInPrinciple,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerStatus,
    KillReport,
    KillSwitch,
    KillSwitchMode,
    KillSwitchStatus,
    Order,
    OrderGate,
    OrderValidator,
    PendingReset,
    PositionLimitEnforcer,
    PromptSanitizer,
    Reason,
    Refused,
    VenueReport,
    run_circuit_breaker_monitor,
)


async def circuit_breaker(db_connection: Path) -> None:
    config = CircuitBreakerConfig(
        daily_loss_limit=-10.0,
        drawdown_limit=-15.0,
        max_trades_per_hour=50,
        error_rate_limit=10.0,
        consecutive_failure_limit=5,
    )
    breaker = CircuitBreaker(None, db_connection, config)
    status = await breaker.check_all_metrics()
    assert_type(status.is_halted, bool)
    assert_type(status.halt_reason, str | None)
    assert_type(status.metrics["daily_pnl"].value, Decimal | None)
    assert_type(breaker.is_halted, bool)
    assert_type(breaker.halt_reason, str | None)
    assert_type(status, CircuitBreakerStatus)
    pending = breaker.reset()
    assert_type(pending, PendingReset)
    await pending.confirm(operator="ada", reason="checked", rebaseline=False)
    await run_circuit_breaker_monitor(breaker)
    await breaker.close()


async def kill_switch(exchanges: Mapping[str, object], db_connection: str) -> None:
    switch = KillSwitch("redis://localhost", exchanges, db_connection)
    report = await switch.activate(mode=KillSwitchMode.HALT_ONLY, reason="volatility")
    assert_type(report.durable, bool)
    assert_type(report.flat, bool)
    assert_type(await switch.is_active(), bool)
    assert_type(report, KillReport)
    status = await switch.get_status()
    assert_type(status, KillSwitchStatus)
    assert_type(status.venues, Mapping[str, VenueReport])
    assert_type(status.active, bool)
    assert_type(status.mode, KillSwitchMode | None)
    await switch.deactivate()


async def limits(db_connection: Path, order: Order) -> None:
    async with PositionLimitEnforcer(db_connection) as enforcer:
        result = await enforcer.check_order_allowed(order)
        assert_type(result.allowed, bool)
        assert_type(result.rejection_reason, str | None)
        assert_type(result.reason_code, Reason | None)


def validation(order: Order, user_input: str) -> str:
    validated = OrderValidator().validate_order(order)
    assert_type(validated.is_valid, bool)
    assert_type(validated.errors, tuple[str, ...])
    return PromptSanitizer().sanitize(user_input)


async def gate(door: OrderGate, order: Order) -> str:
    assert_type(door.evaluate(order), ApprovedInPrinciple | Refused)
    answer = await door.submit(order)
    if isinstance(answer, Refused):
        return answer.rejection_reason
    assert_type(answer.filled, Decimal)
    return answer.client_order_id
