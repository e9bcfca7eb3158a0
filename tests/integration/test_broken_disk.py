"""A full or read-only disk, and files of garbage: refused, said, and never traded on."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from program import (
    FORKS,
    SOAK,
    audit,
    audit_faults,
    candles,
    placements,
    query,
    tinywindow_forked,
)
from tinywindow.cli.logs import logs_to_stderr
from tinywindow.safety import KillSwitch, PositionLimitEnforcer

pytestmark = pytest.mark.timeout(120)

ORDER = {"symbol": "BTC/USDT", "side": "BUY", "amount": "0.01", "type": "MARKET"}


async def _prepared(limits: PositionLimitEnforcer) -> None:
    await limits.record_equity(20_000)
    await limits.set_reference_price("BTC/USDT", 100)


def _no_file_may_grow(database: str, answer: str) -> None:
    """Every write to a file fails, as on a full disk; sockets and pipes go on."""

    async def work() -> dict[str, Any]:
        path = Path(database)
        async with (
            KillSwitch(None, (), path) as switch,
            PositionLimitEnforcer(path) as limits,
        ):
            await _prepared(limits)
            first = await limits.check_order_allowed(ORDER)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            refused = [await limits.check_order_allowed(ORDER) for _ in range(3)]
            report = await switch.activate("HALT_ONLY", "the disk is full", actor="test")
            stopped = await switch.is_active()
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, resource.RLIM_INFINITY))
            after = await limits.check_order_allowed(ORDER)
            status = await switch.get_status()
            return {
                "first": first.allowed,
                "refused": [str(one.reason_code) for one in refused],
                "durable": report.durable,
                "errors": len(report.errors),
                "stopped": stopped,
                "after": str(after.reason_code),
                "active": status.active,
            }

    # The log is a file on the same disk, which fills up as well.
    handle = os.open(answer + ".log", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(handle, 2)
    logs_to_stderr()
    told = asyncio.run(work())
    Path(answer).write_text(json.dumps(told))


def test_on_a_full_disk_entries_are_refused_and_a_stop_stops(tmp_path: Path) -> None:
    database, answer = tmp_path / "tinywindow.db", tmp_path / "answer"
    process = FORKS.Process(
        target=_no_file_may_grow, args=(str(database), str(answer)), daemon=True
    )
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 0
    told = json.loads(answer.read_text())
    assert told["first"] is True
    assert told["refused"] == ["STATE_UNKNOWN"] * 3
    # Nothing could be written, and the report says so; this process stops all the same.
    assert told["durable"] is False
    assert told["errors"] >= 2
    assert told["stopped"] is True
    assert told["after"] == "KILL_SWITCH_ACTIVE"
    assert told["active"] is True
    assert len(audit(tmp_path, "ORDER_APPROVED")) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where mounting one is permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs {folder} 2>/dev/null") != 0:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    os.system(f"umount -l {folder}")


async def test_on_a_disk_that_fills_up_nothing_lies(small_disk: Path) -> None:
    database = small_disk / "tinywindow.db"
    async with PositionLimitEnforcer(database) as limits, KillSwitch(None, (), database) as switch:
        await _prepared(limits)
        allowed = [(await limits.check_order_allowed(ORDER)).client_order_id]
        with (small_disk / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(b"x" * 4096)
            except OSError:
                pass
        codes = set()
        for _ in range(200):
            result = await limits.check_order_allowed(ORDER)
            if result.allowed:
                allowed.append(result.client_order_id)
            else:
                codes.add(str(result.reason_code))
        assert codes == {"STATE_UNKNOWN"}, codes
        report = await switch.activate("HALT_ONLY", "the disk is full", actor="test")
        assert await switch.is_active()
        assert report.errors or report.durable
        refused = await limits.check_order_allowed(ORDER)
        assert refused.reason_code in {"KILL_SWITCH_ACTIVE", "STATE_UNKNOWN"}
        (small_disk / "ballast").unlink()
        # With room again, what was said to be held is held, and nothing else is.
        held = query(database, "SELECT client_order_id FROM orders WHERE state = 'HELD'")
        assert sorted(row[0] for row in held) == sorted(str(name) for name in allowed)
        assert (await limits.check_order_allowed(ORDER)).reason_code == "KILL_SWITCH_ACTIVE"
    assert audit_faults(small_disk) == []


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A data directory with a database, which can be read and not written."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    as_root = os.geteuid() == 0
    if as_root and os.system(f"mount -t tmpfs -o size=8m tmpfs {folder} 2>/dev/null") != 0:
        pytest.skip("root may write everywhere, and mounting is not permitted here")
    assert tinywindow_forked("db", "upgrade", "--data-dir", folder, folder=tmp_path).code == 0
    if as_root:
        assert os.system(f"mount -o remount,ro {folder}") == 0
    else:
        folder.chmod(0o555)
        for file in folder.iterdir():
            file.chmod(0o444)
    yield folder
    if as_root:
        os.system(f"umount -l {folder}")
    else:
        folder.chmod(0o700)


def test_a_read_only_directory_is_said_and_never_traded_in(read_only: Path, tmp_path: Path) -> None:
    said = tinywindow_forked("run", "--data-dir", read_only, "--json", folder=tmp_path)
    assert said.code == 3, said
    assert "Traceback" not in said.err
    said = tinywindow_forked("kill", "--reason", "x", "--data-dir", read_only, folder=tmp_path)
    assert said.code == 3, said
    assert "NOTHING WAS LATCHED" in said.err
    assert "Traceback" not in said.err
    assert not (read_only / "KILL").exists()


# --- garbage -------------------------------------------------------------------------------------


@pytest.fixture
def traded(tmp_path: Path) -> tuple[Path, list[str]]:
    """A data directory in which a replay traded; the words that go on with it."""
    short = candles(tmp_path / "BTCUSDT_chop.csv.gz", price=60_000, bars=60, seed=6)
    data_dir = tmp_path / "data"
    words = ["run", "--replay", str(short), "--strategy", "momentum", "--speed", "max"]
    words += ["--exit-at-end", "--json", "--data-dir", str(data_dir)]
    said = tinywindow_forked(*words, folder=tmp_path)
    assert said.code == 0, said.err
    assert placements(data_dir)
    # There is more market to come, so that a second start would trade on.
    candles(short, price=60_000, bars=160, seed=6)
    return data_dir, words


def test_what_was_traded_goes_on(traded: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Without this, every test below could pass for another reason."""
    data_dir, words = traded
    sent = len(placements(data_dir))
    said = tinywindow_forked(*words, folder=tmp_path)
    assert (said.code, said.document["moments"]) == (0, 100), said.err
    assert len(placements(data_dir)) > sent


