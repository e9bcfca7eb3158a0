"""One suite over every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from store_worlds import World

from tinywindow.safety.ports import Store


@pytest.fixture(params=["memory", "sqlite-file", "sqlite-inline"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made = World(request.param, tmp_path)
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
