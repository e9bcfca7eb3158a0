"""Objects that lie about themselves or raise when they are asked anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum, StrEnum
from itertools import count
from typing import Any, Final, NoReturn

__all__ = [
    "HOSTILE",
    "BadMapping",
    "HostileDecimal",
    "HostileFloat",
    "HostileInt",
    "HostileText",
    "LyingNumber",
    "OtherSide",
    "Word",
]

DEEP: Final[list[object]] = []
DEEP.append(DEEP)


def _deep_list(levels: int) -> list[object]:
    nested: list[object] = []
    for _ in range(levels):
        nested = [nested]
    return nested


class Hostile:
    """Raises from everything that could be asked of it."""

    def _refuse(self, *_: object) -> NoReturn:
        raise RuntimeError("a hostile object was asked something")

    __repr__ = __str__ = __eq__ = __ne__ = __len__ = __bool__ = __iter__ = __int__ = _refuse
    __float__ = __index__ = __lt__ = __gt__ = __format__ = __hash__ = __getattr__ = _refuse


class LyingNumber:
    """Says that it is a Decimal, and that it is finite."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return Decimal

    def is_finite(self) -> bool:
        return True


class RaisingClass:
    """Raises when it is asked what it is."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no class")


class HostileText(str):
    """Text that lies about itself: it equals everything and has no length."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("BUY")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class HostileFloat(float):
    """A number whose representation is another number, and no number."""

    def __repr__(self) -> str:
        return "1.5"


class HostileDecimal(Decimal):
    """A NaN that says it is finite and above zero."""

    def is_finite(self) -> bool:
        return True

    def __le__(self, other: object) -> bool:
        return False


class HostileInt(int):
    """A negative integer that denies it."""

    def __int__(self) -> int:
        return 5

    def __le__(self, other: int) -> bool:
        return False


class OtherSide(Enum):
    """An enum of somebody else's that is not text."""

    BUY = "BUY"


class Word(StrEnum):
    """An enum of somebody else's that is text, but of the wrong kind."""

    LONG = "LONG"


class BadMeta(type):
    """A metaclass whose classes have a hostile name, and cannot be compared."""

    __name__ = property(lambda _: "line\nbreak")

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __hash__(cls) -> int:
        raise RuntimeError("no hash")


class BadlyMade(metaclass=BadMeta):
    """An instance of a hostile class."""


class BadMapping(Mapping[str, object]):
    """A mapping, but for what it does when it is read; `how` says what goes wrong."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __getitem__(self, key: str) -> object:
        if self.how == "value":
            raise KeyError("it was there a moment ago")
        return 1

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[str]:
        if self.how == "iterate":
            raise RuntimeError("no keys")
        if self.how == "twice":
            return iter(["symbol", "symbol"])
        if self.how == "endless":
            return (f"k{n}" for n in count())
        return iter(["symbol"])

    def items(self) -> Any:
        if self.how == "items":
            raise RuntimeError("no items")
        if self.how == "recursion":
            return self.items()
        if self.how == "no pairs":
            return [1, 2, 3]
        if self.how == "none":
            return None
        return super().items()


NEWLINE_TYPE: Final = type("line\nbreak\u202e" * 50, (), {})()
HOSTILE: Final[list[object]] = [
    Hostile(),
    LyingNumber(),
    RaisingClass(),
    BadlyMade(),
    NEWLINE_TYPE,
    DEEP,
    _deep_list(10_000),
    object(),
    Hostile,
    lambda: None,
]
