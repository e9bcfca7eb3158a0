"""The tables of the paper venue's book. Decimals are plain text, times Unix milliseconds."""

from __future__ import annotations

from typing import Final

__all__ = ["IDENTITY", "SCHEMA", "SCHEMA_VERSION"]

SCHEMA_VERSION: Final = 2

IDENTITY: Final = """
    CREATE TABLE identity (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        account_id TEXT NOT NULL
    ) STRICT
    """
"""What a book of version 1 lacks: the account's id, made once, by chance."""

SCHEMA: Final = (
    """
    CREATE TABLE account (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        opening_cash TEXT NOT NULL,
        cash TEXT NOT NULL
    ) STRICT
    """,
    IDENTITY,
    """
    CREATE TABLE holding (
        symbol TEXT PRIMARY KEY,
        amount TEXT NOT NULL,
        cost TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE paper_order (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        client_order_id TEXT NOT NULL UNIQUE,
        symbol TEXT NOT NULL,
        side TEXT NOT NULL CHECK (side IN ('BUY', 'SELL')),
        type TEXT NOT NULL,
        requested TEXT NOT NULL,
        amount TEXT NOT NULL,
        price TEXT,
        reduce_only INTEGER NOT NULL CHECK (reduce_only IN (0, 1)),
        status TEXT NOT NULL,
        filled TEXT NOT NULL,
        traded TEXT NOT NULL,
        fee TEXT NOT NULL,
        message TEXT NOT NULL,
        placed_ms INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX paper_order_open ON paper_order (number) WHERE status = 'OPEN'",
    """
    CREATE TABLE fill (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        client_order_id TEXT NOT NULL REFERENCES paper_order (client_order_id),
        symbol TEXT NOT NULL,
        side TEXT NOT NULL CHECK (side IN ('BUY', 'SELL')),
        amount TEXT NOT NULL,
        price TEXT NOT NULL,
        fee TEXT NOT NULL,
        maker INTEGER NOT NULL CHECK (maker IN (0, 1)),
        filled_ms INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE placement (
        client_order_id TEXT PRIMARY KEY,
        count INTEGER NOT NULL CHECK (count > 0)
    ) STRICT
    """,
    """
    CREATE TABLE price (
        symbol TEXT PRIMARY KEY,
        price TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    ) STRICT
    """,
)
