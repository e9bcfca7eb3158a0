"""Foreign exchanges made ours: adapters are found by entry point, so others can add venues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Final

from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.ports import Exchange

__all__ = ["ADAPTER_GROUP", "adapt", "adapt_all"]

ADAPTER_GROUP: Final = "tinywindow.exchange_adapters"
"""Entry points of this group are functions `(object, name | None) -> Exchange | None`."""


def adapt(exchange: object, name: str | None = None) -> Exchange:
    """Give an exchange of ours as it is, and wrap a foreign one.

    Raises:
        ConfigurationError: it is synchronous, or no adapter knows its kind.
    """
    if isinstance(exchange, type):
        raise ConfigurationError(f"exchanges: {exchange.__name__} is a class; pass an instance")
    if isinstance(exchange, Exchange):
        return exchange
    modules = [base.__module__ for base in type(exchange).__mro__]
    ours = any(m.startswith(("ccxt.async_support", "ccxt.pro")) for m in modules)
    if not ours and any(m == "ccxt" or m.startswith("ccxt.") for m in modules):
        raise ConfigurationError(
            f"exchanges: {type(exchange).__name__} is a synchronous ccxt instance, which would "
            "block the event loop; use the one from ccxt.async_support"
        )
    for entry in entry_points(group=ADAPTER_GROUP):
        adapted = entry.load()(exchange, name)
        if adapted is not None:
            if not isinstance(adapted, Exchange):
                raise ConfigurationError(f"exchanges: the adapter {entry.name} made no exchange")
            return adapted
    raise ConfigurationError(
        f"exchanges: no adapter takes a {type(exchange).__name__}; wanted one of TinyWindow's "
        f"exchanges, or an object that an adapter in the group {ADAPTER_GROUP} knows"
    )


def adapt_all(exchanges: object) -> dict[str, Exchange]:
    """Read a mapping from names to exchanges, or a list of exchanges that know their names.

    Raises:
        ConfigurationError: something in it is no exchange, or two have one name.
    """
    if exchanges is None:
        return {}
    if isinstance(exchanges, Mapping):
        named = [(str(name), adapt(item, str(name))) for name, item in exchanges.items()]
        return dict(named)
    if isinstance(exchanges, str) or not isinstance(exchanges, Sequence):
        raise ConfigurationError(
            f"exchanges must be a mapping or a list, not a {type(exchanges).__name__}"
        )
    adapted = [adapt(item) for item in exchanges]
    names = [exchange.name for exchange in adapted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"exchanges: more than one is named {', '.join(twice)}; pass a mapping with names"
        )
    return dict(zip(names, adapted, strict=True))
