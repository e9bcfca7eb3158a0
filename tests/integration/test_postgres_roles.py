"""Who may do what on PostgreSQL, and what keeps the audit log as it was written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psycopg
import pytest
from pg_drafts import decide, row
from pg_writers import approvals, assert_chain, query, raw
from postgres import APPLICATION, OWNER, PostgresServer

from tinywindow.safety.domain.audit import GENESIS_HASH
from tinywindow.safety.stores.pg.ddl import grants
from tinywindow.safety.stores.postgres import PostgresStore

CHANGES = (
    "UPDATE audit_log SET actor = 'mallory'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "INSERT INTO audit_log SELECT * FROM audit_log WHERE seq = 1"
    " ON CONFLICT (seq) DO UPDATE SET actor = 'mallory'",
    "MERGE INTO audit_log a USING (SELECT 1) s ON a.seq = 1 WHEN MATCHED THEN DELETE",
)
COPY = (
    "INSERT INTO audit_log SELECT {seq}, 'x', time, event_type, actor, agent_id, order_id,"
    " decision_id, data, {prev}, hash FROM audit_log WHERE seq = 2"
)
FORGED = (
    # A gap, a fork, and the right number with a wrong link.
    COPY.format(seq=9, prev="hash"),
    COPY.format(seq=2, prev="prev_hash"),
    COPY.format(seq=3, prev="prev_hash"),
    COPY.format(seq=1, prev=f"'{GENESIS_HASH}'"),
)


@pytest.fixture
async def written(postgres_url: str) -> str:
    """A database with three rows."""
    store = await PostgresStore.open(postgres_url, require_durable=False)
    for name in "abc"[:2]:
        await decide(store, name)
    await store.close()
    return postgres_url


def needs_15(url: str, statement: str) -> None:
    """Leave out what PostgreSQL 14 does not have: MERGE, and a schema that only its owner fills."""
    version = query(url, "SELECT current_setting('server_version_num')::int")[0][0]
    if version < 150_000 and statement.startswith(("MERGE", "CREATE TABLE")):
        pytest.skip("PostgreSQL 14 has no MERGE, and lets everybody create tables in `public`")


def as_role(url: str, role: str) -> str:
    return url.replace(APPLICATION, role)


@pytest.mark.parametrize("change", CHANGES)
async def test_the_application_may_not_change_a_row(written: str, change: str) -> None:
    needs_15(written, change)
    with raw(written) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(change)
    assert assert_chain(written) == 2


@pytest.mark.parametrize(
    ("role", "as_replica"),
    [(OWNER, False), ("postgres", False), ("postgres", True)],
    ids=["owner", "superuser", "superuser as a replica"],
)
@pytest.mark.parametrize("change", CHANGES)
async def test_neither_owner_nor_superuser_changes_a_row_by_mistake(
    written: str, role: str, change: str, as_replica: bool
) -> None:
    needs_15(written, change)
    with raw(as_role(written, role)) as connection:
        if as_replica:
            connection.execute("SET session_replication_role = replica")
        with pytest.raises(psycopg.IntegrityError, match="append"):
            connection.execute(change)
    assert assert_chain(written) == 2


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("role", [APPLICATION, "postgres"])
async def test_rows_are_only_appended_to_the_end_of_the_chain(
    written: str, forged: str, role: str
) -> None:
    with raw(as_role(written, role)) as connection, pytest.raises(psycopg.IntegrityError):
        connection.execute(forged)
    assert assert_chain(written) == 2


@pytest.mark.parametrize(
    "forbidden",
    [
        "DROP TABLE audit_log",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "DROP TRIGGER audit_log_chain ON audit_log",
        "CREATE TABLE mine (a int)",
        "CREATE OR REPLACE FUNCTION tinywindow_append_only() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NEW; END'",
        "DELETE FROM latches",
        "DELETE FROM orders",
        "DELETE FROM head",
        "UPDATE alembic_version SET version_num = '9999'",
        "SET session_replication_role = replica",
    ],
)
async def test_the_application_may_not_undo_what_protects_it(written: str, forbidden: str) -> None:
    needs_15(written, forbidden)
    with raw(written) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(forbidden)


async def test_the_application_can_do_everything_that_the_store_does(postgres_url: str) -> None:
    """The whole contract runs as this role; here only that it is this one."""
    assert query(postgres_url, "SELECT current_user, usesuper FROM pg_user WHERE usename ="
                 " current_user") == [(APPLICATION, False)]  # fmt: skip


async def test_the_function_hashes_as_python_does(postgres_url: str) -> None:
    store = await PostgresStore.open(postgres_url, require_durable=False)
    for name in ("plain", 'quo"te', "back\\slash", "umläut €", "per%cent", "new\nline", "(a,b)"):
        assert await decide(store, name) == name
    assert await decide(store, "last") == "last"
    assert [order for _, order in approvals(postgres_url)][1] == 'quo"te'
    await store.transact(lambda tx: tx.audit(row("by python")))
    assert assert_chain(postgres_url) == 9
    data = query(postgres_url, "SELECT data FROM audit_log WHERE seq = 4")[0][0]
    assert json.loads(data) == {"name": "umläut €"}
    await store.close()


def test_the_roles_are_documented_as_they_are_granted() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    said = re.sub(r"\s+", " ", text)
    for statement in grants("tinywindow_app"):
        assert statement in said


@pytest.mark.parametrize("role", ["a b", "x; DROP TABLE head", "", "A", 'a"'])
def test_a_role_is_a_plain_name(role: str) -> None:
    with pytest.raises(ValueError, match="role"):
        grants(role)


def test_the_owner_can_grant_again(postgres_server: PostgresServer) -> None:
    from tinywindow.safety.stores.migrate import upgrade_postgres

    name = postgres_server.new_database()
    assert not upgrade_postgres(postgres_server.url(name, OWNER), grant_to=APPLICATION)
    postgres_server.drop(name)
