"""The schema on PostgreSQL: made once whoever comes first, and nothing runs on another."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pg_drafts import decide
from pg_writers import query, raw
from postgres import APPLICATION, OWNER, PostgresServer
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from program import FORKS, tinywindow_forked
from tinywindow.safety import PositionLimitEnforcer
from tinywindow.safety.errors import ConfigurationError, StoreUnavailable
from tinywindow.safety.services.location import default_data_dir, locate
from tinywindow.safety.stores import schema
from tinywindow.safety.stores.migrate import postgres_revision, upgrade_postgres
from tinywindow.safety.stores.pg import address
from tinywindow.safety.stores.postgres import PostgresStore

PLAIN = "postgresql://u:p%40ss@db.example:6432/trading"


@pytest.fixture
def empty(postgres_server: PostgresServer) -> Any:
    name = postgres_server.new_database(empty=True)
    yield postgres_server.url(name, OWNER)
    postgres_server.drop(name)


def test_upgrading_twice_does_nothing_the_second_time(empty: str) -> None:
    assert postgres_revision(empty) is None
    assert upgrade_postgres(empty)
    assert not upgrade_postgres(empty)
    assert postgres_revision(empty) == schema.SCHEMA_REVISION
    assert query(empty, "SELECT version, audit_seq, trading FROM head") == [(0, 0, "RUNNING")]


def _upgrade(url: str, answers: Any) -> None:
    answers.put(upgrade_postgres(url))


def test_processes_that_upgrade_at_once_wait_for_the_first(empty: str) -> None:
    answers = FORKS.Queue()
    running = [FORKS.Process(target=_upgrade, args=(empty, answers)) for _ in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(answers.get(timeout=5) for _ in running) == [False, False, False, True]
    assert query(empty, "SELECT count(*) FROM head") == [(1,)]


def test_threads_that_upgrade_at_once_wait_for_the_first(empty: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(upgrade_postgres, [empty] * 4)) == [False, False, False, True]


def test_the_migration_makes_what_the_tables_say(
    postgres_server: PostgresServer, empty: str
) -> None:
    upgrade_postgres(empty)
    name = postgres_server.new_database(empty=True)
    made = postgres_server.url(name, OWNER)
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(made), poolclass=NullPool
    )
    schema.metadata.create_all(engine)
    engine.dispose()
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable, character_maximum_length,"
        " column_default FROM information_schema.columns WHERE table_schema = 'public'"
        " AND table_name NOT IN ('alembic_version', 'writer_marks') ORDER BY 1, ordinal_position"
    )
    rules = (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text NOT IN"
        " ('alembic_version', 'writer_marks') ORDER BY 1, 2"
    )
    indexes = (
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename"
        " NOT IN ('alembic_version', 'writer_marks') ORDER BY 1"
    )
    for sql in (columns, rules, indexes):
        assert query(empty, sql) == query(made, sql)
    postgres_server.drop(name)


async def test_a_database_without_schema_is_refused_with_the_way_out(empty: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"no schema.*tinywindow db upgrade"):
        await PostgresStore.open(empty, require_durable=False)


@pytest.mark.parametrize("revision", ["0000", "9999"])
async def test_a_database_at_another_revision_is_refused(
    postgres_server: PostgresServer, revision: str
) -> None:
    name = postgres_server.new_database()
    with raw(postgres_server.url(name, OWNER)) as owner:
        owner.execute(f"UPDATE alembic_version SET version_num = '{revision}'")
    with pytest.raises(StoreUnavailable, match=f"revision {revision}.*tinywindow db upgrade"):
        await PostgresStore.open(postgres_server.url(name), require_durable=False)
    with pytest.raises(StoreUnavailable, match="another version"):
        upgrade_postgres(postgres_server.url(name, OWNER))
    postgres_server.drop(name)


async def test_a_server_that_does_not_sync_is_refused(postgres_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"fsync=off.*power cut"):
        await PostgresStore.open(postgres_url)
    with pytest.raises(ConfigurationError, match="fsync=off"):
        async with PositionLimitEnforcer(postgres_url):
            pass


@pytest.mark.parametrize("where", ["DATABASE {}", f"ROLE {APPLICATION} IN DATABASE {{}}"])
async def test_commits_that_do_not_wait_for_the_disk_are_refused(
    durable_postgres_server: PostgresServer, where: str
) -> None:
    name = durable_postgres_server.new_database()
    url = durable_postgres_server.url(name)
    store = await PostgresStore.open(url)
    durable_postgres_server.admin(f"ALTER {where.format(name)} SET synchronous_commit = off")
    with pytest.raises(ConfigurationError, match="synchronous_commit=off"):
        await PostgresStore.open(url)
    # Also where it comes later: the next connection is refused, and with it every order.
    durable_postgres_server.admin(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tw_app'"
    )
    for n in range(3):
        with pytest.raises(StoreUnavailable):
            await decide(store, f"o{n}")
    await store.close()
    durable_postgres_server.drop(name)


async def test_a_read_only_database_is_refused(postgres_server: PostgresServer) -> None:
    name = postgres_server.new_database()
    postgres_server.admin(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailable, match="read-only"):
        await PostgresStore.open(postgres_server.url(name), require_durable=False)
    postgres_server.drop(name)


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await PostgresStore.open(f"postgresql://u@/x?host={tmp_path}")


@pytest.mark.parametrize("scheme", address.POSTGRES_SCHEMES)
def test_every_scheme_is_the_same_database(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYWINDOW_DATA_DIR", "/somewhere")
    found = locate(PLAIN.replace("postgresql", scheme))
    assert (found.url, found.sqlite_path, found.data_dir) == (PLAIN, None, Path("/somewhere"))
    assert locate(PLAIN, data_dir=Path("/given")).data_dir == Path("/given")
    monkeypatch.delenv("TINYWINDOW_DATA_DIR")
    assert locate(PLAIN).data_dir == default_data_dir()


def test_an_engine_gives_its_url() -> None:
    pytest.importorskip("psycopg")
    engine = create_async_engine(PLAIN.replace("postgresql", "postgresql+psycopg"))
    assert locate(engine).url == PLAIN


def test_what_only_asyncpg_knows_is_translated_or_left_out() -> None:
    url = f"{PLAIN}?ssl=require&prepared_statement_cache_size=0&command_timeout=5"
    assert locate(url.replace("postgresql", "postgresql+asyncpg")).url == f"{PLAIN}?sslmode=require"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host/",
        "postgresql://",
        f"{PLAIN}?nonsense=1",
        "postgresql://h:port/db",
        "postgresql://[::1/db",
        f"{PLAIN}?sslmode",
    ],
)
def test_a_url_that_names_no_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        locate(url)
    assert "p%40ss" not in str(caught.value)
    assert "db_connection" in str(caught.value)


def test_a_missing_driver_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"tinywindow\[postgres\]"):
        locate(PLAIN)


def test_the_front_door_does_not_load_the_driver() -> None:
    program = "import sys, tinywindow.safety as s; [getattr(s, n) for n in s.__all__];"
    program += "print('psycopg' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "False", done.stderr


def _db(*words: str, url: str, folder: Path) -> Any:
    environ = {**os.environ, "TINYWINDOW_DATABASE": url}
    return tinywindow_forked("db", *words, "--json", folder=folder, environ=environ)


def test_the_command_upgrades_and_grants(
    postgres_server: PostgresServer, tmp_path: Path, empty: str
) -> None:
    assert _db("current", url=empty, folder=tmp_path).code == 1
    for done in (True, False):
        said = _db("upgrade", "--grant-to", APPLICATION, url=empty, folder=tmp_path)
        assert said.code == 0, said.err
        assert said.document["upgraded"] is done
    assert _db("current", url=empty, folder=tmp_path).document["up_to_date"] is True
    assert query(empty.replace(OWNER, APPLICATION), "SELECT version FROM head") == [(0,)]
    assert _db("upgrade", "--grant-to", "a b", url=empty, folder=tmp_path).code == 2
    assert _db("upgrade", url=empty.replace(OWNER, APPLICATION), folder=tmp_path).code == 0


def test_the_command_shows_no_password(tmp_path: Path) -> None:
    said = _db("current", url=f"postgresql://u:secretword@/x?host={tmp_path}", folder=tmp_path)
    assert said.code == 3
    assert "secretword" not in said.out + said.err
