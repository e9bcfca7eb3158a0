"""Connections of our own to a caller's Redis: no retries, short time-outs, a bounded number.

A URL or a client supplies addresses, credentials and TLS; how long we wait and how often we ask
is ours to say. redis-py repeats a command ten times by default, and a stop that was released
meanwhile must not be rung by a repetition.

    redis://  rediss://  unix://                                one server
    redis+sentinel://[user:pass@]host:port,host:port/name[/db]  the primary that Sentinels name
    redis+cluster://[user:pass@]host:port,host:port             a Cluster; the key's own node

`rediss+sentinel://` and `rediss+cluster://` are the same over TLS, to the Sentinels as well.
Options follow as `?name=value` as redis-py reads them; `sentinel_username` and `sentinel_password`
are the Sentinels' own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.stores.redis_cluster import MovingCluster

__all__ = ["CONNECTIONS_MAX", "SCHEMES", "Link", "link_of"]

SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
SOCKET_TIMEOUT_S: Final = 0.5
SENTINEL_TIMEOUT_S: Final = 0.12
"""Three Sentinels of which two are dead are asked within `is_active`'s bound."""
CONNECTIONS_MAX: Final = 16

_NOT_TAKEN: Final = frozenset(
    {
        "retry",
        "retry_on_error",
        "retry_on_timeout",
        "decode_responses",
        "socket_timeout",
        "socket_connect_timeout",
        "max_connections",
        "connection_pool",
        "maint_notifications_pool_handler",
        "maint_notifications_config",
        "oss_cluster_maint_notifications_handler",
        "orig_host_address",
        "orig_socket_timeout",
        "orig_socket_connect_timeout",
        "himport_registry",
        "event_dispatcher",
        "response_callbacks",
        "redis_connect_func",
        "parser_class",
    }
)
"""What a caller's client or URL says, and we do not take on."""


@dataclass(frozen=True, slots=True)
class Link:
    """How to connect; nothing is opened before a client is used.

    `databases` says whether the server has numbered databases, `database` which one is ours.
    """

    make: Callable[[], Redis | RedisCluster]
    database: int = 0
    cluster: bool = False


def link_of(redis_client: object) -> Link:
    """The link to what a caller passed: a URL, or a client of `redis.asyncio`.

    Raises:
        ConfigurationError: the URL cannot be read.
    """
    if isinstance(redis_client, str):
        try:
            return _of_url(redis_client)
        except (ValueError, RedisError) as fault:
            raise ConfigurationError(f"redis_client: {fault}") from None
    if isinstance(redis_client, RedisCluster):
        nodes = redis_client.nodes_manager.startup_nodes.values()
        addresses = [(str(node.host), int(node.port)) for node in nodes]
        return _cluster(addresses, dict(redis_client.connection_kwargs))
    return _of_pool(cast("Redis", redis_client).connection_pool)


def _of_pool(pool: ConnectionPool) -> Link:
    kind, given = pool.connection_class, _taken(pool.connection_kwargs)
    database = int(given.get("db") or 0)
    if not isinstance(pool, SentinelConnectionPool):
        return Link(lambda: _client(ConnectionPool(connection_class=kind, **given)), database)
    if not pool.is_master:
        raise ConfigurationError(
            "redis_client: this client reads from replicas, which may miss a stop; pass the one "
            "that Sentinel.master_for() gives"
        )
    manager = cast("Sentinel", pool.sentinel_manager)
    addresses = []
    own: dict[str, Any] = {}
    for sentinel in manager.sentinels:
        asked = sentinel.connection_pool
        settings = asked.connection_kwargs
        addresses.append((str(settings["host"]), int(settings["port"])))
        own = {name: settings[name] for name in ("username", "password") if name in settings}
        own |= _tls_of(settings, asked.connection_class)
    given["connection_class"] = kind
    return _sentinel(addresses, pool.service_name, given, own)


