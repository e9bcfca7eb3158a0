"""A small world for the breaker's tests: a clock that stands still, and one database file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tinywindow.safety.config import CircuitBreakerConfig
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.circuit_breaker import CircuitBreaker
from tinywindow.safety.services.context import ContextHandle, open_context
from tinywindow.safety.services.location import locate
from tinywindow.safety.services.position_limits import PositionLimitEnforcer

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


class FakeClock:
    """Both clocks, moved by hand; `jump` moves the wall clock alone."""

    def __init__(self, now: datetime = NOON) -> None:
        self.wall = now
        self.mono = 1_000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def advance(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.mono += seconds

    def jump(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)


class World:
    """One database, any number of breakers on it."""

    def __init__(self, folder: Path, clock: FakeClock | None = None) -> None:
        self.folder = folder
        self.clock = FakeClock() if clock is None else clock

    @property
    def database(self) -> Path:
        return self.folder / "tinywindow.db"

    def breaker(self, redis: object = None, **given: object) -> CircuitBreaker:
        config = CircuitBreakerConfig(**given) if given else None  # type: ignore[arg-type]
        return CircuitBreaker(redis, self.database, config, clock=self.clock)

    async def rows(self, event: str) -> list[str]:
        """The data of every audit row of one kind, as JSON texts."""
        handle = ContextHandle(self.database)
        context = await handle.open()

        def read(tx: Tx) -> list[str]:
            return [row.data for row in tx.audit_rows(limit=10_000, event_type=event)]

        try:
            return await context.store.read(read)
        finally:
            await handle.close()

    async def documents(self) -> Mapping[str, str]:
        handle = ContextHandle(self.database)
        context = await handle.open()
        try:
            return await context.store.read(lambda tx: dict(tx.book().documents))
        finally:
            await handle.close()

    @asynccontextmanager
    async def process(
        self, clock: FakeClock | None = None, **given: object
    ) -> AsyncIterator[CircuitBreaker]:
        """A breaker with a store connection and a clock of its own, as another process has."""
        context = await open_context(locate(self.database))
        config = CircuitBreakerConfig(**given) if given else None  # type: ignore[arg-type]
        try:
            async with CircuitBreaker(
                None, context, config, clock=self.clock if clock is None else clock
            ) as breaker:
                yield breaker
        finally:
            if context.users:
                await context.close()

    def enforcer(self, clock: FakeClock | None = None) -> PositionLimitEnforcer:
        return PositionLimitEnforcer(self.database, clock=self.clock if clock is None else clock)
