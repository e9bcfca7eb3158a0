"""Candle files: read strictly, and every fault told with its line."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.market import candles
from tinywindow.market.candles import (
    CandleFileError,
    iter_candles,
    read_candles,
    symbol_of,
)
from tinywindow.safety.domain.candles import HEADER, BadCandle, Candle, interval_of, parse_candle
from tinywindow.safety.errors import ConfigurationError

LINE = "1000,10,12,9,11,5.5"


def written(folder: Path, *lines: str, name: str = "BTCUSDT_x.csv", end: str = "\n") -> Path:
    path = folder / name
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def test_a_line_is_a_candle() -> None:
    assert parse_candle(LINE) == Candle(1000, *map(Decimal, ["10", "12", "9", "11", "5.5"]))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1000,10,12,9,11",
        "1000,10,12,9,11,5,6",
        "1000.5,10,12,9,11,5",
        "-1000,10,12,9,11,5",
        "1000,+10,12,9,11,5",
        "1000, 10,12,9,11,5",
        "1000,1e1,12,9,11,5",
        "1000,NaN,12,9,11,5",
        "1000,10,inf,9,11,5",
        "1000,10,12,9,11,",
        "1000,10,12,9,.5,5",
        "1000,10,12,9,11,-1",
        "1000,10,12,9,1_1,5",
        "1000,10,12,9,11,5\n",
        '"1000",10,12,9,11,5',
        "1000,10,12,9,１1,5",
        "1000,1" + "0" * 18 + ",12,9,11,5",
        "1000,0,12,0,11,5",
        "1000,8,12,9,11,5",
        "1000,10,12,9,13,5",
        "1000,10,9,12,11,5",
    ],
)
def test_what_is_no_candle_is_refused(line: str) -> None:
    with pytest.raises(BadCandle):
        parse_candle(line)


@pytest.mark.parametrize(
    ("times", "interval"), [([0, 60, 120, 300], 60), ([0, 60, 180], 60), ([0, 5], 5)]
)
def test_the_interval_is_the_most_frequent_step(times: list[int], interval: int) -> None:
    assert interval_of(times) == interval


def test_one_bar_tells_no_interval(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER, LINE)
    with pytest.raises(CandleFileError, match="fewer than two bars"):
        read_candles(path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("zipped", [True, False])
def test_plain_and_gzip_are_told_apart_by_their_first_bytes(
    tmp_path: Path, end: str, zipped: bool
) -> None:
    path = written(tmp_path, HEADER, LINE, "2000,11,11,11,11,0", end=end)
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes()))
    file = read_candles(path)
    assert (file.symbol, file.interval_ms, len(file.bars)) == ("BTC/USDT", 1000, 2)
    assert file.bars[1].close == 11


def test_a_last_line_without_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT_x.csv"
    path.write_text(f"{HEADER}\n{LINE}")
    assert len(list(iter_candles(path))) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], ":1: the line is not the header"),
        (["time,open,high,low,close,volume", LINE], ":1: the line is not the header"),
        ([HEADER, LINE, ""], ":3: the line is not timestamp_ms,"),
        ([HEADER, LINE, "2000,10,12,9,11"], ":3: the line is not timestamp_ms,"),
        ([HEADER, LINE, LINE], ":3: the line is not later"),
        ([HEADER, LINE, "999,10,12,9,11,5"], ":3: the line is not later"),
        ([HEADER, LINE, "2000,10,12,9,20,5"], ":3: the line has a price outside"),
        ([HEADER, LINE, "2" * 300], ":3: the line has more than 256 bytes"),
        ([HEADER, LINE, "2000,10,12,9,11,٥"], ":3: the line has other characters"),
    ],
)
def test_a_fault_is_told_with_file_and_line(tmp_path: Path, lines: list[str], message: str) -> None:
    path = written(tmp_path, *lines)
    with pytest.raises(CandleFileError) as caught:
        list(iter_candles(path))
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


def test_there_are_only_so_many_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candles, "ROWS_MAX", 1)
    path = written(tmp_path, HEADER, LINE, "2000,10,12,9,11,5")
    with pytest.raises(CandleFileError, match=":3: the line is one more than 1 bars"):
        list(iter_candles(path))


def test_damaged_gzip_data_is_told(tmp_path: Path) -> None:
    whole = gzip.compress(f"{HEADER}\n{LINE}\n".encode())
    path = tmp_path / "BTCUSDT_x.csv.gz"
    for damaged in (whole[:-12], whole[:10] + b"\xff" * 20, b"\x1f\x8bxx"):
        path.write_bytes(damaged)
        with pytest.raises(CandleFileError, match="gzip data is damaged"):
            list(iter_candles(path))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "BTCUSDT_none.csv", tmp_path):
        with pytest.raises(CandleFileError, match="cannot be read"):
            list(iter_candles(path))


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, headed: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "BTCUSDT_x.csv"
        path.write_bytes((HEADER.encode() + b"\n" if headed else b"") + data)
        try:
            times = [candle.timestamp_ms for candle in iter_candles(path)]
        except CandleFileError:
            return
        assert times == sorted(set(times))


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT_binance_spot_1m.csv.gz", "BTC/USDT"),
        ("ETHUSDC_x.csv", "ETH/USDC"),
        ("ETHUSD_x.csv", "ETH/USD"),
        ("USDCUSDT_x.csv", "USDC/USDT"),
        ("1000SHIBUSDT_x.csv", "1000SHIB/USDT"),
        ("BTC-PERP_perp_1m.csv.gz", "BTC/USD:USD"),
    ],
)
def test_the_symbol_is_taken_from_the_name(name: str, symbol: str) -> None:
    assert symbol_of(Path("/data") / name) == symbol


@pytest.mark.parametrize("name", ["BTCUSDT.csv", "prices_x.csv", "USDT_x.csv", "BTCEUR_x.csv", "_"])
def test_a_name_without_a_symbol_asks_for_one(name: str) -> None:
    with pytest.raises(CandleFileError, match="--symbol"):
        symbol_of(Path(name))
    assert symbol_of(Path(name), "SOL/USDT:USDT") == "SOL/USDT:USDT"


def test_a_given_symbol_must_be_one() -> None:
    with pytest.raises(CandleFileError, match="symbol"):
        symbol_of(Path("BTCUSDT_x.csv"), "btcusdt")
