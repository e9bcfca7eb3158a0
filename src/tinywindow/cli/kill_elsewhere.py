"""What `kill` does beyond its host, once the stop is latched there: PostgreSQL and Redis.

Both are told at once and under the same latch id, each within its own bound, and the fault of
one hides nothing of the other. Loaded only where one of them is configured.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tinywindow.safety.errors import SafetyError
from tinywindow.safety.stores.fast_files import CLOSE_POSITIONS, LatchFields

__all__ = ["Elsewhere"]

DATABASE_WAIT_S: Final = 10.0
"""How long the database is waited for: two seconds to connect, then a stop's turn and answer."""
LOOK_TIMEOUT_S: Final = 0.5
_RELEASED: Final = "SELECT 1 FROM latches WHERE id = '{}' AND released_ms IS NOT NULL"
"""The id is one that we made: a letter and hexadecimal digits."""
REDIS_WAIT_S: Final = 3.0
"""How long Redis is waited for: half a second a command."""


@dataclass(slots=True)
class _Task:
    """One thing done in a thread that nobody has to wait for to the end."""

    name: str
    load: Callable[[], object]
    work: Callable[[], None]
    wait_s: float
    error: str | None = None
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """Load what it needs, one after the other and the database first, and begin."""
        if not self._tried(self.load):
            return
        self._thread = threading.Thread(
            target=lambda: self._tried(self.work), name=self.name, daemon=True
        )
        self._thread.start()

    def _tried(self, step: Callable[[], object]) -> bool:
        try:
            step()
        except SafetyError as fault:
            self.error = str(fault)
        except Exception as fault:  # noqa: BLE001 - the stop stands elsewhere and must be reported
            self.error = f"{type(fault).__name__}: {fault}"
        return self.error is None

    def ended(self) -> bool:
        """Wait for it; True when it was done, and nothing went wrong."""
        if self._thread is None:
            return False
        self._thread.join(self.wait_s)
        if self._thread.is_alive():
            self.error = f"no answer within {self.wait_s:.0f} s"
        return self.error is None


@dataclass(slots=True)
class Elsewhere:
    """One stop, and the places beyond this host that are to hold it.

    `in_database` and `in_redis` say which of them do; None where there is no such place.
    """

    latch: LatchFields
    time_text: str
    database_url: str | None
    redis_url: str | None
    query: Callable[[str], list[tuple[object, ...]]] | None = None
    """Reads from the database, once it holds the latch."""
    in_database: bool | None = None
    in_redis: bool | None = None
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    redis_failed: bool = False
    close: Callable[[], None] = lambda: None
    """Lets go of the database's connection, once nothing more is read."""

    def tell(self) -> None:
        """Tell both at once; returns within the longer of the two bounds, and raises nothing."""
        database = redis = None
        if self.database_url is not None:
            database = _Task("kill-database", self._driver, self._in_database, DATABASE_WAIT_S)
            database.begin()
        if self.redis_url is not None:
            redis = _Task("kill-redis", self._client, self._in_redis, REDIS_WAIT_S)
            redis.begin()
        if redis is not None:
            rung = redis.ended()
            if not rung:
                self.in_redis, self.redis_failed = False, True
                self.errors.append(f"Redis could not be rung: {redis.error}")
        if database is not None:
            self.in_database = database.ended()
            if not self.in_database:
                self.query = None
                self.errors.append(f"the database could not take the latch: {database.error}")
        if self.in_redis:
            self._take_back_if_released()

    def _driver(self) -> object:
        from tinywindow.safety.stores.pg.address import postgres_url  # noqa: PLC0415 - late

        postgres_url(self.database_url or "")
        from tinywindow.safety.stores.pg import stop  # noqa: PLC0415 - heavy, and late

        return stop

    def _client(self) -> object:
        from tinywindow.safety.stores import redis  # noqa: PLC0415 - heavy, and late

        return redis

    def _in_database(self) -> None:
        from tinywindow.safety.stores.pg.stop import PostgresStop  # noqa: PLC0415 - heavy, and late

        stop = PostgresStop(self.database_url or "")
        try:
            stop.latch(self.latch, self.time_text)
        except BaseException:  # no connection is left behind, whatever broke
            stop.close()
            raise
        self.close, self.query = stop.close, stop.query

    def _in_redis(self) -> None:
        from tinywindow.safety.stores.latch_fields import latch_of  # noqa: PLC0415 - heavy, and late
        from tinywindow.safety.stores.redis import RedisDoorbell  # noqa: PLC0415

        async def ring() -> None:
            bell = RedisDoorbell.at(self.redis_url)
            try:
                await bell.ring(latch_of(self.latch))
                standing = await bell.look(timeout_s=LOOK_TIMEOUT_S)
            finally:
                await bell.close()
            self._stands(standing)

        asyncio.run(ring())

    def _stands(self, standing: object) -> None:
        """Say what stands on the key: a value that somebody set by hand is left where it is."""
        latch_id = getattr(standing, "latch_id", None)
        self.in_redis = latch_id == self.latch["id"]
        if self.in_redis:
            return
        if standing is None:
            self.redis_failed = True
            self.errors.append("Redis was rung, and somebody took the key away at once")
            return
        mode = getattr(standing, "mode", "")
        said = f"Redis holds another stop, {mode}, which was left as it is"
        self.redis_failed = self.latch["mode"] == CLOSE_POSITIONS and mode != CLOSE_POSITIONS
        (self.errors if self.redis_failed else self.notes).append(said)

    def _take_back_if_released(self) -> None:
        """Read the latch again after ringing: a release may have come in between."""
        latch_id = str(self.latch["id"])
        try:
            if self.query is None or not self.query(_RELEASED.format(latch_id)):
                return
            self._silence(latch_id)
        except Exception as fault:  # noqa: BLE001 - a ring that stays halts; it is told
            self.notes.append(f"whether the stop was released meanwhile is not known: {fault}")
            return
        self.in_redis = False
        self.notes.append("somebody released this stop meanwhile; the key was taken back")

    def _silence(self, latch_id: str) -> None:
        from tinywindow.safety.stores.redis import RedisDoorbell  # noqa: PLC0415 - heavy, and late

        async def silence() -> None:
            bell = RedisDoorbell.at(self.redis_url)
            try:
                await bell.silence([latch_id])
            finally:
                await bell.close()

        asyncio.run(silence())
