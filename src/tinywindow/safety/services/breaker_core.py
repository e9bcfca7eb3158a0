"""What every breaker is made of: its parts, its last known state, and how it learns of news.

The state is told without I/O; `CircuitBreaker` adds the awaits.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from tinywindow.safety.config import CircuitBreakerConfig
from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.breaker import BreakerLimits
from tinywindow.safety.domain.breaker_documents import NavPoint
from tinywindow.safety.domain.decision import Breach, Reason
from tinywindow.safety.domain.records import Trip
from tinywindow.safety.errors import DependencyError, StoreUnavailable
from tinywindow.safety.ports import Clock
from tinywindow.safety.services.breaker_health import BreakerHealth
from tinywindow.safety.services.breaker_mirror import StateMirror
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.clock_watch import ClockWatch, Moment
from tinywindow.safety.services.context import ContextHandle, SafetyContext
from tinywindow.safety.services.logs import get_logger

__all__ = ["ACTOR", "BreakerCore"]

ACTOR: Final = "circuit-breaker"
LOOK_GAP_S: Final = 0.2
"""How long what other processes commit is gathered before it is read, where it is no stop."""

_log = get_logger(__name__)


class BreakerCore:
    """The parts of a breaker and its last known state."""

    def __init__(
        self,
        redis_client: object,
        db_connection: object,
        config: CircuitBreakerConfig | None = None,
        *,
        clock: Clock | None = None,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        """Take what is given; nothing is opened before the first await.

        Args:
            redis_client: where the state is mirrored for others to read: a `redis.asyncio`
                client, a URL, or None. It is never the only copy of anything.
            db_connection: an AsyncEngine, a database URL, or the path of an SQLite file.
            config: the thresholds; from environment, file and defaults when absent.
            clock: the clock; the system's when absent.
            new_id: makes unique row ids; the system's random source when absent.

        Raises:
            ConfigurationError: something that was given cannot be used.
        """
        self._mirror = StateMirror(redis_client)
        self._handle = ContextHandle(db_connection)
        self._config = CircuitBreakerConfig() if config is None else config
        self._limits = self._config.to_limits()
        self._clock: Clock = SystemClock() if clock is None else clock
        self._new_id = _random_id if new_id is None else new_id
        self._health = BreakerHealth(
            self._clock.monotonic(),
            interval_s=self._config.monitor_interval,
            mark_age_max_s=self._limits.nav.equity_max_age_ms / 1000,
        )
        self._watch = ClockWatch(self._clock, self._new_id)
        self._cursor: NavPoint | None = None
        self._last_trip: Trip | None = None
        self._activity = asyncio.Event()
        self._look: asyncio.Task[None] | None = None
        self._news = False
        self._urgent = asyncio.Event()
        self._stops: int | None = None
        self._failure = ""
        self.closed = False

    @property
    def limits(self) -> BreakerLimits:
        """The thresholds in force here."""
        return self._limits

    @property
    def monitor_interval(self) -> float:
        """Seconds between two checks; a state older than three of them counts as a halt."""
        return self._config.monitor_interval

    @property
    def failed_checks(self) -> int:
        """How many checks failed in a row; three halt."""
        return self._health.failures

    @property
    def is_halted(self) -> bool:
        """Whether trading is halted, by the last known state; no I/O."""
        return bool(self._halts())

    @property
    def is_tripped(self) -> bool:
        """Whether a trip stands, by the last known state; only a confirmed reset clears it."""
        return self._standing_trip() is not None

    @property
    def halt_reason(self) -> str | None:
        """Why trading is halted, as a sentence with code, value and limit; None when it is not."""
        trip = self._standing_trip()
        if trip is not None:
            return trip.sentence
        halts = self._halts()
        return halts[0].sentence if halts else None

    @property
    def halt_code(self) -> Reason | None:
        """The kind of the halt: only `CIRCUIT_BREAKER_TRIPPED` is latched; the others pass."""
        halts = self._halts()
        return halts[0].code if halts else None

    def _halts(self) -> tuple[Breach, ...]:
        trip = self._standing_trip()
        halts = self._health.halts(self._clock.monotonic())
        if trip is None:
            return halts
        return (Breach(Reason.CIRCUIT_BREAKER_TRIPPED, trip.sentence), *halts)

    def _standing_trip(self) -> Trip | None:
        context = None if self.closed else self._handle.glance()
        if context is not None:

            def look(book: Book | None) -> Trip | None:
                return self._last_trip if book is None else book.trip

            self._last_trip = context.store.peek(look)
        return self._last_trip

    def faults(self) -> tuple[Breach, ...]:
        """Why no entry may be sent, as far as the breaker's own health and clock go; no I/O.

        There is no grace here: before the first check every entry is refused.
        """
        self._moment()
        return self._health.entry_faults(self._clock.monotonic())

    async def wait_for_activity(self) -> None:
        """Wait until a mark, an attempt, a trip or a reset of any process arrives."""
        await self._activity.wait()
        self._activity.clear()

    async def close(self) -> None:
        """Count out of the shared store and let go of Redis; closing twice is harmless."""
        self._standing_trip()
        self.closed = True
        self._activity.set()
        context = self._handle.opened
        if context is not None and self._on_commit in context.listeners:
            context.listeners.remove(self._on_commit)
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait({self._look})
        await self._mirror.close()
        await self._handle.close()

    async def _open(self) -> SafetyContext:
        if self.closed:
            raise StoreUnavailable("the circuit breaker is closed")
        context = await self._handle.open()
        if self._on_commit not in context.listeners:
            context.listeners.append(self._on_commit)
        await self._watch.start(context)
        return context

    def _moment(self) -> Moment:
        """Read both clocks, and take on what that says about the wall clock."""
        return self._watch.moment(self._handle.opened)

    def _row(self, event: EventType, now: datetime, data: Mapping[str, object]) -> AuditDraft:
        return AuditDraft(self._new_id(), now, event, ACTOR, data)

    def _noticed(self, trip: Trip | None) -> None:
        if trip is not None:
            self._last_trip = trip
            _log.error("circuit_breaker_tripped", reason=trip.sentence)
        self._activity.set()

    def _on_commit(self) -> None:
        """Some process committed: bring in what it says, at once where it may be a stop."""
        context = self._handle.opened
        if context is None:
            return
        self._news = True
        stops = context.store.stop_token()
        if stops != self._stops:
            self._stops = stops
            self._urgent.set()
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(
                self._bring_in(context), name="tinywindow-breaker-look"
            )

    async def _bring_in(self, context: SafetyContext) -> None:
        """Read the book and wake the monitor, until nothing happened meanwhile.

        Whoever records something evaluates it in the same transaction. So what others commit may
        wait a moment, unless it is a stop: processes that read after each other's every commit
        would do little else.
        """
        while self._news:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), LOOK_GAP_S)
            self._urgent.clear()
            self._news = False
            self._activity.set()
            try:
                await context.store.read(lambda tx: tx.book().trip)
            except DependencyError as error:
                # The next check meets the same fault, and counts it.
                _log.debug("circuit_breaker_look_failed", error=str(error))


def _random_id() -> str:
    return secrets.token_hex(16)
