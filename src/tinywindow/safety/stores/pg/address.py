"""A database's address: what users write, made what the driver reads."""

from __future__ import annotations

import importlib.util
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from tinywindow.safety.errors import ConfigurationError

__all__ = ["POSTGRES_SCHEMES", "postgres_url"]

POSTGRES_SCHEMES: Final = (
    "postgresql",
    "postgresql+asyncpg",
    "postgresql+psycopg",
    "postgresql+psycopg_async",
)
# What only asyncpg or SQLAlchemy's dialect for it knows, and what has no meaning for us.
_DROPPED: Final = frozenset(
    {
        "command_timeout",
        "prepared_statement_cache_size",
        "prepared_statement_name_func",
        "server_settings",
        "statement_cache_size",
        "timeout",
    }
)
_MISSING: Final = (
    "db_connection names PostgreSQL, whose driver is not installed: "
    "pip install 'tinywindow[postgres]'"
)


def postgres_url(url: str) -> str:
    """Make a `postgresql…://` URL of any accepted scheme one that the driver reads.

    Raises:
        ConfigurationError: the driver is missing, no database is named, or a parameter is
            unknown; the message never holds the URL, which may hold a password.
    """
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigurationError(_MISSING)
    from psycopg import ProgrammingError  # noqa: PLC0415 - an extra
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    try:
        # The schemes of SQLAlchemy's dialects are none that the parser knows.
        parts = urlsplit(f"postgresql://{url.partition('://')[2]}")
        if "," not in parts.netloc:
            _ = parts.port  # which fails where it is no number
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigurationError("db_connection is no well-formed PostgreSQL URL") from error
    query = [
        ("sslmode" if name == "ssl" else name, value)
        for name, value in pairs
        if name not in _DROPPED
    ]
    tail = f"?{urlencode(query, quote_via=quote)}" if query else ""
    made = f"postgresql://{parts.netloc}{parts.path}{tail}"
    try:
        known = conninfo_to_dict(made)
    except ProgrammingError as error:
        raise ConfigurationError(
            "db_connection is no PostgreSQL URL that the driver understands; see its parameters "
            "in PostgreSQL's manual, under connection URIs"
        ) from error
    if not known.get("dbname"):
        raise ConfigurationError("db_connection: the PostgreSQL URL names no database")
    return made
