"""Two first contacts at one moment, under one name, of two accounts."""

from __future__ import annotations

import asyncio
import json
import secrets
from functools import partial
from pathlib import Path

from tinywindow.safety.domain.venue_account import account_key
from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.context import open_context
from tinywindow.safety.services.location import locate
from tinywindow.safety.services.venue_account import VenueAccount
from tinywindow.testing import ScriptedExchange

__all__ = ["race"]


async def race(database: object, folder: Path) -> None:
    """In each of ten rounds one of the two is refused, and the other one is on record."""
    contexts = [await open_context(locate(database, data_dir=folder / name)) for name in ("a", "b")]
    try:
        for number in range(10):
            name = f"venue-{number}"
            claims = (
                VenueAccount(
                    ScriptedExchange(name, account_id=account), SystemClock(), _new_id
                ).claim(context)
                for account, context in zip("ab", contexts, strict=True)
            )
            found = await asyncio.gather(*claims, return_exceptions=True)
            assert [type(one) for one in found if one is not None] == [ConfigurationError]
            kept = await contexts[0].store.read(partial(_document, key=account_key(name)))
            assert kept is not None
            assert json.loads(kept)["account_id"] == "ab"[found.index(None)]
    finally:
        for context in contexts:
            await context.close()


def _document(tx: Tx, *, key: str) -> str | None:
    return tx.document(key)


def _new_id() -> str:
    return secrets.token_hex(8)
