"""The tables, once, for every SQL engine.

Decimals are kept as their canonical text (`domain.money.plain`), so that no engine rounds them;
sums that the database guards a second time are whole millionths of a USD. Times are integer
milliseconds of Unix time in UTC. A `version` column holds the head's version at the row's last
change: what a cached book must catch up with is what is newer than it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

__all__ = [
    "AUDIT_TRIGGERS_SQLITE",
    "SCHEMA_REVISION",
    "audit_log",
    "close_progress",
    "documents",
    "executions",
    "exposures",
    "fills",
    "head",
    "latches",
    "leases",
    "marks",
    "metadata",
    "orders",
    "outbox",
    "positions",
    "reference_prices",
    "trips",
]

SCHEMA_REVISION: Final = "0001"
"""The newest migration; a database at it needs no upgrade."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_BIG = BigInteger().with_variant(Integer, "sqlite")


def _positive(column: str) -> str:
    return f"CAST({column} AS NUMERIC) > 0"


head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", _BIG, nullable=False),
    Column("stop_epoch", _BIG, nullable=False),
    Column("trading", String(16), nullable=False),
    Column("audit_seq", _BIG, nullable=False),
    Column("audit_hash", String(64), nullable=False),
    Column("exposure_micros", _BIG, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
    CheckConstraint("trading IN ('RUNNING', 'STOPPED')", name="trading"),
    CheckConstraint("exposure_micros >= 0", name="exposure"),
)

latches = Table(
    "latches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("mode", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("source", String(16), nullable=False),
    Column("activated_ms", _BIG, nullable=False),
    Column("released_ms", _BIG),
    Column("released_by", Text),
    Column("release_reason", Text),
    CheckConstraint("mode IN ('HALT_ONLY', 'CLOSE_POSITIONS')", name="mode"),
    Index("ix_latches_released_ms", "released_ms"),
)

trips = Table(
    "trips",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("metric", String(32), nullable=False),
    Column("value", Text, nullable=False),
    Column("limit_value", Text, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("tripped_ms", _BIG, nullable=False),
    Column("cleared_ms", _BIG),
    Column("cleared_by", Text),
    # One while the trip stands, null once it is cleared: at most one trip stands.
    Column("standing", Integer, unique=True),
    CheckConstraint("(standing IS NULL) = (cleared_ms IS NOT NULL)", name="standing"),
)

orders = Table(
    "orders",
    metadata,
    Column("client_order_id", String(64), primary_key=True),
    Column("venue", String(64), nullable=False),
    Column("account", String(64), nullable=False),
    Column("symbol", String(64), nullable=False),
    Column("leg", String(16), nullable=False),
    Column("side", String(4), nullable=False),
    Column("type", String(16), nullable=False),
    Column("amount", Text, nullable=False),
    Column("price", Text),
    Column("state", String(16), nullable=False),
    Column("created_ms", _BIG, nullable=False),
    Column("filled", Text, nullable=False),
    Column("average_price", Text),
    Column("fee", Text, nullable=False),
    Column("intent_ms", _BIG),
    Column("reduces", Integer, nullable=False),
    Column("reduce_only", Integer, nullable=False),
    Column("decision_id", String(128), unique=True),
    Column("agent_id", String(128)),
    Column("flatten", Integer, nullable=False),
    Column("version", _BIG, nullable=False),
    CheckConstraint("side IN ('BUY', 'SELL')", name="side"),
    CheckConstraint(_positive("amount"), name="amount"),
    CheckConstraint("CAST(filled AS NUMERIC) >= 0", name="filled"),
    CheckConstraint(f"price IS NULL OR {_positive('price')}", name="price"),
    CheckConstraint(
        "state IN ('HELD', 'INTENDED', 'WORKING', 'UNKNOWN', 'FILLED', 'RELEASED', 'LAPSED')",
        name="state",
    ),
    CheckConstraint("state <> 'HELD' OR intent_ms IS NULL", name="held"),
    Index("ix_orders_version", "version"),
    Index("ix_orders_state", "state"),
)

fills = Table(
    "fills",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("client_order_id", String(64), nullable=False),
    Column("filled", Text, nullable=False),
    Column("average_price", Text),
    Column("fee", Text, nullable=False),
    Column("at_ms", _BIG, nullable=False),
    Index("ix_fills_client_order_id", "client_order_id"),
)

positions = Table(
    "positions",
    metadata,
    Column("venue", String(64), primary_key=True),
    Column("account", String(64), primary_key=True),
    Column("symbol", String(64), primary_key=True),
    Column("leg", String(16), primary_key=True),
    Column("amount", Text, nullable=False),
    Column("price", Text, nullable=False),
    Column("updated_ms", _BIG, nullable=False),
    Column("read_ms", _BIG),
    Column("version", _BIG, nullable=False),
    Index("ix_positions_version", "version"),
)

reference_prices = Table(
    "reference_prices",
    metadata,
    Column("symbol", String(64), primary_key=True),
    Column("price", Text, nullable=False),
    Column("at_ms", _BIG, nullable=False),
    Column("version", _BIG, nullable=False),
    CheckConstraint(_positive("price"), name="price"),
    Index("ix_reference_prices_version", "version"),
)

exposures = Table(
    "exposures",
    metadata,
    Column("symbol", String(64), primary_key=True),
    Column("worst_micros", _BIG, nullable=False),
    CheckConstraint("worst_micros >= 0", name="worst"),
)

marks = Table(
    "marks",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False),
    Column("equity", Text, nullable=False),
    Column("cash_flow", Text, nullable=False),
    Column("at_ms", _BIG, nullable=False),
    Column("received_ms", _BIG, nullable=False),
    Column("trusted", Integer, nullable=False),
    Column("nav", Text),
    Index("ix_marks_received_ms", "received_ms"),
)

