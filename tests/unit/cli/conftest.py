"""The command line in-process: words in, exit code and both streams out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from postgres import durable_postgres_server, durable_url, postgres_server, postgres_url
from valkey import shared_valkey, valkey

from tinywindow.cli.entry import main

__all__ = [
    "durable_postgres_server",
    "durable_url",
    "postgres_server",
    "postgres_url",
    "shared_valkey",
    "valkey",
]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        (line,) = self.out.splitlines()
        return json.loads(line)


Cli = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _bare_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in tuple(os.environ):
        if name.upper().startswith("TINYWINDOW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYWINDOW_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    yield
    structlog.reset_defaults()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: str) -> Answer:
        capsys.readouterr()
        code = main(list(words))
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run


@pytest.fixture
def store(cli: Cli, data_dir: Path) -> Path:
    """A database with its schema."""
    assert cli("db", "upgrade").code == 0
    return data_dir / "tinywindow.db"


@pytest.fixture
def candles(tmp_path: Path) -> Path:
    """A file whose closes fall through both limits of the breaker."""
    closes = (100, 99, 91, 89, 84, 95)
    lines = ["timestamp_ms,open,high,low,close,volume"]
    lines += [f"{i * 60_000},{c},{c},{c},{c},1" for i, c in enumerate(closes)]
    path = tmp_path / "BTCUSDT_test.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
