"""The file KILL: any content stops, garbage never closes, and nothing newer is ever removed."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.services.kill_file import KillFile
from tinywindow.safety.stores import fast_files
from tinywindow.safety.stores.latch_fields import activation_draft

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HALT, CLOSE = KillSwitchMode.HALT_ONLY, KillSwitchMode.CLOSE_POSITIONS


def latch(latch_id: str, mode: KillSwitchMode = HALT) -> Latch:
    return Latch(latch_id, mode, "why", "who", LatchSource.CLI, NOW)


@pytest.fixture
def kill_file(tmp_path: Path) -> KillFile:
    return KillFile(tmp_path / "data" / "KILL")


def test_what_is_written_is_read_back_and_joined(kill_file: KillFile) -> None:
    assert not kill_file.exists()
    assert kill_file.read() == ()
    kill_file.write([latch("a", CLOSE)])
    kill_file.write([latch("b")])
    assert kill_file.exists()
    assert {found.id: found.mode for found in kill_file.read()} == {"a": CLOSE, "b": HALT}
    assert latch("a", CLOSE) in kill_file.read()


def test_latches_can_be_dropped_while_others_are_written(kill_file: KillFile) -> None:
    kill_file.write([latch("a")])
    kill_file.write([latch("b")], drop=["a"])
    assert [found.id for found in kill_file.read()] == ["b"]


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (b"", HALT),
        (b"0", HALT),
        (b"false", HALT),
        (b"CLOSE_POSITIONS", CLOSE),
        (b"CLOSE_POSITIONS\n", CLOSE),
        (b"close_positions", HALT),
        (b"please CLOSE_POSITIONS", HALT),
        (b'{"mode": "CLOSE_POSITIONS"}', CLOSE),
        (b'{"mode": "HALT_ONLY"}', HALT),
        (b'{"mode": 5}', HALT),
        (b'"CLOSE_POSITIONS"', HALT),
        (b"[" * 60_000, HALT),
        (b"\xff\x00\xfe", HALT),
        (b"CLOSE_POSITIONS" + b" " * 10_000_000, HALT),
        (b'{"tinywindow": 1, "latches": [{"id": "x"}]}', HALT),
        (b'{"tinywindow": 1, "mode": "CLOSE_POSITIONS", "latches": []}', CLOSE),
    ],
)
def test_foreign_content_is_one_latch_and_only_clear_words_close(
    kill_file: KillFile, content: bytes, mode: KillSwitchMode
) -> None:
    kill_file.path.parent.mkdir()
    kill_file.path.write_bytes(content)
    first, again = kill_file.read(), kill_file.read()
    assert first == again
    assert [found.mode for found in first] == [mode]
    assert first[0].source is LatchSource.FILE


@given(st.binary(max_size=200))
def test_any_bytes_stop(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("kill") / "KILL"
    path.write_bytes(content)
    assert len(KillFile(path).read()) == 1


def test_a_file_made_again_by_hand_is_another_stop(kill_file: KillFile) -> None:
    kill_file.path.parent.mkdir()
    kill_file.path.write_text("x")
    first = kill_file.read()[0].id
    os.utime(kill_file.path, ns=(1, 1))
    assert kill_file.read()[0].id != first


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_stops_too(kill_file: KillFile, kind: str) -> None:
    kill_file.path.parent.mkdir()
    if kind == "folder":
        kill_file.path.mkdir()
    else:
        os.mkfifo(kill_file.path)
    assert kill_file.exists()
    assert [found.mode for found in kill_file.read()] == [HALT]


def test_what_cannot_be_told_counts_as_a_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    beneath_a_file = KillFile(tmp_path / "file" / "KILL")
    assert beneath_a_file.exists()
    assert [found.mode for found in beneath_a_file.read()] == [HALT]


def test_writing_over_foreign_content_keeps_its_identity(kill_file: KillFile) -> None:
    kill_file.path.parent.mkdir()
    kill_file.path.write_text("CLOSE_POSITIONS")
    foreign = kill_file.read()[0]
    kill_file.write([latch("a")])
    assert {found.id for found in kill_file.read()} == {"a", foreign.id}
    kill_file.write([])
    assert {found.id: found.mode for found in kill_file.read()}[foreign.id] is CLOSE


def test_it_is_removed_when_all_it_names_is_released(kill_file: KillFile) -> None:
    assert kill_file.remove([])
    kill_file.write([latch("a"), latch("b")])
    assert not kill_file.remove(["a"])
    assert [found.id for found in kill_file.read()] == ["b"]
    assert kill_file.remove(["a", "b"])
    assert not kill_file.exists()
    assert kill_file.remove(["a"])


def test_newer_content_stays_when_an_older_stop_is_released(kill_file: KillFile) -> None:
    kill_file.write([latch("a")])
    kill_file.path.write_text("a human was here")
    assert not kill_file.remove(["a"])
    assert kill_file.path.read_text() == "a human was here"


def test_content_that_changes_during_the_release_stays(
    kill_file: KillFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_file.write([latch("a")])
    rename = os.rename

    def meddle(source: str, target: str) -> None:
        if str(target).endswith(".released"):
            Path(source).write_text("newer")
        rename(source, target)

    monkeypatch.setattr(os, "rename", meddle)
    assert not kill_file.remove(["a"])
    monkeypatch.undo()
    assert kill_file.path.read_text() == "newer"


def test_a_stop_does_not_wait_for_a_lock_that_is_held(kill_file: KillFile) -> None:
    kill_file.write([latch("a")])
    with Path(f"{kill_file.path}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        kill_file.write([latch("b")])
        assert {found.id for found in kill_file.read()} == {"a", "b"}
        with pytest.raises(TimeoutError):
            kill_file.remove(["a", "b"])
    assert kill_file.exists()


def test_a_write_that_fails_leaves_what_stood(
    kill_file: KillFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_file.write([latch("a")])

    def full(_handle: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        kill_file.write([latch("b")])
    monkeypatch.undo()
    assert [found.id for found in kill_file.read()] == ["a"]
    assert not list(kill_file.path.parent.glob("*.tmp"))


def test_it_names_a_bounded_number_of_stops_the_closing_ones_first(kill_file: KillFile) -> None:
    kill_file.write([latch("close", CLOSE)])
    kill_file.write([latch(f"n{number}") for number in range(fast_files.LATCHES_MAX + 5)])
    names = {found.id for found in kill_file.read()}
    assert len(names) == fast_files.LATCHES_MAX
    assert "close" in names


def test_the_file_reads_as_json_of_ours(kill_file: KillFile) -> None:
    kill_file.write([latch("a")])
    body = json.loads(kill_file.path.read_text())
    assert body["tinywindow"] == 1
    assert body["latches"][0]["id"] == "a"


def test_a_link_that_leads_nowhere_is_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "KILL"
    path.symlink_to(tmp_path / "nowhere")

    assert KillFile(path).exists()
    assert [latch.mode for latch in KillFile(path).read()] == [KillSwitchMode.HALT_ONLY]


@pytest.mark.parametrize("text", ["a NUL \x00", "a lone \ud800 surrogate"])
@pytest.mark.parametrize("name", ["id", "reason", "actor"])
def test_a_latch_whose_texts_no_store_can_hold_is_none_of_ours(name: str, text: str) -> None:
    fields = {"id": "K1", "mode": "HALT_ONLY", "reason": "r", "actor": "a", "source": "CLI"}
    assert fast_files.is_latch({**fields, "activated_ms": 1})
    assert not fast_files.is_latch({**fields, "activated_ms": 1, name: text})


def test_the_row_of_a_latch_with_a_long_name_has_an_id_that_fits_and_is_its_own() -> None:
    ids = [activation_draft(latch(name)).id for name in ("K1", "x" * 64, "x" * 63 + "y")]
    assert ids[0] == "activate-K1"
    assert len(set(ids)) == 3
    assert all(len(one) <= 64 for one in ids)
