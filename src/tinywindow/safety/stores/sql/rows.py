"""Rows in and out: plain inserts, updates by key, and their bound names.

Every bound name is the column's with a `p_` before it, since SQLAlchemy keeps the bare names
for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Insert, Table, Update, bindparam, insert, update

if TYPE_CHECKING:
    from tinywindow.safety.stores.sql.engine import Engine

__all__ = ["Writer", "bound"]


def bound(params: Mapping[str, object]) -> dict[str, object]:
    """Give each parameter its bound name."""
    return {f"p_{name}": value for name, value in params.items()}


@dataclass(frozen=True, slots=True)
class Writer:
    """An insert and an update by key over the same columns of one table."""

    table: Table
    key: tuple[str, ...]
    names: tuple[str, ...]
    insert: Insert
    update: Update

    @classmethod
    def of(cls, table: Table, *, key: tuple[str, ...], skip: tuple[str, ...] = ()) -> Writer:
        """Build both statements; `skip` names columns that the database fills in."""
        names = tuple(column.name for column in table.columns if column.name not in skip)
        add = insert(table).values({name: bindparam(f"p_{name}") for name in names})
        change = update(table).values(
            {name: bindparam(f"p_{name}") for name in names if name not in key}
        )
        for name in key:
            change = change.where(table.c[name] == bindparam(f"p_{name}"))
        return cls(table, key, names, add, change)

    def add(self, db: Engine, params: Mapping[str, object]) -> None:
        """Insert a row."""
        db.leave(self.insert, bound(params))

    def number(self, db: Engine, params: Mapping[str, object]) -> int:
        """Insert a row that its table numbers, and give its integer id."""
        return db.insert(self.insert, bound(params))

    def put(self, db: Engine, params: Mapping[str, object]) -> None:
        """Update the row, or insert it where there is none; safe under the write lock."""
        db.put(self, bound(params))
