"""The breaker's state mirrored into Redis: for people and dashboards, never read back.

The latch lives in the database. What stands under the key is a copy that may be late or lost;
nothing in TinyWindow decides by it. The connection is our own: no retries, short time-outs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import structlog

from tinywindow.safety.services.doorbells import doorbell_for

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["MIRROR_KEY", "StateMirror"]

MIRROR_KEY: Final = "tinywindow:circuit_breaker:state"
"""The key under which the state is mirrored, as one JSON text."""
TIMEOUT_S: Final = 0.05
"""How long one publication may take; what is slower is dropped, and the next one tried."""
_OVERRIDDEN: Final = frozenset(
    {
        "retry",
        "retry_on_error",
        "retry_on_timeout",
        "socket_timeout",
        "socket_connect_timeout",
        "maint_notifications_pool_handler",
        "maint_notifications_config",
        "orig_host_address",
        "orig_socket_timeout",
        "orig_socket_connect_timeout",
    }
)

_log = structlog.get_logger(__name__)


class StateMirror:
    """Publishes the newest state, best effort and in the background; one publication at a time."""

    def __init__(self, redis_client: object) -> None:
        """Check what was passed; nothing is connected before the first publication.

        Raises:
            ConfigurationError: it is neither None, a `redis.asyncio` client, a URL nor a doorbell.
        """
        self._client: Redis | None = None if redis_client is None else _own_client(redis_client)
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def offer(self, text: str) -> None:
        """Publish a state unless the one before is still on its way."""
        if self._client is None or (self._task is not None and not self._task.done()):
            return
        self._task = asyncio.get_running_loop().create_task(
            self._publish(self._client, text), name="tinywindow-breaker-mirror"
        )

    async def _publish(self, client: Redis, text: str) -> None:
        try:
            await asyncio.wait_for(client.set(MIRROR_KEY, text), TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - a mirror that fails is logged once, and harms nothing
            if not self._failing:
                _log.warning("circuit_breaker_mirror_failed", error=str(error) or repr(error))
            self._failing = True
        else:
            self._failing = False

    async def close(self) -> None:
        """Let the last publication end and let go of the connection."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=2 * TIMEOUT_S)
            self._task = None
        if self._client is not None:
            with contextlib.suppress(OSError):
                await self._client.aclose()


def _own_client(redis_client: object) -> Redis | None:
    """A client of our own with the settings of what was passed; None for a foreign doorbell."""
    doorbell_for(redis_client)
    if not isinstance(redis_client, str) and not hasattr(redis_client, "connection_pool"):
        return None
    import redis.asyncio  # noqa: PLC0415 - optional: only who passes Redis needs it

    if isinstance(redis_client, str):
        pool = redis.asyncio.ConnectionPool.from_url(redis_client)
    else:
        pool = cast("Redis", redis_client).connection_pool
    settings: Mapping[str, Any] = pool.connection_kwargs
    kept = {name: value for name, value in settings.items() if name not in _OVERRIDDEN}
    return redis.asyncio.Redis(
        connection_pool=redis.asyncio.ConnectionPool(
            connection_class=pool.connection_class,
            **{
                **kept,
                "retry": None,
                "socket_timeout": TIMEOUT_S,
                "socket_connect_timeout": TIMEOUT_S,
            },
        )
    )
