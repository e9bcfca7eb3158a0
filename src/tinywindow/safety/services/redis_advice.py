"""What a Redis's own settings mean for the kill key: looked at by `doctor`, and once at start.

No promise rests on these settings: a stop that was seen stands in the database. They decide
whether a key that nobody saw yet can get lost, and how fast one is seen.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from tinywindow.safety.errors import DoorbellUnavailable
from tinywindow.safety.services.heartbeat import HEARTBEAT_PREFIX
from tinywindow.safety.stores.ring_value import RING_KEY

__all__ = ["Advice", "Asked", "advise"]

TIMEOUT_S: Final = 1.0
REDIS_VERSION_MIN: Final = 7
VALKEY_VERSION_MIN: Final = 8
SCANS_MAX: Final = 50
DATABASES_MAX: Final = 64
_IN_DATABASE: Final = "redis.call('SELECT', ARGV[1]) return redis.call('EXISTS', KEYS[1])"


@runtime_checkable
class Asked(Protocol):
    """A doorbell that takes plain commands."""

    @property
    def database(self) -> int | None:
        """The number of its database; None in a Cluster, which has one."""
        ...

    async def command(self, *words: str | bytes | float, timeout_s: float) -> Any:  # noqa: ANN401 - Redis answers what the command returns
        """Send one command, within the bound."""
        ...


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that was looked at: `mend` is empty where it is well; `grave` must be mended."""

    what: str
    mend: str = ""
    grave: bool = False


async def advise(bell: Asked) -> AsyncIterator[Advice]:
    """Look at everything that can be looked at; changes nothing."""
    try:
        standing = await bell.command("EXISTS", RING_KEY, timeout_s=TIMEOUT_S)
    except DoorbellUnavailable as fault:
        yield Advice(
            f"cannot be read, so every entry is refused: {fault}",
            "start it, or mend address, password or access rights",
            grave=True,
        )
        return
    yield Advice("a primary that answers")
    if standing:
        yield Advice(
            "the kill key stands: no entry is sent",
            "once all is clear: tinywindow release --reason TEXT",
        )
    if bell.database is None:
        yield Advice("a Cluster; the settings of its nodes were not looked at")
        return
    for look in (_version, _settings, _replicas, _databases, _heartbeats):
        try:
            async for advice in look(bell, bell.database):
                yield advice
        except DoorbellUnavailable as fault:
            yield Advice(f"cannot be asked for {look.__name__.strip('_')}: {fault}")


async def _version(bell: Asked, _database: int) -> AsyncIterator[Advice]:
    info = _fields(await bell.command("INFO", "server", timeout_s=TIMEOUT_S))
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "0")
    least = VALKEY_VERSION_MIN if name == "Valkey" else REDIS_VERSION_MIN
    if int(version.split(".", maxsplit=1)[0]) < least:
        yield Advice(f"{name} {version} is too old", f"use {name} {least} or newer", grave=True)
    else:
        yield Advice(f"{name} {version}")


async def _settings(bell: Asked, _database: int) -> AsyncIterator[Advice]:
    found: dict[str, str] = {}
    for name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"):
        found |= _fields(await bell.command("CONFIG", "GET", name, timeout_s=TIMEOUT_S))
    if found.get("maxmemory", "0") == "0":
        yield Advice("no memory limit: nothing is evicted")
    elif found.get("maxmemory-policy", "").startswith("allkeys"):
        policy = found["maxmemory-policy"]
        yield Advice(
            f"maxmemory-policy is {policy}: the kill key may be evicted before anybody saw it",
            "CONFIG SET maxmemory-policy noeviction, here and in the file",
            grave=True,
        )
    else:
        yield Advice(f"maxmemory-policy {found.get('maxmemory-policy')}: the key is not evicted")
    if found.get("appendonly") != "yes":
        yield Advice(
            "appendonly is off: a key that nobody saw is lost by a restart",
            "set appendonly yes and appendfsync always",
        )
    elif found.get("appendfsync") != "always":
        yield Advice(
            f"appendfsync is {found.get('appendfsync')}: a power cut loses the last second",
            "set appendfsync always",
        )
    else:
        yield Advice("every write is on disk before it is answered")
    events = _fields(await bell.command("CONFIG", "GET", "notify-keyspace-events", timeout_s=1))
    kinds = events.get("notify-keyspace-events", "")
    if "K" not in kinds or not ({"A", "$"} & set(kinds)):
        yield Advice("keyspace events are off: a key set by hand is seen by the next look, 100 ms")


async def _replicas(bell: Asked, _database: int) -> AsyncIterator[Advice]:
    info = _fields(await bell.command("INFO", "replication", timeout_s=TIMEOUT_S))
    least = _fields(await bell.command("CONFIG", "GET", "min-replicas-to-write", timeout_s=1))
    if int(info.get("connected_slaves", "0")) > 0 and least.get("min-replicas-to-write") == "0":
        yield Advice(
            "has replicas, but takes writes without them: a failover may lose a key nobody saw",
            "set min-replicas-to-write 1 and min-replicas-max-lag 1",
        )


async def _databases(bell: Asked, database: int) -> AsyncIterator[Advice]:
    """The key in another database: whoever set it there stopped nobody."""
    keyspace = _fields(await bell.command("INFO", "keyspace", timeout_s=TIMEOUT_S))
    numbers = sorted(int(name[2:]) for name in keyspace if name[2:].isdecimal())
    for number in numbers[:DATABASES_MAX]:
        if number == database:
            continue
        words = ("EVAL", _IN_DATABASE, 1, RING_KEY, number)
        if await bell.command(*words, timeout_s=TIMEOUT_S):
            yield Advice(
                f"the kill key stands in database {number}, which is another one than ours, "
                f"{database}: it stops nobody here",
                f"redis-cli -n {database} SET {RING_KEY} 1, or put /{number} into the URL",
                grave=True,
            )


async def _heartbeats(bell: Asked, database: int) -> AsyncIterator[Advice]:
    roles: dict[str, int] = {}
    cursor: object = 0
    for _ in range(SCANS_MAX):
        words = ("SCAN", str(_text(cursor)), "MATCH", f"{HEARTBEAT_PREFIX}*", "COUNT", "1000")
        cursor, keys = await bell.command(*words, timeout_s=TIMEOUT_S)
        for key in keys:
            value = await bell.command("GET", key, timeout_s=TIMEOUT_S)
            for role in _roles(value):
                roles[role] = roles.get(role, 0) + 1
        if str(_text(cursor)) == "0":
            break
    shown = ", ".join(f"{count} {role}" for role, count in sorted(roles.items()))
    yield Advice(f"database {database}; alive here: {shown or 'nobody'}")


def _roles(value: object) -> list[str]:
    try:
        roles = json.loads(value)["roles"]  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(role) for role in roles] if isinstance(roles, list) else []


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _fields(answer: Any) -> dict[str, str]:  # noqa: ANN401 - a mapping or pairs, as the protocol has it
    if isinstance(answer, bytes):
        lines = (line.partition(":") for line in _text(answer).splitlines())
        return {name: value for name, colon, value in lines if colon}
    pairs = answer.items() if isinstance(answer, dict) else zip(*[iter(answer)] * 2, strict=True)
    return {_text(name): _text(value) for name, value in pairs}
