"""The doorbell from what a caller passed as its Redis; nothing that was passed is ignored."""

from __future__ import annotations

from typing import Final, cast

from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.ports import Doorbell

__all__ = ["doorbell_for"]

_METHODS: Final = ("look", "ring", "silence", "close")


def doorbell_for(redis_client: object) -> Doorbell | None:
    """The doorbell on a Redis; None where there is no shared Redis.

    Args:
        redis_client: None, a URL, a `redis.asyncio` client (it supplies the connection's
            settings only), or a `Doorbell`.

    Raises:
        ConfigurationError: a synchronous client, or an object of another kind.
    """
    if redis_client is None:
        return None
    if all(callable(getattr(redis_client, name, None)) for name in _METHODS[:3]):
        return cast("Doorbell", redis_client)
    modules = [base.__module__ for base in type(redis_client).__mro__]
    if isinstance(redis_client, str) or any(
        module.startswith("redis.asyncio") for module in modules
    ):
        from tinywindow.safety.stores.redis import RedisDoorbell  # noqa: PLC0415 - loads redis

        return RedisDoorbell.at(redis_client)
    if any(module.split(".")[0] == "redis" for module in modules):
        raise ConfigurationError(
            f"redis_client: {type(redis_client).__name__} is a synchronous client, which would "
            "block the event loop; use the one from redis.asyncio"
        )
    raise ConfigurationError(
        "redis_client must be a redis.asyncio client, a URL or None, "
        f"not a {type(redis_client).__name__}"
    )
