"""Candle files: CSV, plain or gzip, read strictly, one line at a time.

The header is `timestamp_ms,open,high,low,close,volume`; `timestamp_ms` is the bar's open time. A
file that begins with gzip's two magic bytes is decompressed, whatever its name. Every line must
be a candle and later than the one before; the first that is not ends the reading, with its number.

The symbol comes from the part of the file's name before the first `_`:

    BTCUSDT_…    BTC/USDT       a base and a known quote, whatever market the rest of the name tells
    BTC-PERP_…   BTC/USD:USD    a perpetual against the dollar, as its exchange named it
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

from tinywindow.safety.domain.candles import HEADER, BadCandle, Candle, interval_of, parse_candle
from tinywindow.safety.domain.symbols import BadSymbol, parse_symbol
from tinywindow.safety.errors import ConfigurationError

__all__ = [
    "CandleFile",
    "CandleFileError",
    "interval_ms_of",
    "iter_candles",
    "read_candles",
    "symbol_of",
]

ROWS_MAX: Final = 1_000_000
"""Bars in one file: nearly two years of minutes."""
LINE_BYTES_MAX: Final = 256
_GZIP_MAGIC: Final = b"\x1f\x8b"
_PERPETUAL: Final = re.compile(r"([A-Z0-9]{1,20})-PERP")
_PAIR: Final = re.compile(r"([A-Z0-9]{1,20}?)(USDT|USDC|FDUSD|BUSD|TUSD|USD)")


class CandleFileError(ConfigurationError):
    """A candle file cannot be used; the message names the file and, if there is one, the line."""


@dataclass(frozen=True, slots=True)
class CandleFile:
    """A candle file that was read.

    Attributes:
        symbol: the unified symbol.
        interval_ms: the most frequent step between bars, in milliseconds.
        bars: every bar, in strictly increasing order of time; two at least.
    """

    symbol: str
    interval_ms: int
    bars: tuple[Candle, ...]


def read_candles(path: Path, symbol: str | None = None) -> CandleFile:
    """Read a whole candle file; its symbol is taken from its name unless it is given.

    Raises:
        CandleFileError: the file or the symbol cannot be used.
    """
    name = symbol_of(path, symbol)
    bars = tuple(iter_candles(path))
    return CandleFile(name, interval_ms_of(path, [bar.timestamp_ms for bar in bars]), bars)


def interval_ms_of(path: Path, times_ms: Sequence[int]) -> int:
    """The most frequent step between a file's bars, in milliseconds.

    Raises:
        CandleFileError: there are fewer than two bars.
    """
    try:
        return interval_of(times_ms)
    except BadCandle as fault:
        raise CandleFileError(f"{path}: the file {fault}") from None


def iter_candles(path: Path) -> Iterator[Candle]:
    """Read a candle file bar by bar.

    Yields:
        Each bar, in strictly increasing order of time.

    Raises:
        CandleFileError: the file cannot be read, or a line of it is no candle.
    """
    number = 0
    try:
        with _opened(path) as file:
            before_ms = -1
            for number, line in enumerate(_lines(file), start=1):
                if number == 1:
                    _check_header(line)
                    continue
                candle = parse_candle(line)
                _check_order(number, before_ms, candle.timestamp_ms)
                before_ms = candle.timestamp_ms
                yield candle
    except BadCandle as fault:
        raise CandleFileError(f"{path}:{number}: the line {fault}") from None
    except _BadLine as fault:
        raise CandleFileError(f"{path}:{number + 1}: the line {fault}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise CandleFileError(f"{path}:{number + 1}: the gzip data is damaged") from None
    except OSError as fault:
        raise CandleFileError(f"{path}: cannot be read: {fault.strerror or fault}") from None
    if number == 0:
        raise CandleFileError(f"{path}:1: the line is not the header {HEADER}")


class _BadLine(Exception):
    """The line after the one that was read last is not even text."""


def _check_header(line: str) -> None:
    if line != HEADER:
        raise BadCandle(f"is not the header {HEADER}")


def _check_order(number: int, before_ms: int, at_ms: int) -> None:
    if number > ROWS_MAX + 1:
        raise BadCandle(f"is one more than {ROWS_MAX} bars")
    if at_ms <= before_ms:
        raise BadCandle("is not later than the line before")


def _opened(path: Path) -> BufferedReader | gzip.GzipFile:
    file = path.open("rb")
    if file.peek(2)[:2] != _GZIP_MAGIC:
        return file
    file.close()
    return gzip.open(path, "rb")


def _lines(file: BinaryIO | gzip.GzipFile) -> Iterator[str]:
    while line := file.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise _BadLine(f"has more than {LINE_BYTES_MAX} bytes")
        if not line.isascii():
            raise _BadLine("has other characters than ASCII")
        yield line.removesuffix(b"\n").removesuffix(b"\r").decode("ascii")


def symbol_of(path: Path, given: str | None = None) -> str:
    """Take the symbol that was given, or else the one that the file's name tells.

    Raises:
        CandleFileError: it is no unified symbol, or the name tells none.
    """
    try:
        return parse_symbol(_named(path) if given is None else given).text
    except BadSymbol as fault:
        raise CandleFileError(f"{path}: symbol {fault}") from None


def _named(path: Path) -> str:
    word, separator, _ = path.name.partition("_")
    if separator:
        perpetual = _PERPETUAL.fullmatch(word)
        if perpetual is not None:
            return f"{perpetual[1]}/USD:USD"
        pair = _PAIR.fullmatch(word)
        if pair is not None:
            return f"{pair[1]}/{pair[2]}"
    raise CandleFileError(f"{path}: the name tells no symbol, as BTCUSDT_… does; give --symbol")
