"""The worker's own Valkey, for the tests of this folder."""

from __future__ import annotations

from valkey import shared_valkey, valkey

__all__ = ["shared_valkey", "valkey"]
