"""The first schema: latches, ledger, metrics, audit log, closing progress.

Revision: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tinywindow.safety.stores.pg.ddl import POSTGRES_DDL
from tinywindow.safety.stores.schema import AUDIT_TRIGGERS_SQLITE

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Bring an empty database to this revision."""
    _audit_log()
    _close_progress()
    _documents()
    _executions()
    _exposures()
    _fills()
    _head()
    _latches()
    _leases()
    _marks()
    _orders()
    _outbox()
    _positions()
    _reference_prices()
    _trips()
    op.execute(
        sa.text(
            "INSERT INTO head"
            " (id, version, stop_epoch, trading, audit_seq, audit_hash, exposure_micros)"
            " VALUES (1, 0, 0, 'RUNNING', 0, :genesis, 0)"
        ).bindparams(genesis="0" * 64)
    )
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        for trigger in AUDIT_TRIGGERS_SQLITE:
            op.execute(sa.text(trigger))
    else:
        for statement in POSTGRES_DDL:
            connection.exec_driver_sql(statement)


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("seq", _BIG, autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("time", sa.String(length=32), nullable=False),
        sa.Column("event_type", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Text(), nullable=True),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("decision_id", sa.Text(), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("prev_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_log")),
        sa.UniqueConstraint("id", name=op.f("uq_audit_log_id")),
    )


