"""`db adopt-venue`: a name whose account is lost is given free, by name and on the record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinywindow.safety.domain.venue_account import KnownAccount, account_key
from tinywindow.safety.services.context import open_context
from tinywindow.safety.services.location import locate

Cli = Callable[..., Any]
ADOPT = ("db", "adopt-venue", "paper", "--by", "Ada", "--reason", "the disk is gone")


@pytest.fixture
def known(store: Path) -> Path:
    """A database that knows an account under the name, whose process is long gone."""

    async def put() -> None:
        context = await open_context(locate(store))
        text = KnownAccount("lost", "default").to_text()
        await context.store.transact(lambda tx: tx.put_document(account_key("paper"), text))
        await context.close()

    asyncio.run(put())
    return store


def test_it_is_refused_while_trading_runs_and_audited_when_it_is_done(
    cli: Cli, known: Path
) -> None:
    refused = cli(*ADOPT)
    assert refused.code == 1
    assert "trading must be stopped" in refused.err
    assert cli("stop").code == 0
    done = cli(*ADOPT, "--json")
    assert (done.code, done.document) == (0, {"venue": "paper", "free": True})
    row = cli("audit", "tail", "-n", "1", "--json").document[0]
    assert (row["event_type"], row["actor"]) == ("VENUE_ACCOUNT_SET", "Ada")
    assert "the disk is gone" in str(row["data"])
    assert cli("status", "--json").document["trading"] == "STOPPED"
    again = cli(*ADOPT)
    assert (again.code, "no account" in again.err) == (1, True)


@pytest.mark.parametrize("blank", ["--by", "--reason"])
def test_nobody_and_no_reason_are_wrong_usage(cli: Cli, known: Path, blank: str) -> None:
    assert cli(*ADOPT, blank, "  ").code == 2


def test_a_run_in_another_directory_is_told_what_to_do(
    cli: Cli, known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYWINDOW_DATABASE", f"sqlite:///{known}")
    for json in ((), ("--json",)):
        said = cli("run", "--no-api", "--data-dir", str(tmp_path / "other"), *json)
        assert said.code == 2
        assert "tinywindow db adopt-venue paper" in said.err
