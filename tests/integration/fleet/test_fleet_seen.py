"""What a fleet shows in Redis: every process's heartbeat, and a mirror that commands nothing."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from fleet import Fleet, beats_of, eventually
from fleet_bot import Bot, operating
from pg_writers import query
from valkey import Valkey

from tinywindow.safety.services.breaker_mirror import MIRROR_KEY

pytestmark = pytest.mark.slow

SIZE = 2
ROLES = {"kill-switch", "flattener", "gate", "circuit-breaker"}
ALL_IS_WELL = json.dumps({"is_halted": False, "halt_reason": None, "trip": None})


def mirrored(redis: Valkey) -> dict[str, Any]:
    """What stands in the mirror; nothing where somebody put something else there."""
    if redis.raw("TYPE", MIRROR_KEY) != b"string":
        return {}
    value = redis.raw("GET", MIRROR_KEY)
    return dict(json.loads(value)) if isinstance(value, bytes) else {}


async def says(redis: Valkey, operator: Bot, *, halted: bool) -> bool:
    """Whether a check leaves in the mirror what PostgreSQL says."""
    await operator.breaker.check_all_metrics()
    return mirrored(redis).get("is_halted") is halted


async def test_every_process_shows_its_roles_and_the_mirror_is_postgres_state(
    fleet: Fleet, durable_url: str, valkey: Valkey
) -> None:
    async with operating(fleet.host("operator", durable_url, valkey.url)) as operator:
        for number in range(SIZE):
            fleet.add(fleet.host(f"host-{number}", durable_url, valkey.url), "buy")
        await fleet.all_trade()
        for member in fleet.members:
            await eventually(
                lambda member=member: {
                    role for beat in beats_of(valkey, member) for role in beat["roles"]
                } == ROLES,
                f"all roles of {member.name}",
            )  # fmt: skip
            assert not any(beat["stopped"] for beat in beats_of(valkey, member))
        await eventually(lambda: says(valkey, operator, halted=False), "all is well")
        # Nothing that is written there stops or trips anything.
        for words in (
            ("SET", MIRROR_KEY, '{"is_halted": true, "halt_reason": "DRAWDOWN"}'),
            ("SET", MIRROR_KEY, "\x00garbage"),
            ("HSET", MIRROR_KEY, "is_halted", "true"),
        ):
            valkey.raw("DEL", MIRROR_KEY)
            valkey.raw(*words)
            await fleet.all_trade()
        assert query(durable_url, "SELECT count(*) FROM trips") == [(0,)]
        await eventually(lambda: says(valkey, operator, halted=False), "it is overwritten")
        await operator.feed(equity=8_000_000)
        await eventually(lambda: says(valkey, operator, halted=True), "the trip is mirrored")
        # Nor does it clear a trip.
        valkey.raw("SET", MIRROR_KEY, ALL_IS_WELL)
        now_s = time.monotonic()
        await fleet.all_have_heard(now_s)
        for member in fleet.members:
            assert member.codes_since(now_s) == {"CIRCUIT_BREAKER_TRIPPED"}
        assert query(durable_url, "SELECT count(*) FROM trips") == [(1,)]
        await eventually(lambda: says(valkey, operator, halted=True), "it is overwritten")
        status = await operator.breaker.check_all_metrics()
        await eventually(
            lambda: mirrored(valkey).get("halt_reason") == status.halt_reason, "word for word"
        )
        for member in fleet.members:
            member.process.kill()
        await eventually(
            lambda: not any(beats_of(valkey, member) for member in fleet.members),
            "who is gone is no longer shown",
        )
