"""Two paper accounts on one database: under one name the second is refused, under two both work."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from program import SOAK, Said, forked, query, tinywindow_forked, wait_for
from tinywindow.safety.domain.records import Position
from tinywindow.safety.services.context import SafetyContext, open_context
from tinywindow.safety.services.location import locate
from venue_race import race

pytestmark = pytest.mark.timeout(120)

QUICK = {"TINYWINDOW_RUN__CYCLE_INTERVAL": "0.1", "TINYWINDOW_RUN__SCENARIO": "calm"}
RUN = ("run", "--no-api", "--strategy", "hold")


@pytest.fixture(params=["sqlite", "postgresql"] if SOAK else ["postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shared.db'}"
    return str(request.getfixturevalue("durable_url"))


@contextlib.contextmanager
def bot(database: str, place: Path, **more: str) -> Iterator[BaseProcess]:
    place.mkdir(exist_ok=True)
    environ = surroundings(database, place, **more)
    process = forked(*RUN, log=place / "log", environ=environ)
    try:
        yield process
    finally:
        process.terminate()
        process.join(20)
        process.kill()
        process.join()


def surroundings(database: str, place: Path, **more: str) -> dict[str, str]:
    named = {f"TINYWINDOW_{name}": value for name, value in more.items()}
    return {
        "TINYWINDOW_DATABASE": database,
        "TINYWINDOW_DATA_DIR": str(place),
        **QUICK,
        **named,
    }


def coins(place: Path) -> dict[str, str]:
    """What an account holds, by its own book."""
    book = place / "paper.db"
    if not book.exists() or not query(book, "SELECT 1 FROM sqlite_master WHERE name = 'holding'"):
        return {}
    return dict(query(book, "SELECT symbol, amount FROM holding WHERE amount <> '0'"))


def ledger(database: str, place: Path) -> dict[str, dict[str, str]]:
    """The positions that the database keeps, by venue."""

    async def look() -> dict[Any, Position]:
        context: SafetyContext = await open_context(locate(database, data_dir=place))
        try:
            return await context.store.read(lambda tx: dict(tx.book().positions))
        finally:
            await context.store.close()

    found: dict[str, dict[str, str]] = {}
    for key, position in asyncio.run(look()).items():
        if position.amount:
            found.setdefault(key.venue, {})[key.symbol] = str(position.amount)
    return found


def command(database: str, place: Path, *words: str, **more: str) -> Said:
    place.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in tuple(os.environ):
            if name.startswith("TINYWINDOW_"):
                patch.delenv(name)
        return tinywindow_forked(
            *words, folder=place, environ=surroundings(database, place, **more)
        )


def test_under_one_name_the_second_account_is_refused_and_the_first_untouched(
    database: str, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with bot(database, one):
        wait_for(lambda: coins(one), "the first buys")
        wait_for(lambda: ledger(database, tmp_path).get("paper") == coins(one), "it is booked")
        held = coins(one)
        with bot(database, two) as second:
            second.join(20)
            assert second.exitcode == 2
        assert "the database knows another account under this name" in (two / "log").read_text()
        assert coins(two) == {}
        # What was booked as closed would stay so; what the first buys meanwhile is booked too.
        wait_for(
            lambda: (
                held.items() <= ledger(database, tmp_path)["paper"].items()
                and ledger(database, tmp_path) == {"paper": coins(one)}
            ),
            "the first's positions stand",
            timeout_s=10,
        )
        # Nor is it waited for in vain: an account that was looked at by nobody is not called flat.
        said = command(
            database, two, "kill", "--mode", "CLOSE_POSITIONS", "--reason", "x", "--wait", "--json"
        )
        assert (said.code, said.document["flat"]) == (1, False)
        assert "another account" in said.document["error"]
        assert coins(one) == {}


def test_under_two_names_both_trade_and_both_are_proven_flat(database: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with bot(database, one, RUN__VENUE="one"), bot(database, two, RUN__VENUE="two"):
        places = {"one": one, "two": two}
        wait_for(lambda: coins(one) and coins(two), "both buy")
        wait_for(lambda: set(ledger(database, tmp_path)) == set(places), "both are booked")
        said = command(
            database, one, "kill", "--mode", "CLOSE_POSITIONS", "--reason", "x", "--wait", "--json",
            RUN__VENUE="one",
        )  # fmt: skip
        assert (said.code, said.document["flat"]) == (0, True), said
        assert {name: v["state"] for name, v in said.document["venues"].items()} == {
            "one": "FLAT",
            "two": "FLAT",
        }
        assert (coins(one), coins(two)) == ({}, {})
        assert ledger(database, tmp_path) == {}


async def test_of_two_first_contacts_at_once_one_is_refused_by_any_database(
    database: str, tmp_path: Path
) -> None:
    await race(database, tmp_path)
