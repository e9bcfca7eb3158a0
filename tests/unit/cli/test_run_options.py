"""The options of `tinywindow run`: over the environment, and what has no effect yet."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    """A run that ends by itself: the replay of a calm market."""
    rows = [f"{60_000 * n},100,100,100,100,1" for n in range(3)]
    candles = tmp_path / "BTCUSDT_1m.csv"
    candles.write_text("\n".join(["timestamp_ms,open,high,low,close,volume", *rows]) + "\n")
    return ("run", "--replay", str(candles), "--speed", "max", "--exit-at-end", "--json")


@pytest.fixture
def replay(cli: Cli, words: tuple[str, ...], tmp_path: Path) -> Cli:
    """Run it on a data directory of the given name, and give the summary."""

    def run(name: str, *more: str) -> Any:
        answer = cli(*words, "--data-dir", str(tmp_path / name), *more)
        assert answer.code == 0, answer
        return answer.document

    return run


def test_the_option_balance_goes_before_the_environment_and_the_file(
    replay: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert replay("default")["equity"]["first"] == "20000"
    (tmp_path / "tinywindow.toml").write_text("[run]\nbalance = 900\n")
    assert replay("file")["equity"]["first"] == "900"
    monkeypatch.setenv("TINYWINDOW_RUN__BALANCE", "700")
    assert replay("environment")["equity"]["first"] == "700"
    assert replay("option", "--balance", "500")["equity"]["first"] == "500"


def test_an_account_that_exists_keeps_what_it_has(replay: Cli, tmp_path: Path) -> None:
    replay("one", "--balance", "500")
    replay("one", "--balance", "9000")
    connection = sqlite3.connect(tmp_path / "one" / "paper.db")
    assert connection.execute("SELECT opening_cash FROM account").fetchone() == ("500",)
    connection.close()


@pytest.mark.parametrize("balance", ["0", "-5", "nan", "inf", "1,000", "much", ""])
def test_a_balance_is_held_against_the_rule_of_its_setting(
    cli: Cli, words: tuple[str, ...], data_dir: Path, balance: str
) -> None:
    answer = cli(*words, "--balance", balance)
    assert answer.code == 2
    (sentence,) = (answer.document["error"], *answer.document["violations"])
    assert sentence.startswith("run.balance: ")
    assert "US dollars above 0" in sentence
    assert not data_dir.exists()


def test_options_are_laid_over_the_file_that_is_named_and_no_other(
    replay: Cli, tmp_path: Path
) -> None:
    (tmp_path / "tinywindow.toml").write_text("[run]\nbalance = 900\n")
    (tmp_path / "named.toml").write_text("")
    summary = replay("named", "--config", str(tmp_path / "named.toml"), "--seed", "2")
    assert summary["equity"]["first"] == "20000"


def test_the_help_says_that_there_is_no_api_yet(cli: Cli) -> None:
    said = " ".join(cli("run", "--help").out.split())
    assert said.count("no effect yet: this version has") == 2
    assert "--balance USD" in said


def test_what_has_no_effect_yet_is_accepted(replay: Cli) -> None:
    assert replay("both", "--port", "0", "--no-api")["moments"] == 3
