"""A fleet that is ended with its test, and servers of its own that may be killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet
from postgres import PostgresServer
from valkey import Valkey, running


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "fleet")
    made.folder.mkdir()
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    with running() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    server = PostgresServer(durable=True)
    try:
        server.start()
        server.make_template()
        yield server
    finally:
        server.remove()
