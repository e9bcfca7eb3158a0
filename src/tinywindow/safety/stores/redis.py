"""The doorbell on a real Redis: look at the key, ring it, silence it. Never the only copy.

Our connections have no retries and short time-outs of their own: redis-py repeats a command ten
times by default, and a stop that was released meanwhile must not be rung by a repetition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tinywindow.safety.domain.kill import Latch
from tinywindow.safety.errors import ConfigurationError, DoorbellUnavailable
from tinywindow.safety.stores.ring_value import (
    RING_BYTES_MAX,
    RING_KEY,
    RingValue,
    envelope,
    ring_of,
)

__all__ = ["RedisDoorbell"]


SOCKET_TIMEOUT_S: Final = 0.5
WRITE_TIMEOUT_S: Final = 0.5
CONNECTIONS_MAX: Final = 4

_READ: Final = """
local function value(key, most)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return false end
  if kind == 'string' then return redis.call('GETRANGE', key, 0, most) end
  return '\\0type:' .. kind
end
"""
_LOOK: Final = _READ + "return value(KEYS[1], ARGV[1])"
_RING: Final = (
    _READ
    + """
local now = value(KEYS[1], ARGV[1])
local ours = now and string.sub(now, 1, #ARGV[4]) == ARGV[4]
if now and not ours and now ~= ARGV[3] then return 0 end
if now then redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
)
_SILENCE: Final = (
    _READ
    + """
local now = value(KEYS[1], ARGV[1])
if now and now == ARGV[2] then redis.call('DEL', KEYS[1]) return 1 end
return now and 0 or 1
"""
)
_NEVER: Final = b"\0absent"
"""What no value is: rings a key that is absent or ours, and never replaces a foreign value."""
_OURS: Final = b'{"latches":[{"activated_ms":'
"""How every envelope of ours begins; a foreign value that begins so is read as an envelope."""


class RedisDoorbell:
    """Implements `ports.Doorbell` on a Redis primary."""

    def __init__(self, make_pool: Callable[[], ConnectionPool]) -> None:
        self._make_pool = make_pool
        self._client: Redis | None = None

    @classmethod
    def from_url(cls, url: str) -> RedisDoorbell:
        """A doorbell at a URL.

        Raises:
            ConfigurationError: the URL cannot be read.
        """
        try:
            ConnectionPool.from_url(url)
        except ValueError as fault:
            raise ConfigurationError(f"redis_client: {fault}") from None
        return cls(lambda: ConnectionPool.from_url(url, **_own_settings()))

    @classmethod
    def from_client(cls, client: object) -> RedisDoorbell:
        """A doorbell that connects like `client`, on connections of its own."""
        pool = cast("Any", client).connection_pool
        kind, given = pool.connection_class, dict(pool.connection_kwargs)
        for name in ("retry", "retry_on_error", "retry_on_timeout", "decode_responses"):
            given.pop(name, None)
        return cls(lambda: ConnectionPool(connection_class=kind, **{**given, **_own_settings()}))

    def _redis(self) -> Redis:
        if self._client is None:
            self._client = Redis(connection_pool=self._make_pool())
        return self._client

    async def _run(self, script: str, *args: bytes | int, timeout_s: float) -> Any:  # noqa: ANN401 - Redis answers what the script returns
        """Run a script on the key, on a primary only, within the bound.

        Raises:
            DoorbellUnavailable: no answer came, or it came from a replica.
        """
        try:
            async with asyncio.timeout(timeout_s):
                pipe = self._redis().pipeline(transaction=False)
                cast("Any", pipe).execute_command("ROLE").execute_command(
                    "EVAL", script, 1, RING_KEY, *args
                )
                role, answer = await pipe.execute()
        except TimeoutError as fault:
            raise DoorbellUnavailable(f"Redis did not answer within {timeout_s} s") from fault
        except (RedisError, OSError) as fault:
            raise DoorbellUnavailable(f"Redis: {type(fault).__name__}: {fault}") from fault
        if bytes(role[0]) != b"master":
            raise DoorbellUnavailable(
                "Redis is a read-only replica, which may miss a stop; connect to the primary"
            )
        return answer

    async def look(self, *, timeout_s: float) -> RingValue | None:
        """Read the key, any value and any type; None when it is absent."""
        raw = await self._run(_LOOK, RING_BYTES_MAX, timeout_s=timeout_s)
        return None if raw is None else ring_of(bytes(raw))

    async def ring(self, latch: Latch, *, replacing: bytes | None = None) -> None:
        """Set the key to an envelope that names `latch`.

        A foreign value stays, unless it is the one named in `replacing`: it is a stop that
        nobody may have seen yet.
        """
        expected = _NEVER if replacing is None else replacing
        await self._run(
            _RING, RING_BYTES_MAX, envelope(latch), expected, _OURS, timeout_s=WRITE_TIMEOUT_S
        )

    async def silence(self, latch_ids: Iterable[str]) -> bool:
        """Delete the key if its envelope names one of the released latches; True when gone."""
        released = frozenset(latch_ids)
        ring = await self.look(timeout_s=WRITE_TIMEOUT_S)
        if ring is None:
            return True
        if ring.latch_id not in released:
            return False
        gone = await self._run(_SILENCE, RING_BYTES_MAX, ring.raw, timeout_s=WRITE_TIMEOUT_S)
        return bool(gone == 1)

    async def close(self) -> None:
        """Let go of the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
            await client.connection_pool.disconnect()


def _own_settings() -> dict[str, Any]:
    return {
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": SOCKET_TIMEOUT_S,
        "decode_responses": False,
        "max_connections": CONNECTIONS_MAX,
    }