def _close_progress() -> None:
    op.create_table(
        "close_progress",
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("updated_ms", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("venue", name=op.f("pk_close_progress")),
    )


def _documents() -> None:
    op.create_table(
        "documents",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("version", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_documents")),
    )
    op.create_index("ix_documents_version", "documents", ["version"], unique=False)


def _executions() -> None:
    op.create_table(
        "executions",
        sa.Column("id", _BIG, autoincrement=True, nullable=False),
        sa.Column("client_order_id", sa.String(length=64), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("at_ms", _BIG, nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("resolved_ms", _BIG, nullable=True),
        sa.Column("version", _BIG, nullable=False),
        sa.CheckConstraint(
            "kind IN ('order', 'cancel', 'decision')", name=op.f("ck_executions_kind")
        ),
        sa.CheckConstraint(
            "outcome IN ('PENDING', 'OK', 'FAILED', 'UNKNOWN', 'VOID')",
            name=op.f("ck_executions_outcome"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_executions")),
        sa.UniqueConstraint("client_order_id", name=op.f("uq_executions_client_order_id")),
    )
    op.create_index("ix_executions_at_ms", "executions", ["at_ms"], unique=False)
    op.create_index("ix_executions_version", "executions", ["version"], unique=False)


def _exposures() -> None:
    op.create_table(
        "exposures",
        sa.Column("symbol", sa.String(length=64), nullable=False),
        sa.Column("worst_micros", _BIG, nullable=False),
        sa.CheckConstraint("worst_micros >= 0", name=op.f("ck_exposures_worst")),
        sa.PrimaryKeyConstraint("symbol", name=op.f("pk_exposures")),
    )


def _fills() -> None:
    op.create_table(
        "fills",
        sa.Column("id", _BIG, autoincrement=True, nullable=False),
        sa.Column("client_order_id", sa.String(length=64), nullable=False),
        sa.Column("filled", sa.Text(), nullable=False),
        sa.Column("average_price", sa.Text(), nullable=True),
        sa.Column("fee", sa.Text(), nullable=False),
        sa.Column("at_ms", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fills")),
    )
    op.create_index("ix_fills_client_order_id", "fills", ["client_order_id"], unique=False)


def _head() -> None:
    op.create_table(
        "head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version", _BIG, nullable=False),
        sa.Column("stop_epoch", _BIG, nullable=False),
        sa.Column("trading", sa.String(length=16), nullable=False),
        sa.Column("audit_seq", _BIG, nullable=False),
        sa.Column("audit_hash", sa.String(length=64), nullable=False),
        sa.Column("exposure_micros", _BIG, nullable=False),
        sa.CheckConstraint("trading IN ('RUNNING', 'STOPPED')", name=op.f("ck_head_trading")),
        sa.CheckConstraint("exposure_micros >= 0", name=op.f("ck_head_exposure")),
        sa.CheckConstraint("id = 1", name=op.f("ck_head_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_head")),
    )


def _latches() -> None:
    op.create_table(
        "latches",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("activated_ms", _BIG, nullable=False),
        sa.Column("released_ms", _BIG, nullable=True),
        sa.Column("released_by", sa.Text(), nullable=True),
        sa.Column("release_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "mode IN ('HALT_ONLY', 'CLOSE_POSITIONS')", name=op.f("ck_latches_mode")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_latches")),
    )
    op.create_index("ix_latches_released_ms", "latches", ["released_ms"], unique=False)


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("fence", _BIG, nullable=False),
        sa.Column("heartbeat_ms", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )


def _marks() -> None:
    op.create_table(
        "marks",
        sa.Column("id", _BIG, autoincrement=True, nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("equity", sa.Text(), nullable=False),
        sa.Column("cash_flow", sa.Text(), nullable=False),
        sa.Column("at_ms", _BIG, nullable=False),
        sa.Column("received_ms", _BIG, nullable=False),
        sa.Column("trusted", sa.Integer(), nullable=False),
        sa.Column("nav", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_marks")),
    )
    op.create_index("ix_marks_received_ms", "marks", ["received_ms"], unique=False)


def _orders() -> None:
    op.create_table(
        "orders",
        sa.Column("client_order_id", sa.String(length=64), nullable=False),
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=64), nullable=False),
        sa.Column("leg", sa.String(length=16), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("amount", sa.Text(), nullable=False),
        sa.Column("price", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_ms", _BIG, nullable=False),
        sa.Column("filled", sa.Text(), nullable=False),
        sa.Column("average_price", sa.Text(), nullable=True),
        sa.Column("fee", sa.Text(), nullable=False),
        sa.Column("intent_ms", _BIG, nullable=True),
        sa.Column("reduces", sa.Integer(), nullable=False),
        sa.Column("reduce_only", sa.Integer(), nullable=False),
        sa.Column("decision_id", sa.String(length=128), nullable=True),
        sa.Column("agent_id", sa.String(length=128), nullable=True),
        sa.Column("flatten", sa.Integer(), nullable=False),
        sa.Column("version", _BIG, nullable=False),
        sa.CheckConstraint("side IN ('BUY', 'SELL')", name=op.f("ck_orders_side")),
        sa.CheckConstraint("state <> 'HELD' OR intent_ms IS NULL", name=op.f("ck_orders_held")),
        sa.CheckConstraint(
            "state IN ('HELD', 'INTENDED', 'WORKING', 'UNKNOWN', 'FILLED', 'RELEASED', 'LAPSED')",
            name=op.f("ck_orders_state"),
        ),
        sa.CheckConstraint("CAST(amount AS NUMERIC) > 0", name=op.f("ck_orders_amount")),
        sa.CheckConstraint("CAST(filled AS NUMERIC) >= 0", name=op.f("ck_orders_filled")),
        sa.CheckConstraint(
            "price IS NULL OR CAST(price AS NUMERIC) > 0", name=op.f("ck_orders_price")
        ),
        sa.PrimaryKeyConstraint("client_order_id", name=op.f("pk_orders")),
        sa.UniqueConstraint("decision_id", name=op.f("uq_orders_decision_id")),
    )
    op.create_index("ix_orders_state", "orders", ["state"], unique=False)
    op.create_index("ix_orders_version", "orders", ["version"], unique=False)


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("position", _BIG, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("draft", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_outbox")),
        sa.UniqueConstraint("id", name=op.f("uq_outbox_id")),
    )


def _positions() -> None:
    op.create_table(
        "positions",
        sa.Column("venue", sa.String(length=64), nullable=False),
        sa.Column("account", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=64), nullable=False),
        sa.Column("leg", sa.String(length=16), nullable=False),
        sa.Column("amount", sa.Text(), nullable=False),
        sa.Column("price", sa.Text(), nullable=False),
        sa.Column("updated_ms", _BIG, nullable=False),
        sa.Column("read_ms", _BIG, nullable=True),
        sa.Column("version", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("venue", "account", "symbol", "leg", name=op.f("pk_positions")),
    )
    op.create_index("ix_positions_version", "positions", ["version"], unique=False)


def _reference_prices() -> None:
    op.create_table(
        "reference_prices",
        sa.Column("symbol", sa.String(length=64), nullable=False),
        sa.Column("price", sa.Text(), nullable=False),
        sa.Column("at_ms", _BIG, nullable=False),
        sa.Column("version", _BIG, nullable=False),
        sa.CheckConstraint("CAST(price AS NUMERIC) > 0", name=op.f("ck_reference_prices_price")),
        sa.PrimaryKeyConstraint("symbol", name=op.f("pk_reference_prices")),
    )
    op.create_index("ix_reference_prices_version", "reference_prices", ["version"], unique=False)


def _trips() -> None:
    op.create_table(
        "trips",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("metric", sa.String(length=32), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("limit_value", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("tripped_ms", _BIG, nullable=False),
        sa.Column("cleared_ms", _BIG, nullable=True),
        sa.Column("cleared_by", sa.Text(), nullable=True),
        sa.Column("standing", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "(standing IS NULL) = (cleared_ms IS NOT NULL)", name=op.f("ck_trips_standing")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trips")),
        sa.UniqueConstraint("standing", name=op.f("uq_trips_standing")),
    )
