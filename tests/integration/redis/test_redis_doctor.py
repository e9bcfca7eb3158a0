"""What `doctor` finds on a real Redis."""

from __future__ import annotations

from valkey import Valkey, running

from tinywindow import settings
from tinywindow.cli.findings import Level
from tinywindow.cli.redis_findings import redis
from tinywindow.safety.stores.redis_links import SCHEMES
from tinywindow.safety.stores.ring_value import RING_KEY


def found(url: str | None) -> dict[str, Level]:
    return {one.what: one.level for one in redis(url)}


def level_of(findings: dict[str, Level], words: str) -> Level | None:
    return next((level for what, level in findings.items() if words in what), None)


def test_without_redis_nothing_is_wrong() -> None:
    assert list(found(None).values()) == [Level.OK]


def test_the_schemes_are_the_settings_own() -> None:
    assert settings._REDIS_SCHEMES == SCHEMES


def test_one_that_is_set_up_well() -> None:
    options = ("--appendonly", "yes", "--appendfsync", "always", "--notify-keyspace-events", "KA")
    with running(*options) as server:
        findings = found(server.url)
        assert set(findings.values()) == {Level.OK}, findings
        assert level_of(findings, "on disk before it is answered")


def test_one_that_may_lose_a_key() -> None:
    with running("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru") as server:
        findings = found(server.url)
        assert level_of(findings, "may be evicted") is Level.WRONG
        assert level_of(findings, "appendonly is off") is Level.NOTE
        server.raw("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.raw("CONFIG", "SET", "appendonly", "yes")
        findings = found(server.url)
        assert level_of(findings, "is not evicted") is Level.OK
        assert level_of(findings, "loses the last second") is Level.NOTE


def test_the_key_in_the_wrong_database(valkey: Valkey) -> None:
    with valkey.client() as operator:
        operator.select(5)
        operator.set(RING_KEY, "1")
    findings = found(valkey.url)
    assert level_of(findings, "stands in database 5") is Level.WRONG
    assert level_of(findings, "the kill key stands: no entry") is None
    assert level_of(found(f"{valkey.url}?db=5"), "the kill key stands: no entry") is Level.NOTE


def test_nobody_there_and_a_replica(valkey: Valkey) -> None:
    assert level_of(found("unix:///nowhere/at.sock"), "cannot be read") is Level.WRONG
    with running("--replicaof", "127.0.0.1", "1") as replica:
        assert level_of(found(replica.url), "replica") is Level.WRONG


def test_without_the_right_to_read_settings(valkey: Valkey) -> None:
    valkey.raw("ACL", "SETUSER", "tw", "reset", "on", ">x", "~*", "&*", "+@all", "-config")
    try:
        findings = found(f"unix://tw:x@{valkey.path}")
        assert level_of(findings, "cannot be asked for settings") is Level.OK
    finally:
        valkey.raw("ACL", "DELUSER", "tw")
