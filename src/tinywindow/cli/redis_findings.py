"""What `doctor` says of the shared Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from tinywindow.cli.findings import Finding, Level
from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.services.doorbells import doorbell_for
from tinywindow.safety.services.redis_advice import Advice, Asked, advise

__all__ = ["redis"]


def redis(url: str | None) -> Iterator[Finding]:
    """The Redis that is configured, if one is: reachable, safe settings, and who is there."""
    if url is None:
        yield Finding("redis", Level.OK, "none is configured")
        return
    try:
        advices = asyncio.run(_ask(url))
    except ConfigurationError as error:
        yield Finding("redis", Level.WRONG, str(error), "mend the setting `redis`")
        return
    for advice in advices:
        level = Level.WRONG if advice.grave else Level.NOTE if advice.mend else Level.OK
        yield Finding("redis", level, advice.what, advice.mend)


async def _ask(url: str) -> list[Advice]:
    bell = doorbell_for(url)
    asked: object = bell
    if bell is None or not isinstance(asked, Asked):
        return []
    try:
        return [advice async for advice in advise(asked)]
    finally:
        await bell.close()
