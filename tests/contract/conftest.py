"""One suite over every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from postgres import installed, installed_postgres, installed_url, postgres_server, postgres_url
from store_worlds import World

from tinywindow.safety.ports import Store

__all__ = ["installed_postgres", "installed_url", "postgres_server", "postgres_url"]

WORLDS = {"memory": "", "sqlite-file": "", "sqlite-inline": "", "postgres": "postgres_url"}
if installed() is not None:
    WORLDS["installed-postgres"] = "installed_url"


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    # Asked for by name, so that only its own tests need a server.
    server = WORLDS[request.param]
    url = request.getfixturevalue(server) if server else ""
    made = World("postgres" if server else request.param, tmp_path, url)
    yield made
    await made.close()


@pytest.fixture
async def store(world: World) -> Store:
    return await world.open()


@pytest.fixture
async def sqlite_world(tmp_path: Path) -> AsyncIterator[World]:
    """A file with a thread: what only a real database can show."""
    made = World("sqlite-file", tmp_path)
    yield made
    await made.close()
