"""What the schema has on PostgreSQL alone: append-only triggers, the order's way, and grants.

The rules stay in Python. The function below holds none: it commits what was decided from a book
if that book is still the newest, in one round trip, and says so when it is not.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MIGRATION_KEY", "POSTGRES_DDL", "TURN_KEY", "grants", "needed_rights"]

TURN_KEY: Final = 0x74696E7977
"""The advisory lock that hands out turns in order; a row lock alone lets newcomers overtake."""
MIGRATION_KEY: Final = TURN_KEY + 1
"""The advisory lock of whoever upgrades the schema."""

_APPEND_ONLY: Final = (
    """
    CREATE FUNCTION tinywindow_append_only() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN
        RAISE EXCEPTION 'audit_log is append-only' USING ERRCODE = 'integrity_constraint_violation';
    END
    $body$
    """,
    """
    CREATE FUNCTION tinywindow_audit_chain() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN
        IF NEW.seq = 1 THEN
            IF NEW.prev_hash = repeat('0', 64) THEN
                RETURN NEW;
            END IF;
        ELSIF EXISTS (
            SELECT FROM audit_log WHERE seq = NEW.seq - 1 AND hash = NEW.prev_hash
        ) THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'audit_log rows are appended to the end of the chain'
            USING ERRCODE = 'integrity_constraint_violation';
    END
    $body$
    """,
    """
    CREATE TRIGGER audit_log_no_change BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION tinywindow_append_only()
    """,
    """
    CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION tinywindow_append_only()
    """,
    """
    CREATE TRIGGER audit_log_chain BEFORE INSERT ON audit_log
    FOR EACH ROW EXECUTE FUNCTION tinywindow_audit_chain()
    """,
    # ALWAYS: a session that plays a replica fires them too.
    "ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_no_change",
    "ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_no_truncate",
    "ALTER TABLE audit_log ENABLE ALWAYS TRIGGER audit_log_chain",
)

_DECIDE: Final = """
CREATE FUNCTION tinywindow_decide(
    p_version bigint, p_epoch bigint,
    p_order text, p_known boolean, p_decision text,
    p_hold orders, p_slot_ms bigint,
    p_worst bigint, p_worst_cap bigint, p_total bigint, p_total_cap bigint,
    p_row audit_log, p_body text,
    OUT status text, OUT seq bigint, OUT digest text, OUT slot bigint
) LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
    h head;
    moves integer := 0;
BEGIN
    -- The turn, then the row that stops lock too. What follows are new statements, which see
    -- whatever was committed while this one waited.
    PERFORM pg_advisory_xact_lock(:turn_key);
    -- A look without a lock: whoever comes too late has nothing to write, and no disk to wait for.
    SELECT * INTO STRICT h FROM head WHERE id = 1;
    IF h.version <> p_version OR h.stop_epoch <> p_epoch THEN
        status := 'MOVED';
        RETURN;
    END IF;
    SELECT * INTO STRICT h FROM head WHERE id = 1 FOR UPDATE;
    IF h.version <> p_version OR h.stop_epoch <> p_epoch THEN
        status := 'MOVED';
        RETURN;
    END IF;
    IF p_hold.client_order_id IS NULL THEN
        IF EXISTS (SELECT FROM orders WHERE client_order_id = p_order) <> p_known
            OR (p_decision IS NOT NULL AND EXISTS (
                SELECT FROM orders WHERE decision_id = p_decision AND client_order_id <> p_order))
        THEN
            status := 'LOOK';
            RETURN;
        END IF;
    ELSE
        -- Nothing was written before: an id or a decision that was spent undoes nothing.
        p_hold.version := h.version + 1;
        moves := 1;
        INSERT INTO orders VALUES (p_hold.*) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            status := 'LOOK';
            RETURN;
        END IF;
    END IF;
    IF p_slot_ms IS NOT NULL THEN
        INSERT INTO executions (client_order_id, kind, at_ms, outcome, resolved_ms, version)
            VALUES (p_order, 'order', p_slot_ms, 'PENDING', NULL, h.version + 1)
            ON CONFLICT DO NOTHING
            RETURNING id INTO slot;
        IF slot IS NULL THEN
            RAISE EXCEPTION 'the order has an attempt already' USING ERRCODE = 'TW002';
        END IF;
    END IF;
    IF p_total IS NOT NULL THEN
        IF EXISTS (SELECT FROM latches WHERE released_ms IS NULL)
            OR EXISTS (SELECT FROM trips WHERE standing = 1)
        THEN
            RAISE EXCEPTION 'an entry was drafted while a stop stands' USING ERRCODE = 'TW001';
        END IF;
        UPDATE exposures SET worst_micros = p_worst
            WHERE symbol = p_hold.symbol AND p_worst <= p_worst_cap;
        IF NOT FOUND THEN
            IF p_worst > p_worst_cap THEN
                RAISE EXCEPTION 'the exposure of a symbol is above its cap'
                    USING ERRCODE = 'TW001';
            END IF;
            INSERT INTO exposures (symbol, worst_micros) VALUES (p_hold.symbol, p_worst);
        END IF;
    END IF;
    seq := h.audit_seq;
    digest := h.audit_hash;
    IF p_row.id IS NOT NULL THEN
        p_row.seq := seq + 1;
        p_row.prev_hash := digest;
        seq := seq + 1;
        digest := encode(sha256(convert_to(
            digest || chr(10) || seq::text || chr(10) || p_body, 'UTF8')), 'hex');
        p_row.hash := digest;
        INSERT INTO audit_log VALUES (p_row.*);
    END IF;
    IF moves > 0 OR seq <> h.audit_seq THEN
        UPDATE head SET version = h.version + moves, audit_seq = seq, audit_hash = digest,
            exposure_micros = COALESCE(p_total, h.exposure_micros)
            WHERE id = 1 AND (p_total IS NULL OR p_total <= p_total_cap);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the total exposure is above its cap' USING ERRCODE = 'TW001';
        END IF;
    END IF;
    status := 'DONE';
