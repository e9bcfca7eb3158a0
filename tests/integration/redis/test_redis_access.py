"""ACL users, what a URL may say, and what we leave in Redis for others to read."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import Sentinel, SentinelManagedConnection
from redis_world import bot_on, eventually
from valkey import Valkey, free_port

from tinywindow.safety.errors import ConfigurationError, DoorbellUnavailable
from tinywindow.safety.services.breaker_mirror import MIRROR_KEY
from tinywindow.safety.services.heartbeat import HEARTBEAT_PREFIX
from tinywindow.safety.stores.redis import CHANNEL, RedisDoorbell
from tinywindow.safety.stores.redis_links import link_of
from tinywindow.safety.stores.ring_value import RING_KEY

RULES = (
    "~tinywindow:* &tinywindow:* &__keyspace@* -@all +eval +role +type +getrange +set +del "
    "+publish +subscribe +unsubscribe +ping +hello +select"
)
"""What docs/operations.md says that TinyWindow's user needs."""


async def test_a_user_with_the_documented_rights_and_no_more(
    valkey: Valkey, tmp_path: Path
) -> None:
    valkey.raw("ACL", "SETUSER", "tw", "reset", "on", ">pass word", *RULES.split())
    try:
        url = f"unix://tw:pass%20word@{valkey.path}?db=1"
        async with bot_on(url, tmp_path / "t.db") as bot:
            await eventually(bot.entry_is_sent)
            await bot.switch.activate()
            await eventually(lambda: _at(valkey, RING_KEY, 1))
            await eventually(lambda: valkey.raw("PUBSUB", "NUMSUB", CHANNEL)[1] == 1)  # type: ignore[index]
            await eventually(lambda: _at(valkey, MIRROR_KEY, 1))
            await bot.restart_trading()
            await bot.feed()
            await eventually(bot.entry_is_sent)
    finally:
        valkey.raw("ACL", "DELUSER", "tw")


def _at(server: Valkey, key: str, database: int) -> bool:
    with server.client() as client:
        client.select(database)
        return bool(client.exists(key))


