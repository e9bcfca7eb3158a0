"""The doorbell on a real Redis: look at the key, ring it, silence it. Never the only copy.

Every command is sent once, on a connection of our own, within a bound: see `redis_links`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import MasterNotFoundError, SentinelConnectionPool
from redis.exceptions import RedisError

from tinywindow.safety.domain.kill import Latch
from tinywindow.safety.errors import DoorbellUnavailable
from tinywindow.safety.stores.redis_links import Link, link_of
from tinywindow.safety.stores.ring_value import (
    RING_BYTES_MAX,
    RING_KEY,
    RingValue,
    envelope,
    ring_of,
)

__all__ = ["CHANNEL", "RedisDoorbell"]

WRITE_TIMEOUT_S: Final = 0.5
LOOKS_MAX: Final = 8
"""How many looks may be under way at once; further ones wait within their own bound, so that
connections stay few and a ring never queues behind them."""
CHANNEL: Final = "tinywindow:kill_switch"
"""Where every ring is announced; a message only says "look now"."""
SUBSCRIBED_S: Final = 60.0
"""How long one subscription is kept: one that died in silence is replaced."""

_KIND: Final = re.compile(r"> - ([\w.:]+)")
"""What redis-py says of each Sentinel that could not be asked."""
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
redis.pcall('PUBLISH', ARGV[5], '1')
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
    """Implements `ports.Doorbell` on a Redis primary; belongs to one event loop."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._client: Redis | RedisCluster | None = None
        self._looks = asyncio.Semaphore(LOOKS_MAX)

    @classmethod
    def at(cls, redis_client: object) -> RedisDoorbell:
        """A doorbell at a URL, or where a client of `redis.asyncio` connects to.

        Raises:
            ConfigurationError: the URL cannot be read, or the client reads from replicas.
        """
        return cls(link_of(redis_client))

    @property
    def database(self) -> int | None:
        """The number of the database that holds the key; None in a Cluster, which has one."""
        return None if self._link.cluster else self._link.database

    def _redis(self) -> Redis | RedisCluster:
        if self._client is None:
            self._client = self._link.make()
        return self._client

    async def command(self, *words: str | bytes | float, timeout_s: float) -> Any:  # noqa: ANN401 - Redis answers what the command returns
        """Send one command, once, to a primary, within the bound.

        Raises:
            DoorbellUnavailable: no answer came, it was an error, or it came from a replica.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._sent(words)
        except TimeoutError as fault:
            raise DoorbellUnavailable(f"Redis did not answer within {timeout_s} s") from fault
        except DoorbellUnavailable:
            raise
        except MasterNotFoundError as fault:
            # It would list every connection to every Sentinel, word by word.
            kinds = ", ".join(dict.fromkeys(_KIND.findall(str(fault)))) or "they do not know it"
            told = f"Redis: no Sentinel names a primary of that name ({kinds})"
            raise DoorbellUnavailable(told) from fault
        except Exception as fault:  # whatever broke, Redis was not read: callers end closed
            raise DoorbellUnavailable(f"Redis: {type(fault).__name__}: {fault}") from fault

    async def _sent(self, words: tuple[str | bytes | float, ...]) -> Any:  # noqa: ANN401 - see above
        redis = self._redis()
        if isinstance(redis, RedisCluster):
            # A replica in a Cluster answers MOVED: only the key's primary gives a value.
            return await redis.execute_command(*words)
        pipe = redis.pipeline(transaction=False)
        cast("Any", pipe).execute_command("ROLE").execute_command(*words)
        role, answer = await pipe.execute()
        if bytes(role[0]) != b"master":
            # After a failover the next connection is to find the new primary.
            await redis.connection_pool.disconnect()
            raise DoorbellUnavailable(
                "Redis is a read-only replica, which may miss a stop; connect to the primary"
            )
        return answer

    async def _run(self, script: str, *args: bytes | str | int, timeout_s: float) -> Any:  # noqa: ANN401 - Redis answers what the script returns
        return await self.command("EVAL", script, 1, RING_KEY, *args, timeout_s=timeout_s)

    async def look(self, *, timeout_s: float) -> RingValue | None:
        """Read the key, any value and any type; None when it is absent.

        Raises:
            DoorbellUnavailable: it could not be read within the bound.
        """
        try:
            async with asyncio.timeout(timeout_s), self._looks:
                raw = await self._run(_LOOK, RING_BYTES_MAX, timeout_s=timeout_s)
        except TimeoutError as fault:
            raise DoorbellUnavailable(f"Redis did not answer within {timeout_s} s") from fault
        return None if raw is None else ring_of(bytes(raw))

    async def ring(self, latch: Latch, *, replacing: bytes | None = None) -> None:
        """Set the key to an envelope that names `latch`, and announce it.

        A foreign value stays, unless it is the one named in `replacing`: it is a stop that
        nobody may have seen yet.
        """
        expected = _NEVER if replacing is None else replacing
        await self._run(
            _RING,
            RING_BYTES_MAX,
            envelope(latch),
            expected,
            _OURS,
            CHANNEL,
            timeout_s=WRITE_TIMEOUT_S,
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

    async def put(self, key: str, text: str, *, ttl_s: float, timeout_s: float) -> None:
        """Leave a text for others to read, which expires: a mirror, or a heartbeat.

        Raises:
            DoorbellUnavailable: it was not written, or nobody can say whether it was.
        """
        ttl_ms = round(ttl_s * 1000)
        await self.command("SET", key, text, "PX", ttl_ms, timeout_s=timeout_s)

    async def announcements(self) -> AsyncIterator[None]:
        """Say "look now" whenever somebody rang, or wrote the key where the server tells of it.

        A hint and no more: it ends after a while, and may miss anything.

        Raises:
            DoorbellUnavailable: Redis cannot be listened to; nothing for a Cluster.
        """
        redis = self._redis()
        if isinstance(redis, RedisCluster):
            return
        pubsub = redis.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.subscribe(CHANNEL, f"__keyspace@{self._link.database}__:{RING_KEY}")
            loop = asyncio.get_running_loop()
            until = loop.time() + SUBSCRIBED_S
            while (left := until - loop.time()) > 0:
                if await pubsub.get_message(timeout=left) is not None:
                    yield
        except (RedisError, OSError) as fault:
            raise DoorbellUnavailable(f"Redis: {type(fault).__name__}: {fault}") from fault
        finally:
            await cast("Any", pubsub).aclose()

    async def close(self) -> None:
        """Let go of the connections."""
        client, self._client = self._client, None
        if client is None:
            return
        await client.aclose()
        if isinstance(client, RedisCluster):
            # One that is to read its nodes anew, as after a lost connection, closes none of them.
            for nodes in ("nodes_cache", "startup_nodes"):
                await client.nodes_manager.aclose(nodes)
            return
        pool = client.connection_pool
        await pool.disconnect()
        if isinstance(pool, SentinelConnectionPool):
            for sentinel in cast("Any", pool.sentinel_manager).sentinels:
                await sentinel.aclose()
