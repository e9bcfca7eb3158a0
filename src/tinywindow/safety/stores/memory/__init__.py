"""The reference model: a store in plain Python, for the tests of TinyWindow and of its users."""

from __future__ import annotations

from tinywindow.safety.stores.memory.store import MemoryDatabase, MemoryStore

__all__ = ["MemoryDatabase", "MemoryStore"]
