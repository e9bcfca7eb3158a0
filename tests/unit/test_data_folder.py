"""Whose a data directory is: a replay's times are the market's, and may mix with no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinywindow.data_folder import REPLAY_MARK, claim_folder, default_folder, is_replay
from tinywindow.safety.errors import ConfigurationError

FILES = [Path("here/BTCUSDT_1m.csv"), Path("ETHUSDT_1m.csv.gz")]


def test_a_directory_is_made_for_trading_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "data"
    claim_folder(folder, replay=[])
    claim_folder(folder, replay=[])
    assert folder.stat().st_mode & 0o077 == 0
    assert not is_replay(folder)


def test_a_replays_directory_is_marked_and_takes_the_same_files_again(tmp_path: Path) -> None:
    claim_folder(tmp_path / "data", replay=FILES)
    claim_folder(tmp_path / "data", replay=list(reversed(FILES)))
    assert is_replay(tmp_path / "data")


def test_a_replays_directory_serves_no_trading_and_no_other_files(tmp_path: Path) -> None:
    claim_folder(tmp_path, replay=FILES)
    with pytest.raises(ConfigurationError, match="belongs to a replay, whose times"):
        claim_folder(tmp_path, replay=[])
    with pytest.raises(ConfigurationError, match=r"replay of BTCUSDT_1m\.csv, ETHUSDT"):
        claim_folder(tmp_path, replay=FILES[:1])


@pytest.mark.parametrize("name", ["tinywindow.db", "paper.db"])
def test_no_replay_writes_into_a_database_of_real_time(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigurationError, match="database of real time"):
        claim_folder(tmp_path, replay=FILES)
    assert not is_replay(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "7", "{}"])
def test_a_mark_that_cannot_be_read_is_still_a_mark(tmp_path: Path, text: str) -> None:
    (tmp_path / REPLAY_MARK).write_text(text)
    with pytest.raises(ConfigurationError, match="replay of other files"):
        claim_folder(tmp_path, replay=FILES)
    with pytest.raises(ConfigurationError):
        claim_folder(tmp_path, replay=[])


def test_a_replay_that_nobody_gives_a_directory_goes_beside_the_one_for_trading() -> None:
    assert default_folder(Path("/somewhere/tinywindow")) == Path("/somewhere/tinywindow-replay")
