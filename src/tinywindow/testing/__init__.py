"""Tools for tests, ours and yours: nothing else in TinyWindow imports them."""

from __future__ import annotations

from tinywindow.testing.scripted_exchange import Fault, ScriptedExchange

__all__ = ["Fault", "ScriptedExchange"]
