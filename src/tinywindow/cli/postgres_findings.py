"""What `doctor` says of a PostgreSQL database: reachable, durable, its schema, and our rights."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from tinywindow.cli.findings import Finding, Level, anchored, clock
from tinywindow.safety.services.anchor import Anchor
from tinywindow.safety.services.location import Location
from tinywindow.safety.stores.pg.ddl import needed_rights
from tinywindow.safety.stores.schema import SCHEMA_REVISION

if TYPE_CHECKING:
    import psycopg

__all__ = ["postgres"]

CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_MS: Final = 10_000
VERSIONS: Final = (14, 18)
"""The oldest and the newest major version that we are tested on."""
CONNECTIONS_EACH: Final = 6
"""What one process may need: three, and as many again while lost ones are replaced."""
SUBJECT: Final = "database"
_STATE: Final = """
SELECT current_setting('server_version_num')::int / 10000, pg_is_in_recovery(),
    current_setting('transaction_read_only'), current_setting('fsync'),
    current_setting('synchronous_commit'), current_setting('full_page_writes'),
    current_setting('data_checksums'), current_setting('max_connections')::int,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int
"""
_ROLE: Final = """
SELECT current_user, rolsuper, EXISTS (
    SELECT FROM pg_class WHERE oid = to_regclass('audit_log')
        AND pg_has_role(current_user, relowner, 'MEMBER'))
FROM pg_roles WHERE rolname = current_user
"""
_CHANGES: Final = """
SELECT has_table_privilege('audit_log', 'UPDATE') OR has_table_privilege('audit_log', 'DELETE')
    OR has_table_privilege('audit_log', 'TRUNCATE')
"""
_TRIGGERS: Final = """
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'audit_log'::regclass AND tgenabled = 'A'
    AND tgname IN ('audit_log_no_change', 'audit_log_no_truncate', 'audit_log_chain')
"""
TRIGGERS: Final = 3


def _ok(what: str) -> Finding:
    return Finding(SUBJECT, Level.OK, what)


def _note(what: str, mend: str = "") -> Finding:
    return Finding(SUBJECT, Level.NOTE, what, mend)


def _wrong(what: str, mend: str) -> Finding:
    return Finding(SUBJECT, Level.WRONG, what, mend)


def postgres(location: Location, now: datetime) -> Iterator[Finding]:
    """The database at a location, looked at on one connection that changes nothing."""
    import psycopg  # noqa: PLC0415 - an extra

    try:
        with psycopg.connect(
            location.url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="tinywindow-doctor",
            tcp_user_timeout=CONNECT_TIMEOUT_S * 1000,
        ) as connection:
            connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}".encode())
            yield from _server(connection)
            if (yield from _schema(connection)):
                yield from _rights(connection)
                yield from _log(connection, Anchor(location.anchor_path), now)
    except psycopg.Error as error:
        yield _wrong(
            f"PostgreSQL cannot be asked: {' '.join(str(error).split())}",
            "start the server, or mend the URL, the password or pg_hba.conf",
        )


def _row(connection: psycopg.Connection[Any], statement: str) -> Sequence[Any]:
    row: Sequence[Any] | None = connection.execute(statement.encode()).fetchone()
    return () if row is None else row


def _server(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    version, standby, read_only, fsync, commit, pages, sums, most, there = _row(connection, _STATE)
    oldest, newest = VERSIONS
    if version < oldest:
        yield _wrong(f"PostgreSQL {version} is too old", f"use PostgreSQL {oldest} or newer")
    elif version > newest:
        yield _note(f"PostgreSQL {version} is newer than what is tested, {newest}")
    else:
        yield _ok(f"PostgreSQL {version}")
    if standby:
        yield _wrong("a standby, which takes no stop", "name the primary in the URL")
    elif read_only == "on":
        yield _wrong(
            "sessions are read-only, and take no stop",
            "ALTER ROLE or ALTER DATABASE … SET default_transaction_read_only = off",
        )
    if fsync == "off":
        yield _wrong(
            "fsync is off: a power cut takes back stops that were answered for; a start is refused",
            "set fsync = on in postgresql.conf and restart the server",
        )
    if commit == "off":
        yield _wrong(
            "synchronous_commit is off: a crash takes back stops that were answered for; a start "
            "is refused",
            "set synchronous_commit = on, for the server, this database and this role",
        )
    if fsync != "off" and commit != "off":
        yield _ok(f"durable: fsync {fsync}, synchronous_commit {commit}")
    if pages == "off":
        yield _wrong("full_page_writes is off: a crash may tear pages", "set it on, and reload")
    if sums == "off":
        yield _note(
            "data checksums are off: rotten pages are read and not found",
            "stop the server, then: pg_checksums --enable",
        )
    if most - there < CONNECTIONS_EACH:
        yield _wrong(
            f"{there} of {most} connections are taken: one process may need {CONNECTIONS_EACH}",
            "raise max_connections and restart the server, or end what is idle",
        )
    else:
        yield _ok(f"{there} of {most} connections are taken; a process needs {CONNECTIONS_EACH}")


def _schema(connection: psycopg.Connection[Any]) -> Generator[Finding, None, bool]:
    """The schema's revision; returns whether there is one of ours to look into."""
    upgrade = "as the owner of its tables: tinywindow db upgrade --grant-to ROLE"
    if _row(connection, "SELECT to_regclass('alembic_version')")[0] is None:
        yield _wrong("it has no schema of ours yet", upgrade)
        return False
    if not _row(connection, "SELECT has_table_privilege('alembic_version', 'SELECT')")[0]:
        yield _wrong("this role may not even read the schema's revision", upgrade)
        return False
    revision = next(iter(_row(connection, "SELECT version_num FROM alembic_version")), None)
    if revision == SCHEMA_REVISION:
        yield _ok(f"at schema revision {revision}, the newest")
        return True
    yield _wrong(
        f"at schema revision {revision}, the newest is {SCHEMA_REVISION}",
        f"{upgrade}; or a newer TinyWindow where the revision is newer",
    )
    return False


