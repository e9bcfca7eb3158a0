"""What the parts of a transaction share: the engine, the head, and what has changed so far."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Final, TypeVar

from sqlalchemy import bindparam, select, update

from tinywindow.safety.domain.book import Book, Changes
from tinywindow.safety.domain.kill import Latch
from tinywindow.safety.domain.records import (
    Head,
    Hold,
    Position,
    ReferencePrice,
    TradingState,
    Trip,
)
from tinywindow.safety.domain.windows import Execution
from tinywindow.safety.errors import InvariantBroken, StoreUnavailable
from tinywindow.safety.stores import schema
from tinywindow.safety.stores.sql.engine import Engine, Row

__all__ = ["Guard", "Part", "Pending", "head_of", "read_head"]

E = TypeVar("E", bound=Enum)

INTEGER_MAX: Final = 2**63 - 1
"""The largest whole number that the database holds."""

_SELECT_HEAD: Final = select(
    schema.head.c.version,
    schema.head.c.stop_epoch,
    schema.head.c.trading,
    schema.head.c.audit_seq,
    schema.head.c.audit_hash,
    schema.head.c.exposure_micros,
)
_UPDATE_HEAD: Final = (
    update(schema.head)
    .where(schema.head.c.id == 1)
    .where(schema.head.c.version == bindparam("old_version"))
    .where(schema.head.c.stop_epoch == bindparam("old_epoch"))
    .where(schema.head.c.audit_seq == bindparam("old_seq"))
    .where(bindparam("new_exposure") <= bindparam("exposure_cap"))
    .values(
        version=bindparam("new_version"),
        stop_epoch=bindparam("new_epoch"),
        trading=bindparam("new_trading"),
        audit_seq=bindparam("new_seq"),
        audit_hash=bindparam("new_hash"),
        exposure_micros=bindparam("new_exposure"),
    )
)


def read_head(db: Engine) -> Head:
    """Read the head row.

    Raises:
        StoreUnavailable: the row is not there, so this is no database of ours.
    """
    rows = db.rows(_SELECT_HEAD)
    if len(rows) != 1:
        raise StoreUnavailable("the database has no head row")
    return head_of(rows[0])


def head_of(row: Row) -> Head:
    """The head from its columns."""
    version, epoch, trading, seq, digest, exposure = row
    return Head(
        as_int(version),
        as_int(epoch),
        as_one_of(TradingState, trading),
        as_int(seq),
        str(digest),
        as_int(exposure),
    )


@dataclass(slots=True)
class Guard:
    """The sums that the database checks a second time before an entry commits."""

    exposure_micros: int
    exposure_cap_micros: int


@dataclass(slots=True)
class Pending:
    """What one transaction has changed so far, for the cached book to take on at commit."""

    latches: tuple[Latch, ...] | None = None
    trip: tuple[Trip, ...] | None = None
    holds: list[Hold] = field(default_factory=list)
    positions: list[Position] = field(default_factory=list)
    prices: list[ReferencePrice] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    documents: dict[str, str] = field(default_factory=dict)

    def changes(self, head: Head) -> Changes:
        """The changes as the book applies them."""
        return Changes(
            head=head,
            latches=self.latches,
            trip=self.trip,
            holds=tuple(self.holds),
            positions=tuple(self.positions),
            prices=tuple(self.prices),
            executions=tuple(self.executions),
            documents=tuple(self.documents.items()),
        )


class Part:
    """The base of every noun's part of a transaction."""

    def __init__(self, db: Engine, book: Book) -> None:
        self._db = db
        self._book = book
        self._before = book.head
        self._head = book.head
        self._pending = Pending()
        self._guard: Guard | None = None

    def _touch(self) -> int:
        """Say that the book changes; give the version that the changed rows carry."""
        if self._head.version == self._before.version:
            self._head = replace(self._head, version=self._before.version + 1)
        return self._head.version

    def _new_epoch(self) -> None:
        self._touch()
        self._head = replace(
            self._head,
            stop_epoch=self._head.stop_epoch + 1,
            trading=TradingState.STOPPED,
        )

    def book(self) -> Book:
        """The book as it stood when the transaction began."""
        return self._book

    def head(self) -> Head:
        """The head row, own writes included."""
        return self._head

    def set_trading(self, state: TradingState) -> None:
        """Set whether an operator wants trading."""
        self._touch()
        self._head = replace(self._head, trading=state)

    def finish(self) -> Changes:
        """Write the head row back, guarded, and give what the book must take on.

        Raises:
            InvariantBroken: the head moved under the lock, or a guarded sum is above its cap.
        """
        guard = self._guard
        if guard is not None:
            if guard.exposure_micros > guard.exposure_cap_micros:
                raise InvariantBroken("the total exposure is above its cap")
            held = min(guard.exposure_micros, INTEGER_MAX)
            self._head = replace(self._head, exposure_micros=held)
        if self._head != self._before:
            cap = self._head.exposure_micros
            if guard is not None:
                cap = min(guard.exposure_cap_micros, INTEGER_MAX)
            changed = self._db.run(
                _UPDATE_HEAD,
                {
                    "old_version": self._before.version,
                    "old_epoch": self._before.stop_epoch,
                    "old_seq": self._before.audit_seq,
                    "new_version": self._head.version,
                    "new_epoch": self._head.stop_epoch,
                    "new_trading": self._head.trading.value,
                    "new_seq": self._head.audit_seq,
                    "new_hash": self._head.audit_hash,
                    "new_exposure": self._head.exposure_micros,
                    "exposure_cap": cap,
                },
            )
            if changed != 1:
                raise InvariantBroken(
                    "the head row moved under the lock, or a sum is above its cap"
                )
        self._db.flush()
        return self._pending.changes(self._head)


def as_int(value: object) -> int:
    """Read an integer column.

    Raises:
        StoreUnavailable: the database is damaged; so do all of these.
    """
    if not isinstance(value, int):
        raise StoreUnavailable(f"the database holds {type(value).__name__} for an integer")
    return value


def as_int_or_none(value: object) -> int | None:
    """Read an integer column that may be null."""
    return None if value is None else as_int(value)


def as_decimal(value: object) -> Decimal:
    """Read a decimal column; nothing that is not finite ever gets past here."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise StoreUnavailable("the database holds what is no number for one") from None
    if not number.is_finite():
        raise StoreUnavailable("the database holds a number that is not finite")
    return number


def as_decimal_or_none(value: object) -> Decimal | None:
    """Read a decimal column that may be null."""
    return None if value is None else as_decimal(value)


def as_one_of(kind: type[E], value: object) -> E:
    """Read a column that holds a member of an enumeration."""
    try:
        return kind(str(value))
    except ValueError:
        raise StoreUnavailable(f"the database holds {value!r} for a {kind.__name__}") from None


def as_text_or_none(value: object) -> str | None:
    """Read a text column that may be null."""
    return None if value is None else str(value)


def first(rows: list[Row]) -> Row | None:
    """The first row, or None."""
    return rows[0] if rows else None