def garbage() -> list[bytes]:
    rng = random.Random(11)
    made = [rng.randbytes(n) for n in (1, 100, 5_000)]
    made += [b"", b"\0" * 4096, b"{", b'{"tinywindow": 1, "latches": 7}', b"\xff\xfe" * 9]
    return made if SOAK else made[1:7]


def test_garbage_in_KILL_is_a_stop(traded: tuple[Path, list[str]]) -> None:
    data_dir, words = traded
    sent = len(placements(data_dir))
    (data_dir / "KILL").write_bytes(garbage()[0])
    said = tinywindow_forked(*words, folder=data_dir.parent)
    assert said.code == 0, said.err
    assert said.document["moments"] > 0
    assert said.document["orders"]["accepted"] == 0
    assert len(placements(data_dir)) == sent
    status = tinywindow_forked(
        "status", "--json", "--data-dir", data_dir, folder=data_dir.parent
    ).document
    assert status["kill_switch"]["mode"] == "HALT_ONLY"


async def test_garbage_beside_the_database_is_no_yes(tmp_path: Path) -> None:
    """`KILL`, journal and anchor with every kind of content: a stop, history, or a refusal."""
    for n, content in enumerate(garbage()):
        folder = tmp_path / str(n)
        folder.mkdir()
        database = folder / "tinywindow.db"
        async with PositionLimitEnforcer(database) as limits:
            await _prepared(limits)
            assert (await limits.check_order_allowed(ORDER)).allowed
            # In the last look and in the transaction, whatever it holds.
            (folder / "KILL").write_bytes(content)
            result = await limits.check_order_allowed(ORDER)
            assert result.reason_code == "KILL_SWITCH_ACTIVE", content
        async with KillSwitch(None, (), database) as switch:
            assert (await switch.get_status()).mode == "HALT_ONLY", content

        # A journal of garbage is skipped line by line, and a stop behind it is still merged.
        (folder / "journal.jsonl").write_bytes(content + b"\n")
        said = tinywindow_forked("audit", "verify", "--data-dir", folder, folder=folder)
        assert said.code == 0, said.err
        (folder / "tinywindow.db.anchor").write_bytes(content)
        said = tinywindow_forked("audit", "verify", "--data-dir", folder, folder=folder)
        assert "Traceback" not in said.err, said.err
        assert said.code in {0, 1}


