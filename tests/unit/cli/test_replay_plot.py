"""`tinywindow replay --plot`: the picture that the command makes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def size(picture: Path) -> tuple[int, int]:
    """Width and height of a PNG file, in pixels, as its header says them."""
    raw = picture.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    assert raw[12:16] == b"IHDR"
    width, height = struct.unpack(">II", raw[16:24])
    return width, height


def test_replay_draws_a_picture_for_a_report(cli: Cli, candles: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "out.png"
    answer = cli("replay", str(candles), "--plot", str(picture))
    assert answer.code == 0, answer
    assert f"The picture is in {picture}." in answer.out
    width, height = size(picture)
    assert width >= 1000
    assert height >= 500
    assert picture.stat().st_size > 10_000


def test_two_files_make_one_picture_twice_as_high(cli: Cli, candles: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    assert cli("replay", str(candles), "--plot", str(one), "--json").code == 0
    answer = cli("replay", str(candles), str(candles), "--plot", str(two), "--json")
    assert len(answer.document) == 2
    assert size(two) == (size(one)[0], 2 * size(one)[1])


def test_a_picture_that_cannot_be_written_is_exit_code_two(
    cli: Cli, candles: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    answer = cli("replay", str(candles), "--plot", str(tmp_path / "none" / "out.png"))
    assert answer.code == 2
    assert "the picture cannot be written" in answer.err
