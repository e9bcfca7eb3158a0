"""TLS, ACL users, what a URL may say, and what we leave in Redis for others to read."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from proxy import Proxy
from redis.asyncio import Redis
from redis_world import bot_on, eventually
from valkey import Valkey

from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.services.breaker_mirror import MIRROR_KEY
from tinywindow.safety.services.heartbeat import HEARTBEAT_PREFIX
from tinywindow.safety.stores.redis import CHANNEL, RedisDoorbell
from tinywindow.safety.stores.redis_links import link_of
from tinywindow.safety.stores.ring_value import RING_KEY

RULES = (
    "~tinywindow:* &tinywindow:* &__keyspace@* -@all +eval +role +type +getrange +set +del "
    "+publish +subscribe +unsubscribe +ping +hello +client|setinfo +select"
)
"""What docs/operations.md says that TinyWindow's user needs."""


def certificate(place: Path) -> ssl.SSLContext:
    if shutil.which("openssl") is None:
        pytest.skip("NO OPENSSL: TLS was not shown")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", place / "key.pem",
            "-out", place / "cert.pem",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(place / "cert.pem", place / "key.pem")
    return context


async def test_tls_with_a_certificate_that_is_checked(valkey: Valkey, tmp_path: Path) -> None:
    """The wheel's server has no TLS: it is ended in front of it, as stunnel does."""
    async with Proxy(valkey.path, tls=certificate(tmp_path)) as proxy:
        plain = f"rediss://localhost:{proxy.port}/0"
        url = f"{plain}?ssl_ca_certs={tmp_path}/cert.pem"
        async with bot_on(url, tmp_path / "t.db", order_timeout=0.5) as bot:
            await eventually(bot.entry_is_sent)
            valkey.raw("SET", RING_KEY, "1")
            await eventually(bot.latched)
        async with bot_on(plain, tmp_path / "u.db") as bot:
            # A certificate that nobody vouches for is no Redis.
            assert await bot.refused_for() == "STATE_UNKNOWN"


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
