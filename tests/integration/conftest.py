"""Servers that are started for whoever asks."""

from __future__ import annotations

from postgres import durable_postgres_server, durable_url, postgres_server, postgres_url
from valkey import shared_valkey, valkey

__all__ = [
    "durable_postgres_server",
    "durable_url",
    "postgres_server",
    "postgres_url",
    "shared_valkey",
    "valkey",
]