async def test_heartbeats_and_the_breakers_state_can_be_read_and_command_nothing(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        await eventually(bot.entry_is_sent)
        await eventually(lambda: "gate" in _roles(valkey) and "circuit-breaker" in _roles(valkey))
        assert _roles(valkey) == {"kill-switch", "flattener", "gate", "circuit-breaker"}
        for key in _beats(valkey):
            assert 0 < int(str(valkey.raw("PTTL", key))) <= 5000
        value = valkey.raw("GET", MIRROR_KEY)
        assert isinstance(value, bytes)
        assert json.loads(value)["is_halted"] is False
        assert int(str(valkey.raw("PTTL", MIRROR_KEY))) > 0
        # What others write there is no command, and is overwritten by the next check.
        valkey.raw("SET", MIRROR_KEY, '{"is_halted": true}')
        await eventually(bot.entry_is_sent)
        await bot.breaker.check_all_metrics()
        await eventually(lambda: valkey.raw("GET", MIRROR_KEY) != b'{"is_halted": true}')
        valkey.raw("DEL", MIRROR_KEY)
        valkey.raw("RPUSH", MIRROR_KEY, "of a wrong type")
        await bot.breaker.check_all_metrics()
        await eventually(lambda: valkey.raw("TYPE", MIRROR_KEY) == b"string")
    await eventually(lambda: not _beats(valkey), 8)


def _beats(server: Valkey) -> list[str]:
    with server.client() as client:
        return [key.decode() for key in client.keys(f"{HEARTBEAT_PREFIX}*")]


def _roles(server: Valkey) -> set[str]:
    found: set[str] = set()
    for key in _beats(server):
        value = server.raw("GET", key)
        if isinstance(value, bytes):
            found |= set(json.loads(value)["roles"])
    return found


GOOD = [
    ("redis://h", "ConnectionPool", 0),
    ("redis://u:p@h:1/2?socket_timeout=60&retry_on_timeout=yes", "ConnectionPool", 2),
    ("unix:///run/redis.sock?db=4", "ConnectionPool", 4),
    ("redis+sentinel://u:p@a:1,b:2,[::1]:3/tw/5?sentinel_password=x", "Sentinel", 5),
    ("rediss+sentinel://a/tw", "Sentinel", 0),
    ("redis+cluster://u:p@a:1,b", "Cluster", 0),
    ("rediss+cluster://a:1/0", "Cluster", 0),
]


@pytest.mark.parametrize(("url", "kind", "database"), GOOD, ids=[url for url, *_ in GOOD])
async def test_a_url_is_read_and_its_waits_are_ours(url: str, kind: str, database: int) -> None:
    link = link_of(url)
    assert link.database == database
    client = link.make()
    if kind == "Cluster":
        assert client.retry._retries == 0  # type: ignore[union-attr]
        assert client.connection_kwargs["socket_timeout"] == 0.5  # type: ignore[union-attr]
        return
    assert isinstance(client, Redis)
    pool = client.connection_pool
    settings = pool.connection_kwargs
    assert kind in type(pool).__name__ or kind == "ConnectionPool"
    assert settings["socket_timeout"] == 0.5
    assert settings["retry"]._retries == 0
    assert "retry_on_timeout" not in settings
    if kind == "Sentinel":
        for sentinel in pool.sentinel_manager.sentinels:  # type: ignore[attr-defined]
            asked = sentinel.connection_pool.connection_kwargs
            assert asked["socket_timeout"] == 0.12
            assert asked["retry"]._retries == 0


@pytest.mark.parametrize("scheme", ["rediss+sentinel", "rediss+cluster"])
async def test_tls_is_spoken_to_everybody_whom_a_url_names(scheme: str) -> None:
    """To the Sentinels too; and the path of a file is no part of the address."""
    name = "/tw" if "sentinel" in scheme else ""
    client = link_of(f"{scheme}://u:p@a:1,b:2{name}?ssl_ca_certs=/etc/ca.pem").make()
    if isinstance(client, RedisCluster):
        assert {node.port for node in client.nodes_manager.startup_nodes.values()} == {1, 2}
        assert client.connection_kwargs["ssl_ca_certs"] == "/etc/ca.pem"
        assert client.connection_kwargs["connection_class"] is SSLConnection
        return
    pools = [client.connection_pool]
    pools += [one.connection_pool for one in pools[0].sentinel_manager.sentinels]  # type: ignore[attr-defined]
    assert len(pools) == 3
    for pool in pools:
        assert issubclass(pool.connection_class, SSLConnection)
        assert pool.connection_kwargs["ssl_ca_certs"] == "/etc/ca.pem"


async def test_a_sentinel_client_keeps_how_its_sentinels_are_spoken_to() -> None:
    tls = {"ssl": True, "ssl_ca_certs": "/etc/ca.pem"}
    manager = Sentinel([("a", 1)], sentinel_kwargs=tls)
    made = link_of(manager.master_for("tw")).make()
    assert isinstance(made, Redis)
    (asked,) = made.connection_pool.sentinel_manager.sentinels  # type: ignore[attr-defined]
    assert asked.connection_pool.connection_class is SSLConnection
    assert asked.connection_pool.connection_kwargs["ssl_ca_certs"] == "/etc/ca.pem"
    assert made.connection_pool.connection_class is SentinelManagedConnection


async def test_a_sentence_says_that_no_sentinel_answers() -> None:
    bell = RedisDoorbell.at(f"redis+sentinel://127.0.0.1:{free_port()}/tw")
    with pytest.raises(DoorbellUnavailable) as told:
        await bell.look(timeout_s=2)
    await bell.close()
    said = "Redis: no Sentinel names a primary of that name (network:ConnectionError)"
    assert str(told.value) == said


BAD = [
    "http://h",
    "redis://h:port",
    "redis://h/name",
    "redis+sentinel://a:1",
    "redis+sentinel://a:1/",
    "redis+sentinel://a:1/tw/x",
    "redis+sentinel://a:1,,b/tw",
    "redis+cluster://a:1/3",
    "redis+cluster://",
    "unix+sentinel:///a/tw",
    "redis+other://a",
    "",
]


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="redis_client"):
        RedisDoorbell.at(url)


async def test_close_leaves_no_connection(valkey: Valkey, tmp_path: Path) -> None:
    async with bot_on(valkey.url, tmp_path / "t.db") as bot:
        await eventually(bot.entry_is_sent)
    await eventually(lambda: valkey.info("clients")["connected_clients"] == 1)
    left = [one.get_name() for one in asyncio.all_tasks() if one is not asyncio.current_task()]
    assert not [name for name in left if name.startswith("tinywindow")]
