"""`tinywindow doctor` on the paper venue: no book, a sound one, one that lies, one that is none."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinywindow.exchanges.paper import PaperExchange, PriceBoard
from tinywindow.runtime import PAPER_BOOK
from tinywindow.safety.services.clock import SystemClock

Cli = Callable[..., Any]


@pytest.fixture
def book(store: Path, data_dir: Path) -> Path:
    """A paper venue's book with nothing but its opening cash."""

    async def make() -> None:
        async with PaperExchange(
            data_dir / PAPER_BOOK, PriceBoard(), clock=SystemClock()
        ) as exchange:
            await exchange.account()

    asyncio.run(make())
    return data_dir / PAPER_BOOK


def changed(book: Path, statement: str) -> None:
    connection = sqlite3.connect(book)
    connection.execute(statement)
    connection.commit()
    connection.close()


def found(cli: Cli, code: int) -> dict[str, Any]:
    answer = cli("doctor", "--json")
    assert answer.code == code, answer
    (finding,) = (one for one in answer.document["findings"] if one["subject"] == "venue")
    return dict(finding)


def test_without_a_book_the_doctor_notes_it_and_makes_none(
    cli: Cli, store: Path, data_dir: Path
) -> None:
    finding = found(cli, 0)
    assert finding["level"] == "NOTE"
    assert "no book yet" in finding["what"]
    assert not (data_dir / PAPER_BOOK).exists()


def test_a_book_that_adds_up_is_well_and_stays_as_it_is(
    cli: Cli, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYWINDOW_RUN__VENUE", "paper-2")
    before = book.read_bytes()
    finding = found(cli, 0)
    assert finding["level"] == "OK"
    assert finding["what"].startswith("paper-2: its book adds up")
    assert book.read_bytes() == before


def test_a_book_that_does_not_add_up_is_wrong(cli: Cli, book: Path) -> None:
    changed(book, "UPDATE account SET cash = '19999'")
    finding = found(cli, 1)
    assert finding["level"] == "WRONG"
    assert "cash 19999 less the cost 0 of perpetuals is not 20000" in finding["what"]
    assert "restore" in finding["mend"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE account SET cash = 'much'",
        "DELETE FROM account",
        "DROP TABLE fill",
        "INSERT INTO holding (symbol, amount, cost) VALUES ('BTC', '1', '1')",
        None,
    ],
)
def test_a_book_that_cannot_be_read_is_wrong(cli: Cli, book: Path, damage: str | None) -> None:
    if damage is None:
        book.write_bytes(b"this is no book, and far from being one" * 50)
    else:
        changed(book, damage)
    finding = found(cli, 1)
    assert finding["level"] == "WRONG"
    assert "cannot be read" in finding["what"]
    assert "restore" in finding["mend"]
