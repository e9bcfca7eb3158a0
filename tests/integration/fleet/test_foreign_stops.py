"""Stops that come in with odd names and words are latched in PostgreSQL, and can be released."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from fleet import eventually
from pg_writers import query
from valkey import Valkey

from tinywindow.safety import KillSwitch
from tinywindow.safety.services.location import Location
from tinywindow.safety.stores.ring_value import RING_KEY

PLAIN = {
    "id": "K1",
    "mode": "HALT_ONLY",
    "reason": "by hand",
    "actor": "somebody",
    "source": "CLI",
}


@pytest.mark.parametrize(
    "odd",
    [
        # As a process names a ring that it heard while the database was away.
        {"id": "seen-redis-" + "0" * 24 + "-K" + "1" * 20},
        {"id": "x" * 64},
        {"reason": "a NUL \x00 inside"},
        {"reason": "a lone \ud800 surrogate"},
        {"actor": "a" * 5_000},
        {"id": "K\x00"},
        {"id": "\ud800"},
    ],
    ids=["seen", "long", "nul", "surrogate", "actor", "nul id", "surrogate id"],
)
async def test_an_odd_envelope_is_latched_and_released(
    durable_url: str, valkey: Valkey, tmp_path: Path, odd: Mapping[str, object]
) -> None:
    async with KillSwitch(valkey.url, (), Location(durable_url, None, tmp_path)) as switch:
        assert not await switch.is_active()
        envelope = json.dumps(
            {
                "tinywindow": 1,
                "latches": [{**PLAIN, "activated_ms": time.time_ns() // 1_000_000, **odd}],
            }
        )
        valkey.raw("SET", RING_KEY, envelope)
        standing = "SELECT id FROM latches WHERE released_ms IS NULL"
        await eventually(lambda: query(durable_url, standing), "it is latched", 5)
        assert await switch.is_active()
        activated = "SELECT id FROM audit_log WHERE event_type = 'KILL_SWITCH_ACTIVATE'"
        await eventually(lambda: query(durable_url, activated), "its row follows", 10)
        await switch.deactivate(reason="seen", actor="operator", force=True)

        async def clear() -> bool:
            return not await switch.is_active()

        await eventually(clear, "it is clear", 5)
        assert not query(durable_url, standing)