END
$body$
""".replace(":turn_key", str(TURN_KEY))

_MARKS: Final = """
CREATE TABLE writer_marks (
    writer text PRIMARY KEY,
    mark bigint NOT NULL,
    at timestamp with time zone NOT NULL DEFAULT now()
)
"""
"""Each writer's last committed transaction: what tells whether a commit whose answer was lost
stands. A transaction's number would not do: after a crash it may be given to another."""

POSTGRES_DDL: Final = (*_APPEND_ONLY, _MARKS, _DECIDE)
"""What the first migration adds on PostgreSQL; no statement holds a percent sign."""

_CHANGED: Final = (
    "close_progress",
    "documents",
    "executions",
    "exposures",
    "fills",
    "head",
    "latches",
    "leases",
    "marks",
    "orders",
    "outbox",
    "positions",
    "reference_prices",
    "trips",
    "writer_marks",
)
_THINNED: Final = ("marks", "outbox", "writer_marks")
_NUMBERED: Final = ("executions_id_seq", "fills_id_seq", "marks_id_seq", "outbox_position_seq")
_ROLE: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def grants(role: str) -> tuple[str, ...]:
    """What the owner grants the application's role: nowhere may it change an audit row.

    Raises:
        ValueError: the role's name is not of lower-case letters, digits and underscores.
    """
    if not _ROLE.fullmatch(role):
        raise ValueError("a role's name has lower-case letters, digits and underscores only")
    return (
        f"GRANT SELECT ON alembic_version TO {role}",
        f"GRANT SELECT, INSERT ON audit_log TO {role}",
        f"GRANT SELECT, INSERT, UPDATE ON {', '.join(_CHANGED)} TO {role}",
        f"GRANT DELETE ON {', '.join(_THINNED)} TO {role}",
        f"GRANT USAGE ON SEQUENCE {', '.join(_NUMBERED)} TO {role}",
    )


def needed_rights() -> tuple[tuple[str, str, str], ...]:
    """The same rights one by one: the kind of thing, the right, and the thing's name."""
    changed = ((right, name) for name in _CHANGED for right in ("SELECT", "INSERT", "UPDATE"))
    tables = (
        ("SELECT", "alembic_version"),
        ("SELECT", "audit_log"),
        ("INSERT", "audit_log"),
        *changed,
        *(("DELETE", name) for name in _THINNED),
    )
    return (
        *(("table", right, name) for right, name in tables),
        *(("sequence", "USAGE", name) for name in _NUMBERED),
    )
