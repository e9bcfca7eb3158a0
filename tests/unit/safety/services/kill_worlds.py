"""What the kill switch's tests share: a doorbell in memory, quick settings, and looks inside."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from tinywindow.safety.config import KillSwitchConfig
from tinywindow.safety.domain.audit import AuditRow
from tinywindow.safety.domain.kill import Latch
from tinywindow.safety.errors import DoorbellUnavailable
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.stop_register import View
from tinywindow.safety.stores.ring_value import RingValue, envelope, ring_of
from tinywindow.safety.stores.sqlite import SqliteStore

QUICK = KillSwitchConfig(
    watch_interval=0.02,
    idle_interval=0.3,
    slow_interval=0.2,
    venue_timeout=0.5,
    in_flight_grace=0.3,
    report_wait=3,
)


def quick(**changes: object) -> KillSwitchConfig:
    fields = {name: getattr(QUICK, name) for name in type(QUICK).model_fields}
    return KillSwitchConfig(**{**fields, **changes})


class FakeBell:
    """A Redis in memory that several kill switches share; it can lose, lie and go away."""

    def __init__(self) -> None:
        self.value: bytes | None = None
        self.down: str | None = None
        self.hangs = False
        self.rung: list[str] = []

    async def _meet(self) -> None:
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.sleep(60)
        if self.down is not None:
            raise DoorbellUnavailable(self.down)

    async def look(self, *, timeout_s: float) -> RingValue | None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._meet()
        except TimeoutError as fault:
            raise DoorbellUnavailable("no answer") from fault
        return None if self.value is None else ring_of(self.value)

    async def ring(self, latch: Latch, *, replacing: bytes | None = None) -> None:
        await self._meet()
        ours = self.value is not None and ring_of(self.value).latch_id is not None
        if self.value is None or ours or self.value == replacing:
            self.value = envelope(latch)
            self.rung.append(latch.id)

    async def silence(self, latch_ids: Iterable[str]) -> bool:
        await self._meet()
        if self.value is None:
            return True
        if ring_of(self.value).latch_id not in set(latch_ids):
            return False
        self.value = None
        return True

    async def close(self) -> None:
        pass


async def view_of(switch: KillSwitch) -> View:
    return await switch._register.view(frozenset(), timeout_s=5)


async def rows_of(database: Path, event: str | None = None) -> tuple[AuditRow, ...]:
    store = await SqliteStore.open(database)
    try:
        await store.transact(lambda tx: tx.drain_outbox())
        return await store.read(lambda tx: tx.audit_rows(event_type=event))
    finally:
        await store.close()


async def eventually(check: object, timeout_s: float = 5.0) -> None:
    """Wait until a check, plain or awaitable, says yes."""
    async with asyncio.timeout(timeout_s):
        while True:
            answer = check()  # type: ignore[operator]
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            await asyncio.sleep(0.01)
