"""Starting and stopping by hand: only a start starts, and only where nothing stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from gate_world import code, opened

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.errors import StartRefused
from tinywindow.safety.services.trading import start_trading, stop_trading


async def test_a_stop_by_hand_is_no_latch_and_a_start_ends_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        assert await desk.kill_switch.stop_trading(actor="ada", reason="lunch")
        assert not await desk.kill_switch.is_active()
        assert code(await desk.buy()) == "TRADING_STOPPED"
        assert await desk.kill_switch.start_trading(actor="ada")
        assert code(await desk.buy()) == "ACCEPTED"


async def test_saying_it_again_changes_nothing_and_writes_no_row(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        assert not await desk.kill_switch.start_trading(actor="ada")
        await desk.kill_switch.stop_trading(actor="ada")
        assert not await desk.kill_switch.stop_trading(actor="bob")
        assert [row.actor for row in await desk.rows("TRADING_STOPPED")] == ["ada"]
        assert not await desk.rows("TRADING_STARTED")


async def test_no_start_while_a_stop_stands(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.kill_switch.activate(reason="enough")
        with pytest.raises(StartRefused, match="kill switch is active"):
            await desk.kill_switch.start_trading(actor="ada")
        await desk.kill_switch.deactivate(actor="ada", reason="looked")
        assert await desk.kill_switch.start_trading(actor="ada")


async def test_no_start_while_a_trip_stands(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.breaker.record_equity(1_000)
        with pytest.raises(StartRefused, match=r"circuit breaker is tripped \(DAILY_PNL: "):
            await desk.kill_switch.start_trading(actor="ada")


async def test_neither_a_release_nor_a_reset_starts(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.breaker.record_equity(1_000)
        await desk.kill_switch.activate(reason="enough")
        await desk.kill_switch.deactivate(actor="ada", reason="looked")
        await desk.breaker.reset().confirm("ada", "looked", rebaseline=True)
        assert code(await desk.buy()) == "TRADING_STOPPED"
        assert desk.sent() == []


async def test_the_script_looks_at_the_latches_itself(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await desk.kill_switch.activate(reason="enough")
        row = AuditDraft("r1", desk.clock.now(), EventType.TRADING_STARTED, "ada", {})
        with pytest.raises(StartRefused, match="release it first"):
            await desk.context.store.transact(lambda tx: start_trading(tx, row))
        assert not await desk.context.store.transact(lambda tx: stop_trading(tx, row))
