"""The paper venue's book: shared, durable, and in agreement with itself."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from paper_desk import FREE, PERP, SPOT, START, forked, held, place, run, venue

from tinywindow.exchanges.paper import PriceBoard, discrepancies
from tinywindow.safety.domain.venue import Accepted, ReportStatus
from tinywindow.safety.errors import VenueUnavailable

TRADER = Path(__file__).with_name("paper_trader.py")


def test_a_restart_finds_cash_positions_and_orders_as_they_were(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    place(exchange, "A", "BUY", "0.1")
    place(exchange, "B", "BUY", "0.1", price="40000")
    before = (run(exchange.account()), run(exchange.positions()), run(exchange.open_orders()))
    run(exchange.close())
    again = venue(tmp_path, opening_cash=Decimal(1))
    assert (run(again.account()), run(again.positions()), run(again.open_orders())) == before


def test_two_instances_on_one_file_see_each_others_changes(tmp_path: Path) -> None:
    one = venue(tmp_path)
    two = forked(one)
    place(one, "A", "BUY", "0.1")
    assert held(two) == {SPOT: Decimal("0.1")}
    place(two, "B", "SELL", "0.04")
    assert held(one) == {SPOT: Decimal("0.06")}
    assert run(two.find(SPOT, "A")) is not None


def test_an_instance_without_a_board_closes_at_the_prices_that_the_book_remembers(
    tmp_path: Path,
) -> None:
    one = venue(tmp_path)
    place(one, "A", "BUY", "0.1")
    one.board.set(SPOT, Decimal(40_000), START + timedelta(seconds=1))
    run(one.close())
    other = venue(tmp_path, board=PriceBoard())
    sold = place(other, "B", "SELL", "0.1")
    assert sold.report.average_price == 40_000
    assert held(other) == {}


def test_the_board_is_written_to_the_book_now_and_then(tmp_path: Path) -> None:
    one = venue(tmp_path)
    for _ in range(FREE.prices_kept_every):
        run(one.on_prices(START))
    other = venue(tmp_path, board=PriceBoard())
    assert isinstance(place(other, "A", "BUY", "0.1"), Accepted)


def test_the_newer_of_board_and_book_is_the_price(tmp_path: Path) -> None:
    old, new = PriceBoard(), PriceBoard()
    old.set(SPOT, Decimal(50_000), START)
    new.set(SPOT, Decimal(60_000), START + timedelta(seconds=1))
    first, second = venue(tmp_path, board=old), venue(tmp_path, board=new)
    place(second, "A", "BUY", "0.1")
    assert place(first, "B", "BUY", "0.1").report.average_price == 60_000


def test_closing_twice_does_no_harm_and_a_context_closes(tmp_path: Path) -> None:
    exchange = venue(tmp_path)

    async def use() -> None:
        async with exchange as entered:
            assert entered is exchange
        await exchange.close()

    run(use())
    assert held(exchange) == {}


def test_an_account_keeps_its_id_and_no_other_book_has_it(tmp_path: Path) -> None:
    exchange = venue(tmp_path)
    told = run(exchange.account_id())
    assert run(forked(exchange).account_id()) == told
    run(exchange.close())
    assert run(venue(tmp_path).account_id()) == told
    # Chance that follows from a seed would give two accounts of one seed one id.
    (tmp_path / "other").mkdir()
    assert run(venue(tmp_path / "other").account_id()) != told


def test_a_book_from_before_accounts_had_ids_is_given_one_and_keeps_the_rest(
    tmp_path: Path,
) -> None:
    exchange = venue(tmp_path)
    place(exchange, "A", "BUY", "0.1")
    before = (run(exchange.account()), run(exchange.positions()))
    run(exchange.close())
    with sqlite3.connect(exchange._path) as db:
        db.executescript("DROP TABLE identity; PRAGMA user_version = 1")
    db.close()
    again = venue(tmp_path)
    assert (run(again.account()), run(again.positions())) == before
    told = run(again.account_id())
    assert len(told) == 32
    run(again.close())
    assert run(venue(tmp_path).account_id()) == told


def test_a_book_of_another_version_is_not_touched(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "paper.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(VenueUnavailable, match="version 99"):
        run(venue(tmp_path).positions())


def test_threads_open_and_trade_on_one_new_book_without_losing_anything(tmp_path: Path) -> None:
    threads, orders = 8, 10
    together = threading.Barrier(threads)

    def trade(number: int) -> int:
        exchange = venue(tmp_path)
        together.wait()
        placed = [place(exchange, f"T{number}-{n}", "BUY", "0.001") for n in range(orders)]
        run(exchange.close())
        return sum(isinstance(one, Accepted) for one in placed)

    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(trade, range(threads))) == threads * orders
    assert held(venue(tmp_path)) == {SPOT: Decimal("0.08")}
    assert discrepancies(tmp_path / "paper.db") == ()


def test_threads_racing_with_one_id_place_it_once(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def trade(_: int) -> bool:
        exchange = venue(tmp_path)
        together.wait()
        return isinstance(place(exchange, "SAME", "BUY", "0.001"), Accepted)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(trade, range(8))) == 1
    assert held(venue(tmp_path)) == {SPOT: Decimal("0.001")}
    assert venue(tmp_path).placements() == {"SAME": 8}


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("UPDATE account SET cash = '1'", "cash 1"),
        ("UPDATE holding SET amount = '2'", "its fills add up to"),
        ("UPDATE holding SET amount = '-1'", "short"),
        ("UPDATE holding SET cost = '0'", "with a cost of 0"),
        ("UPDATE paper_order SET filled = '0.2'", "beyond its amount"),
        ("DELETE FROM placement", "never counted as sent"),
    ],
)
def test_what_does_not_add_up_is_found(tmp_path: Path, damage: str, finding: str) -> None:
    exchange = venue(tmp_path)
    place(exchange, "A", "BUY", "0.1")
    assert discrepancies(tmp_path / "paper.db") == ()
    with sqlite3.connect(tmp_path / "paper.db") as db:
        db.execute(damage)
    db.close()
    assert any(finding in sentence for sentence in discrepancies(tmp_path / "paper.db"))


def test_a_file_that_is_no_book_cannot_be_verified(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    with pytest.raises(VenueUnavailable):
        discrepancies(tmp_path / "junk")


@pytest.mark.crash
def test_a_killed_process_leaves_a_book_that_adds_up_and_sends_nothing_twice(
    tmp_path: Path,
) -> None:
    rng = Random(20)
    for round_number in range(6):
        child = subprocess.Popen(
            [sys.executable, str(TRADER), str(tmp_path), str(round_number)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"trading\n"
        time.sleep(rng.uniform(0.02, 0.4))
        child.send_signal(signal.SIGKILL)
        answered = {line.decode() for line in child.stdout.read().split(b"\n")[:-1]}
        child.stdout.close()
        child.wait()
        assert discrepancies(tmp_path / "paper.db") == ()
        exchange = venue(tmp_path)
        placements = exchange.placements()
        assert set(placements.values()) <= {1}
        for line in answered:
            order_id, symbol, status = line.split()
            found = run(exchange.find(symbol, order_id))
            assert found is not None
            assert found.status is ReportStatus(status) or status == "OPEN"
            assert order_id in placements
        run(exchange.account())
        run(exchange.close())
    assert len(placements) > 20
    assert {SPOT, PERP} >= set(held(venue(tmp_path)))