def test_an_anchor_that_cannot_be_read_refuses_entries(traded: tuple[Path, list[str]]) -> None:
    """Whoever can take a database back in time may as well have spoilt its anchor."""
    data_dir, words = traded
    sent = len(placements(data_dir))
    (data_dir / "tinywindow.db.anchor").write_bytes(random.Random(2).randbytes(300))
    said = tinywindow_forked(*words, folder=data_dir.parent)
    assert "Traceback" not in said.err, said.err
    assert said.document["orders"]["accepted"] == 0, said
    assert len(placements(data_dir)) == sent


def spoilt(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "random":
        path.write_bytes(random.Random(3).randbytes(len(content)))
    elif kind == "half":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "head":
        path.write_bytes(random.Random(4).randbytes(100) + content[100:])
    elif kind == "middle":
        where = 4096
        path.write_bytes(content[:where] + random.Random(5).randbytes(len(content) - where))
    else:
        path.unlink()
        path.mkdir()


KINDS = ("random", "half", "head", "middle", "folder") if SOAK else ("random", "half", "folder")


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoilt_database_is_never_traded_on(traded: tuple[Path, list[str]], kind: str) -> None:
    data_dir, words = traded
    sent = len(placements(data_dir))
    spoilt(data_dir / "tinywindow.db", kind)
    for command in (words, ["status", "--data-dir", str(data_dir)]):
        said = tinywindow_forked(*command, folder=data_dir.parent)
        assert said.code in {2, 3}, (command, said)
        assert "Traceback" not in said.err, said.err
        assert said.err.strip()
    verified = tinywindow_forked("audit", "verify", "--data-dir", data_dir, folder=data_dir.parent)
    assert verified.code in {1, 2, 3}, verified
    assert "Traceback" not in verified.err, verified.err
    assert len(placements(data_dir)) == sent
    said = tinywindow_forked(
        "kill", "--reason", "x", "--json", "--data-dir", data_dir, folder=data_dir.parent
    )
    assert said.document["latched"] is True
    assert said.code in {0, 3}


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoilt_paper_book_is_said_and_never_traded_on(
    traded: tuple[Path, list[str]], kind: str
) -> None:
    data_dir, words = traded
    approved = len(audit(data_dir, "ORDER_APPROVED"))
    spoilt(data_dir / "paper.db", kind)
    said = tinywindow_forked(*words, folder=data_dir.parent)
    assert "Traceback" not in said.err, said.err
    assert len(audit(data_dir, "ORDER_APPROVED")) == approved, said
    assert said.code in {0, 2, 3}
    if said.code == 0:
        # The market was watched, equity stayed unknown, and that was said.
        assert "paper book" in said.err
        assert said.document["orders"]["accepted"] == 0