def _of_url(url: str) -> Link:
    scheme, _, rest = url.partition("://")
    plain, _, topology = scheme.partition("+")
    if scheme not in SCHEMES:
        raise ValueError(f"a URL starts with {', '.join(f'{name}://' for name in SCHEMES)}")
    if not topology:
        # redis-py takes a database that is no number for 0, where nobody may be looking.
        path = "" if plain == "unix" else urlsplit(url).path.strip("/")
        if path and not path.isdecimal():
            raise ValueError(f"the database must be a number, not {path!r}")
        pool = ConnectionPool.from_url(url)
        return _of_pool(pool)
    # The addresses are read here, everything else as redis-py reads it.
    before, question, query = rest.partition("?")
    location, _, path = before.partition("/")
    credentials, at, hosts = location.rpartition("@")
    addresses = [
        _address(text, 26379 if topology == "sentinel" else 6379) for text in hosts.split(",")
    ]
    names = [name for name in path.split("/") if name]
    if topology == "cluster":
        if names and names != ["0"]:
            raise ValueError("a Cluster has the database 0 only")
        names = ["", "0"]
    if len(names) not in {1, 2} or (len(names) == 2 and not names[1].isdecimal()):  # noqa: PLR2004 - name and database
        raise ValueError("a Sentinel URL ends in /NAME or /NAME/DATABASE")
    database = names[1] if len(names) == 2 else "0"  # noqa: PLR2004 - name and database
    given = dict(parse_url(f"{plain}://{credentials}{at}localhost/{database}{question}{query}"))
    given.pop("host", None)
    given.pop("port", None)
    if topology == "cluster":
        return _cluster(addresses, given)
    own = {
        name: given.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in given
    }
    kind: Any = given.pop("connection_class", None)
    if kind is not None:
        own |= _tls_of(given, kind)
        given["connection_class"] = SentinelManagedSSLConnection
    return _sentinel(addresses, names[0], given, own)


def _address(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} names no host")
    return parts.hostname, parts.port or port


def _sentinel(
    addresses: list[tuple[str, int]], name: str, given: Mapping[str, Any], own: Mapping[str, Any]
) -> Link:
    settings = _taken(given)
    settings.pop("host", None)
    settings.pop("port", None)
    database = int(settings.get("db") or 0)

    def make() -> Redis:
        asked = {**own, **_settings(SENTINEL_TIMEOUT_S)}
        manager = cast("Any", Sentinel)(addresses, sentinel_kwargs=asked, **settings)
        return _client(cast("Any", SentinelConnectionPool)(name, manager, **settings))

    return Link(make, database)


def _cluster(addresses: list[tuple[str, int]], given: Mapping[str, Any]) -> Link:
    settings = _taken(given)
    kind = settings.pop("connection_class", None)
    for name in ("host", "port", "db"):
        settings.pop(name, None)
    settings |= _tls_of(settings, kind)

    def make() -> RedisCluster:
        return MovingCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in addresses],
            # Half a Cluster still has the key's node.
            require_full_coverage=False,
            **settings,
        )

    return Link(make, cluster=True)


def _tls_of(settings: Mapping[str, Any], kind: type | None) -> dict[str, Any]:
    """What a client is told so that it speaks TLS as a connection of this kind does."""
    if kind is None or not issubclass(kind, SSLConnection):
        return {}
    return {"ssl": True, **{k: value for k, value in settings.items() if k.startswith("ssl_")}}


def _client(pool: ConnectionPool) -> Redis:
    return Redis(connection_pool=pool)


def _taken(given: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in given.items() if name not in _NOT_TAKEN}
    return {**kept, **_settings(SOCKET_TIMEOUT_S)}


def _settings(timeout_s: float) -> dict[str, Any]:
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "decode_responses": False,
        "max_connections": CONNECTIONS_MAX,
        # Who we are is not told: Redis 7.0 does not know the command, and a right to it.
        "driver_info": None,
    }
