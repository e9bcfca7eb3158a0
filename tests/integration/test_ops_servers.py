"""The files of ops/ on the real servers: PostgreSQL's roles, Redis's settings and users, a bot."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis as sync_redis
from postgres import PostgresServer
from valkey import Valkey, folder, until

from program import SOAK
from tinywindow.cli.findings import Level
from tinywindow.cli.redis_findings import redis
from tinywindow.safety.stores.ring_value import RING_KEY
from tinywindow.settings import Settings

OPS = Path(__file__).parents[2] / "ops"
APP = "tinywindow_app"
VIEWER = "tinywindow_viewer"
OWNER = "tinywindow_owner"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ops") / "secrets"
    subprocess.run([OPS / "make-secrets.sh", place], check=True, capture_output=True)
    return place


@pytest.fixture(scope="module")
def bell(secrets: Path) -> Iterator[Valkey]:
    """A server with the settings and the users of ops/."""
    with folder() as place:
        options = ("--include", str(OPS / "redis" / "redis.conf"))
        server = Valkey(place, options=options).start("--aclfile", str(secrets / "users.acl"))
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="module")
def database(secrets: Path) -> Iterator[PostgresServer]:
    """A server with the settings and the roles of ops/, whose tables the command made."""
    server = PostgresServer(durable=True)
    try:
        settings = (OPS / "postgres" / "postgres.conf").read_text("utf-8")
        with (server.folder / "data" / "postgresql.conf").open("a") as conf:
            conf.write(settings)
        server.start()
        read_roles(server, secrets)
        done = command(server.url("tinywindow", OWNER), "db", "upgrade", "--grant-to", APP)
        assert done.returncode == 0, done.stderr
        yield server
    finally:
        server.remove()


def read_roles(server: PostgresServer, secrets: Path) -> None:
    done = subprocess.run(
        [
            *(server.bin / "psql", "-X", "-h", server.folder, "-U", "postgres", "-d", "postgres"),
            *("-v", f"secrets={secrets}", "-f", OPS / "postgres" / "roles.sql"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "TINYWINDOW" not in name}
    return {**kept, **{f"TINYWINDOW_{name}": value for name, value in settings.items()}}


def command(url: str, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tinywindow.cli", *words],
        env=environment(DATABASE=url, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def bells_url(secrets: Path, server: Valkey) -> str:
    """The bots' URL, as the script wrote it, at the test's server."""
    url = Settings.load(environ={}, config=secrets / "bot.toml").redis
    found = re.fullmatch(r"redis://(\w+:\w+)@redis:6379/0", str(url))
    assert found is not None
    return f"unix://{found[1]}@{server.path}?db=0"


def test_doctor_has_no_advice_for_the_settings_of_redis(bell: Valkey, secrets: Path) -> None:
    found = list(redis(bells_url(secrets, bell)))
    assert len(found) >= 5
    assert [one for one in found if one.level is not Level.OK or one.mend] == []
    told = " ".join(one.what for one in found)
    assert "every write is on disk before it is answered" in told
    assert "noeviction" in told
    assert "keyspace events are off" not in told


def test_who_may_do_what_at_redis(bell: Valkey, secrets: Path) -> None:
    password = (secrets / "redis_operator").read_text("utf-8")
    nobody = sync_redis.Redis(unix_socket_path=bell.path)
    assert nobody.ping()
    for words in (("GET", RING_KEY), ("SET", RING_KEY, "1"), ("CONFIG", "GET", "*"), ("FLUSHALL",)):
        with pytest.raises(sync_redis.exceptions.NoPermissionError):
            nobody.execute_command(*words)
    operator = sync_redis.Redis(unix_socket_path=bell.path, username="operator", password=password)
    bot = sync_redis.Redis.from_url(bells_url(secrets, bell))
    for words in (("SET", "other", "1"), ("CONFIG", "SET", "appendonly", "no"), ("FLUSHALL",)):
        for user in (operator, bot):
            with pytest.raises(sync_redis.exceptions.NoPermissionError):
                user.execute_command(*words)
    with pytest.raises(sync_redis.exceptions.NoPermissionError):
        operator.delete(RING_KEY)
    for client in (nobody, operator, bot):
        client.close()


def test_doctor_finds_nothing_to_mend_for_a_bot(
    database: PostgresServer, bell: Valkey, secrets: Path, tmp_path: Path
) -> None:
    url, bells = database.url("tinywindow", APP), bells_url(secrets, bell)
    done = command(url, "doctor", "--json", REDIS=bells, DATA_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)["findings"]
    # A data directory that is new has no anchor yet.
    # Before its first run a bot has neither an anchor nor a book.
    assert {one["subject"] for one in found if one["mend"]} <= {"anchor", "venue"}


@pytest.mark.parametrize(
    "forbidden",
    [
        "UPDATE audit_log SET actor = 'mallory'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "DROP TABLE audit_log",
        "CREATE TABLE mine (a int)",
        "CREATE TEMP TABLE mine (a int)",
    ],
)
@pytest.mark.parametrize("role", [APP, VIEWER])
def test_neither_bots_nor_grafana_change_an_audit_row(
    database: PostgresServer, role: str, forbidden: str
) -> None:
    with contextlib.closing(psycopg.connect(database.url("tinywindow", role))) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.commit()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(forbidden)


def test_passwords_are_set_and_others_databases_are_closed(
    database: PostgresServer, secrets: Path
) -> None:
    with contextlib.closing(psycopg.connect(database.url("tinywindow", "postgres"))) as connection:
        stored = connection.execute(
            "SELECT rolname, rolpassword LIKE 'SCRAM-SHA-256$%%' FROM pg_authid"
            " WHERE rolname LIKE 'tinywindow%%' ORDER BY 1"
        ).fetchall()
        assert stored == [(APP, True), (OWNER, True), (VIEWER, True)]
        allowed = "SELECT has_database_privilege('public', 'tinywindow', 'CONNECT')"
        connection.execute("CREATE ROLE stranger LOGIN")
        asked = allowed.replace("public", "stranger")
        assert connection.execute(asked).fetchone() == (False,)
        connection.rollback()


def test_what_the_readme_asks_grafana_can_be_answered(database: PostgresServer) -> None:
    readme = (OPS / "README.md").read_text("utf-8")
    queries = [line for block in re.findall(r"```sql\n(.*?)```", readme, re.DOTALL)
               for line in block.splitlines()]  # fmt: skip
    assert len(queries) == 2
    with contextlib.closing(psycopg.connect(database.url("tinywindow", VIEWER))) as connection:
        for query in queries:
            connection.execute(query)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO exposures VALUES ('BTC/USDT', 1)")


@pytest.mark.skipif(not SOAK, reason="long; `./tw soak` runs it")
def test_two_bots_trade_and_one_key_stops_both(
    database: PostgresServer, bell: Valkey, secrets: Path, tmp_path: Path
) -> None:
    """As compose starts them, with the users of ops/; each account is a venue of its own."""
    url, bells = database.url("tinywindow", APP), bells_url(secrets, bell)
    names = ("paper-a", "paper-b")
    with contextlib.ExitStack() as stack:
        bots = [stack.enter_context(bot(name, url, bells, tmp_path)) for name in names]
        connection = stack.enter_context(contextlib.closing(psycopg.connect(url, autocommit=True)))
        held = "SELECT DISTINCT venue FROM positions WHERE amount <> '0' ORDER BY 1"
        until(lambda: connection.execute(held).fetchall() == [(name,) for name in names])
        status = command(url, "status", REDIS=bells, DATA_DIR=str(tmp_path / "paper-a"))
        assert status.returncode == 0, status.stderr
        with sync_redis.Redis(
            unix_socket_path=bell.path,
            username="operator",
            password=(secrets / "redis_operator").read_text("utf-8"),
        ) as operator:
            operator.set(RING_KEY, "CLOSE_POSITIONS")
        until(lambda: connection.execute(held).fetchall() == [])
        latched = connection.execute("SELECT mode FROM latches WHERE released_ms IS NULL")
        assert latched.fetchall() == [("CLOSE_POSITIONS",)]
        assert [coins(tmp_path / name / "paper.db") for name in names] == [[], []]
    assert [one.returncode for one in bots] == [0, 0], [
        (tmp_path / f"{name}.log").read_text("utf-8") for name in names
    ]


@contextlib.contextmanager
def bot(name: str, url: str, bells: str, place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A bot as compose starts it, which is asked to end."""
    settings = {"RUN__VENUE": name, "RUN__SCENARIO": "calm", "RUN__CYCLE_INTERVAL": "0.1"}
    with (place / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tinywindow.cli", "run", "--no-api", "--strategy", "hold"],
            env=environment(DATABASE=url, REDIS=bells, DATA_DIR=str(place / name), **settings),
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def coins(book: Path) -> list[tuple[str, str]]:
    """What an account holds, by its venue's own word."""
    with contextlib.closing(sqlite3.connect(book)) as connection:
        return connection.execute(
            "SELECT symbol, amount FROM holding WHERE amount <> '0'"
        ).fetchall()
