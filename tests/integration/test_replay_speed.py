"""How long `tinywindow replay` takes for two weeks of minutes."""

from __future__ import annotations

import time

import pytest

from program import MARKET
from tinywindow.market.whatif import replay_file

FILE = MARKET / "BTCUSDT_binance_spot_1m_rally_jan2023.csv.gz"


@pytest.mark.alone
@pytest.mark.skipif(
    not FILE.exists(),
    reason=f"NO MARKET DATA: {MARKET} is not here; the speed of a replay was not shown",
)
def test_twenty_thousand_minutes_take_less_than_a_second() -> None:
    """In processor time, and at best of three, for the machine may be busy with something else."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        report = replay_file(FILE)
        taken.append(time.process_time() - start)
        assert report.rows >= 20_000
    print(f"{report.rows} bars in {min(taken):.2f} s of processor time")
    assert min(taken) < 1
