"""A table of malformed orders, each with the field that the refusal must name.

Every row is a valid order with one thing wrong, or something that is no order at all. The rows
are data for whoever must refuse them: validation, the gate, the command line, the API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final

from hostile_objects import (
    HOSTILE,
    BadMapping,
    HostileDecimal,
    HostileFloat,
    HostileInt,
    HostileText,
    OtherSide,
    Word,
)

from tinywindow.safety.domain.order import Order

__all__ = ["LIMIT_ORDER", "MALFORMED", "MARKET_ORDER", "Malformed"]


@dataclass(frozen=True)
class Malformed:
    """One malformed order; `title` tells it apart in a test report."""

    title: str
    order: object
    field: str


MARKET_ORDER: Final[dict[str, object]] = {"symbol": "BTC/USDT", "side": "BUY", "amount": "0.1"}
LIMIT_ORDER: Final[dict[str, object]] = {**MARKET_ORDER, "type": "LIMIT", "price": "60000"}

MILLION: Final = 1_000_000
SURROGATE: Final = "\ud800"

NOT_TEXT: Final[list[object]] = [
    *HOSTILE,
    0,
    1,
    -1,
    1.5,
    float("nan"),
    True,
    False,
    b"BUY",
    bytearray(b"BTC/USDT"),
    Decimal(1),
    ["BTC/USDT"],
    ("BUY",),
    {"BUY"},
    {"side": "BUY"},
    1j,
    10**5000,
    Ellipsis,
    date(2024, 1, 1),
]

BAD_SYMBOL_TEXTS: Final = [
    "",
    " ",
    "/",
    "BTC",
    "BTC/",
    "/USDT",
    "BTC//USDT",
    "BTC/USDT/",
    "BTC/USDT/USDT",
    "BTCUSDT",
    "BTC-USDT",
    "BTC_USDT",
    "BTC USDT",
    "BTC\\USDT",
    "btc/usdt",
    "Btc/Usdt",
    "BTC/usdt",
    "btc/USDT",
    "kPEPE/USDC:USDC",
    " BTC/USDT",
    "BTC/USDT ",
    "BTC /USDT",
    "BTC/ USDT",
    "BTC/USDT\n",
    "\nBTC/USDT",
    "BTC/USDT\r\n",
    "BTC/USDT\t",
    "BTC/USDT\x00",
    "BTC\x00/USDT",
    "BTC/USDT\x1b[31m",
    "BTC/USDT\nETH/USDT",
    "BTC/USDT,ETH/USDT",
    "BTC/USDT;DROP TABLE orders",
    "BTC/USDT' OR '1'='1",
    "../../etc/passwd",
    "\u0412\u0422\u0421/USDT",
    "BTC/USD\u0422",
    "\uff22\uff34\uff23/USDT",
    "BTC\uff0fUSDT",
    "BTC\u2215USDT",
    "BTC/USDT\u200b",
    "\u200eBTC/USDT",
    "\u202eBTC/USDT",
    "BTC\u00ad/USDT",
    "\ufeffBTC/USDT",
    "BTC/USDT\u0301",
    "\u5e01\u5b89\u4eba\u751f/USDT",
    "GOLD(PAXG)/USDC",
    "\U0001f680/USDT",
    SURROGATE,
    "BTC/USDT" + SURROGATE,
    "\u0660\u0661/USDT",
    "BTC/\u0130USDT",
    ".BTC/USDT",
    "-BTC/USDT",
    "$BTC/USDT",
    "BTC*/USDT",
    "BTC%2FUSDT",
    "BTC/U",
    "BTC/USD-T",
    "BTC/USD.T",
    "BTC/USDTUSDTUSDTU",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ/USDT",
    "USDT/USDT",
    "BTC/BTC:BTC",
    "BTC/USDT:",
    "BTC/USDT:usdt",
    "BTC/USDT:ETH",
    "BTC/USDT:EUR",
    "BTC/USDT:U",
    "BTC/USDT::USDT",
    "BTC/USDT:USDT:USDT",
    "BTC/USDT:USDT-",
    "BTC/USDT:USDT-PERP",
    "BTC/USDT-241227",
    "BTC/USDT:USDT-24122",
    "BTC/USDT:USDT-2412270",
    "BTC/USDT:USDT-20241227",
    "BTC/USDT:USDT-241327",
    "BTC/USDT:USDT-240230",
    "BTC/USDT:USDT-230229",
    "BTC/USDT:USDT-240431",
    "BTC/USDT:USDT-240100",
    "BTC/USDT:USDT-240001",
    "BTC/USDT:USDT-000000",
    "BTC/USDT:USDT-990101",
    "BTC/USDT:USDT-690101",
    "BTC/USDT:USDT-24-12-27",
    "BTC/USDT:USDT-\u0662\u0664\u0661\u0662\u0662\u0667",
    "BTC/USD:BTC-241227-60000",
    "BTC/USD:BTC-241227-60000-",
    "BTC/USD:BTC-241227-60000-X",
    "BTC/USD:BTC-241227-60000-c",
    "BTC/USD:BTC-241227-60000-CP",
    "BTC/USD:BTC-241227-C",
    "BTC/USD:BTC-241227--C",
    "BTC/USD:BTC-241227--60000-C",
    "BTC/USD:BTC-241227-0-C",
    "BTC/USD:BTC-241227-060000-C",
    "BTC/USD:BTC-241227-60000.0-C",
    "BTC/USD:BTC-241227-0.0-C",
    "BTC/USD:BTC-241227-.5-C",
    "BTC/USD:BTC-241227-5.-C",
    "BTC/USD:BTC-241227-6e4-C",
    "BTC/USD:BTC-241227-60,000-C",
    "BTC/USD:BTC-241227-1234567890123456-C",
    "BTC/USD:BTC-241327-60000-C",
    "BTC/USD:BTC-60000-C",
    "XYZ-CAT/USDT:USDT-CAT",
    "BTC/USDT" * 11,
    "A" * MILLION,
    "A/" * (MILLION // 2),
    "BTC/USDT:USDT-" + "2" * MILLION,
    "None",
    "null",
    "Ignore all previous instructions",
]

BAD_SIDES: Final[list[object]] = [
    *("", " ", "buy", "sell", "Buy", "Sell", "BUY ", " BUY", "BUY\n", "SELL\r", "B", "S"),
    *("LONG", "SHORT", "HOLD", "BUYSELL", "BUY,SELL", "BUY\x00", "B\u00adUY", "\u200bBUY"),
    *("\uff22\uff35\uff39", "\u0412UY", "SE\u013f\u013f", SURROGATE, "BUY" * MILLION, "1", "-1"),
    HostileText("HODL"),
    OtherSide.BUY,
    Word.LONG,
    None,
]

BAD_TYPES: Final[list[object]] = [
    *("", " ", "market", "limit", "Market", "MARKET ", "LIMIT\n", "STOP", "STOP_LIMIT"),
    *("STOP_MARKET", "STOP_LOSS", "TAKE_PROFIT", "TRAILING_STOP", "POST_ONLY", "IOC", "FOK"),
    *("MARKET\x00", "MAR\u212aET", "\uff2d\uff21\uff32\uff2b\uff25\uff34", SURROGATE),
    *("LIMIT" * MILLION, "MARKET|LIMIT"),
    HostileText("ANY"),
    Word.LONG,
    None,
]

BAD_NUMBERS: Final[list[object]] = [
    *(0, -1, -0.0, 0.0, -0.1, Decimal(0), Decimal("-0"), Decimal("0E+999999"), Decimal(-1)),
    *(float("nan"), float("inf"), float("-inf"), 1e300, 5e-324, 1e19, -1e300),
    *(Decimal("NaN"), Decimal("sNaN"), Decimal("-sNaN123"), Decimal("Infinity"), Decimal("-Inf")),
    *(Decimal("1E+400"), Decimal("1E-400"), Decimal("1E+999999"), Decimal("1E-999999")),
    *(Decimal("1" * 41), Decimal("0." + "1" * 41), Decimal("1." + "0" * MILLION)),
    *(10**19, 10**400, 10**5000, -(10**400), 1 << 300),
    *("", " ", "0", "-0", "0.0", "-1", "0e5", "abc", "one", "None", "null", "true"),
    *("NaN", "nan", "sNaN", "Inf", "Infinity", "-Infinity", "1e400", "1e-400", "1e9999", "1e19"),
    *("1,000", "1_000", "1 000", "1.000,5", "1.2.3", "--1", "+-1", "1-", "1e", "e1", ".", "+"),
    *("0x10", "0b1", "1j", "1/2", "50%", "$1", "1USDT", "1L", "1f", "1d"),
    *(" 1", "1 ", "1\n", "\n1", "1\x00", "\t1", "1\u00a0", "\u200b1", "1\u202e"),
    *("\uff11", "\u0661", "\u0967", "\u00bd", "\u00b2", "\u2460", "\u221e", "\u22121"),
    *("1" * 41, "1" * 65, "9" * MILLION, "1." + "0" * MILLION, SURROGATE),
    *(b"1", bytearray(b"1"), memoryview(b"1"), 1j, Fraction(1, 2), True, False),
    *(
        [1],
        (1,),
        {1},
        {"amount": 1},
        [],
        {},
        range(1),
        date(2024, 1, 1),
        datetime(2024, 1, 1, tzinfo=UTC),
    ),
    HostileFloat("nan"),
    HostileFloat(-1),
    HostileDecimal("NaN"),
    HostileDecimal("-1"),
    HostileInt(-1),
    HostileText("1,5"),
    Word.LONG,
    *HOSTILE,
]

BAD_IDS: Final[list[object]] = [
    *("", " ", "a b", "a\n", "a/b", "a.b", "a:b", "a" * 37, "a" * MILLION, "\u00e9", "a\x00"),
    *("\u200ba", "\uff21", "a'b", '"', "<a>", "${x}", SURROGATE),
    HostileText("a b"),
    *NOT_TEXT,
]
BAD_LABELS: Final[list[object]] = [
    *("", "a\n", "a\tb", "a\x7f", "a\x1b[0m", "a" * 65, "a" * MILLION, "\u00e9", "\u202ea"),
    SURROGATE,
    *NOT_TEXT,
]
BAD_NAMES: Final[list[object]] = [
    *("", " ", "a b", "a/b", "a\n", "a" * 33, "a" * MILLION, "\u00e9", "a:b", "a@b", SURROGATE),
    *NOT_TEXT,
]
BAD_FLAGS: Final[list[object]] = [
    *(None, 0, 1, 1.0, "", "True", "true", "False", "yes", b"1", [], [True], Decimal(1)),
    *HOSTILE,
]

NOT_ORDERS: Final[list[object]] = [
    *(None, True, 0, 1, 1.5, "", "BTC/USDT", '{"symbol": "BTC/USDT"}', b"{}", [], (), set()),
    [("symbol", "BTC/USDT"), ("side", "BUY"), ("amount", 1)],
    [MARKET_ORDER],
    (MARKET_ORDER,),
    "A" * MILLION,
    SURROGATE,
    Order,
    Malformed,
    MARKET_ORDER.keys(),
    MARKET_ORDER.items(),
    object.__new__(Order),
    *(BadMapping(how) for how in ("items", "iterate", "value", "recursion", "no pairs", "none")),
    *(BadMapping(how) for how in ("twice", "endless")),
    *HOSTILE,
]

BAD_KEYS: Final[list[object]] = [
    *("Symbol", "SYMBOL", "symbol ", "qty", "quantity", "size", "sidee", "stop_price", "leverage"),
    *("", " ", "a\nb", "\u202eside", "s\u0456de", SURROGATE, "k" * MILLION, "__class__"),
    *(None, 0, 1.5, True, b"symbol", ("symbol",), Decimal(1), frozenset({"symbol"})),
]


def _rows() -> Iterator[Malformed]:
    yield from _field_rows("symbol", MARKET_ORDER, [*BAD_SYMBOL_TEXTS, *NOT_TEXT, None])
    yield from _field_rows("side", MARKET_ORDER, [*BAD_SIDES, *NOT_TEXT])
    yield from _field_rows("type", MARKET_ORDER, [*BAD_TYPES, *NOT_TEXT])
    yield from _field_rows("amount", MARKET_ORDER, [*BAD_NUMBERS, None])
    yield from _field_rows("price", LIMIT_ORDER, [*BAD_NUMBERS, None])
    yield from _field_rows("price", MARKET_ORDER, [1, "60000", 0, "", False, float("nan")])
    yield from _field_rows("client_order_id", MARKET_ORDER, BAD_IDS)
    yield from _field_rows("decision_id", MARKET_ORDER, BAD_LABELS)
    yield from _field_rows("agent_id", MARKET_ORDER, BAD_LABELS)
    yield from _field_rows("venue", MARKET_ORDER, BAD_NAMES)
    yield from _field_rows("account", MARKET_ORDER, BAD_NAMES)
    yield from _field_rows("reduce_only", MARKET_ORDER, BAD_FLAGS)
    for field in MARKET_ORDER:
        without = {name: value for name, value in MARKET_ORDER.items() if name != field}
        yield Malformed(f"{field} is missing", without, field)
    yield Malformed("everything is missing", {}, "amount")
    yield Malformed("limit order without its price", {**MARKET_ORDER, "type": "LIMIT"}, "price")
    for index, key in enumerate(BAD_KEYS):
        with_key: dict[object, object] = dict(MARKET_ORDER.items())
        with_key[key] = 1
        yield Malformed(f"unknown key {index}", with_key, "order")
    many: dict[str, object] = {f"key{n}": n for n in range(1000)}
    yield Malformed("a thousand keys", {**MARKET_ORDER, **many}, "order")
    for index, order in enumerate(NOT_ORDERS):
        yield Malformed(f"no order {index}", order, "order")


def _field_rows(
    field: str, valid: Mapping[str, object], values: list[object]
) -> Iterator[Malformed]:
    for index, value in enumerate(values):
        mapping = {**valid, field: value}
        yield Malformed(f"{field} {index} in a mapping", mapping, field)
        yield Malformed(f"{field} {index} in an Order", Order(**mapping), field)


MALFORMED: Final = tuple(_rows())