def _rights(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    role, superuser, owner = _row(connection, _ROLE)
    advice = "use the application's role in the URL: see docs/operations.md"
    if superuser:
        yield _note(f"{role} is a superuser, who can undo what protects the audit log", advice)
    elif owner:
        yield _note(f"{role} owns the tables, and can undo what protects the audit log", advice)
    elif _row(connection, _CHANGES)[0]:
        yield _wrong(
            f"{role} may change or delete audit rows", f"REVOKE UPDATE, DELETE, TRUNCATE ON "
            f"audit_log FROM {role}"
        )  # fmt: skip
    else:
        yield _ok(f"{role} may add audit rows, and neither change nor delete one")
    missing = [
        f"{right} ON {name}"
        for kind, right, name in needed_rights()
        if not _row(connection, f"SELECT has_{kind}_privilege('{name}', '{right}')")[0]
    ]
    if missing:
        yield _wrong(
            f"{role} lacks {', '.join(missing)}",
            f"as the owner of the tables: tinywindow db upgrade --grant-to {role}",
        )
    if _row(connection, _TRIGGERS)[0] != TRIGGERS:
        yield _wrong(
            "triggers that protect the audit log are gone or switched off",
            "find out who did that; tinywindow audit verify; then restore them from a fresh schema",
        )


def _log(connection: psycopg.Connection[Any], anchor: Anchor, now: datetime) -> Iterator[Finding]:
    if not _row(connection, "SELECT has_table_privilege('audit_log', 'SELECT')")[0]:
        return

    def row_at(seq: int) -> str | None:
        found = connection.execute("SELECT hash FROM audit_log WHERE seq = %s", (seq,)).fetchone()
        return None if found is None else str(found[0])

    yield from anchored(row_at, anchor)
    newest = _row(connection, "SELECT time FROM audit_log ORDER BY seq DESC LIMIT 1")
    if newest:
        yield from clock(datetime.fromisoformat(str(newest[0])), now)