executions = Table(
    "executions",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("client_order_id", String(64), unique=True),
    Column("kind", String(16), nullable=False),
    Column("at_ms", _BIG, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("resolved_ms", _BIG),
    Column("version", _BIG, nullable=False),
    CheckConstraint("kind IN ('order', 'cancel', 'decision')", name="kind"),
    CheckConstraint("outcome IN ('PENDING', 'OK', 'FAILED', 'UNKNOWN', 'VOID')", name="outcome"),
    Index("ix_executions_version", "version"),
    Index("ix_executions_at_ms", "at_ms"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", _BIG, primary_key=True, autoincrement=False),
    Column("id", String(64), nullable=False, unique=True),
    Column("time", String(32), nullable=False),
    Column("event_type", String(64), nullable=False),
    Column("actor", Text, nullable=False),
    Column("agent_id", Text),
    Column("order_id", Text),
    Column("decision_id", Text),
    Column("data", Text, nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("position", _BIG, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("draft", Text, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("fence", _BIG, nullable=False),
    Column("heartbeat_ms", _BIG, nullable=False),
)

close_progress = Table(
    "close_progress",
    metadata,
    Column("venue", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("report", Text, nullable=False),
    Column("updated_ms", _BIG, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Column("version", _BIG, nullable=False),
    Index("ix_documents_version", "version"),
)

AUDIT_TRIGGERS_SQLITE: Final = (
    """
    CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END
    """,
    """
    CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END
    """,
    # Runs before the conflict resolution of INSERT OR REPLACE could delete a row, be it for its
    # sequence number or for its id: such a deletion fires no trigger of its own.
    f"""
    CREATE TRIGGER audit_log_chain BEFORE INSERT ON audit_log
    WHEN NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit_log)
      OR NEW.prev_hash IS NOT COALESCE(
           (SELECT hash FROM audit_log ORDER BY seq DESC LIMIT 1), '{"0" * 64}')
      OR EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'audit_log rows are appended to the end of the chain'); END
    """,  # noqa: S608 - constants
)
"""What keeps `audit_log` append-only on SQLite; the file's owner can still remove the triggers."""
