"""How statements reach an engine: written once with SQLAlchemy Core, compiled once, run raw.

The order's way costs three to four times as much through SQLAlchemy's own execution, so the
SQLite engine hands the compiled text to the driver. Statements are module constants; each is
compiled at its first use.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final, Protocol, cast

from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from tinywindow.safety.stores.sql.rows import Writer

__all__ = ["Compiler", "Engine", "Row", "SqliteEngine"]

Row = tuple[object, ...]


class Engine(Protocol):
    """Runs statements inside the transaction at hand."""

    def rows(
        self, statement: ClauseElement, params: Mapping[str, object] | None = None
    ) -> list[Row]:
        """Run a query and give all its rows."""
        ...

    def run(self, statement: ClauseElement, params: Mapping[str, object] | None = None) -> int:
        """Run a change and give the number of rows it changed."""
        ...

    def insert(self, statement: ClauseElement, params: Mapping[str, object]) -> int:
        """Run an insert and give the new row's integer id, where the table has one."""
        ...

    def leave(self, statement: ClauseElement, params: Mapping[str, object]) -> None:
        """Change something of which nobody asks what came of it; in its order, at the latest by
        `flush`, which also tells its fault.
        """
        ...

    def put(self, writer: Writer, params: Mapping[str, object]) -> None:
        """Update a row by its key, or insert it where there is none; done as `leave` is."""
        ...

    def flush(self) -> None:
        """See that all that was left is done."""
        ...


class Compiler:
    """The texts of statements in one dialect, each made once for the life of the process."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._known: dict[int, tuple[ClauseElement, str, dict[str, object]]] = {}

    def __call__(self, statement: ClauseElement) -> tuple[str, dict[str, object]]:
        """The text of a statement, and its constants."""
        known = self._known.get(id(statement))
        if known is None:
            made = cast(
                "SQLCompiler",
                statement.compile(
                    dialect=self._dialect, compile_kwargs={"render_postcompile": True}
                ),
            )
            asked = {name for name, bind in made.binds.items() if bind.required}
            constants = {name: value for name, value in made.params.items() if name not in asked}
            # The statement is kept beside its text, so that its id is never given to another.
            known = (statement, str(made), constants)
            self._known[id(statement)] = known
        return known[1], known[2]


compiled: Final = Compiler(sqlite.dialect(paramstyle="named"))


class SqliteEngine:
    """Runs compiled statements on one `sqlite3` connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(
        self, statement: ClauseElement, params: Mapping[str, object] | None = None
    ) -> list[Row]:
        """Run a query and give all its rows."""
        return self._run(statement, params).fetchall()

    def run(self, statement: ClauseElement, params: Mapping[str, object] | None = None) -> int:
        """Run a change and give the number of rows it changed."""
        return self._run(statement, params).rowcount

    def insert(self, statement: ClauseElement, params: Mapping[str, object]) -> int:
        """Run an insert and give the new row's integer id, where the table has one."""
        return self._run(statement, params).lastrowid or 0

    def leave(self, statement: ClauseElement, params: Mapping[str, object]) -> None:
        """Change something, at once."""
        self._run(statement, params)

    def put(self, writer: Writer, params: Mapping[str, object]) -> None:
        """Update a row by its key, or insert it where there is none."""
        if self.run(writer.update, params) == 0:
            self._run(writer.insert, params)

    def flush(self) -> None:
        """Nothing was left."""

    def _run(self, statement: ClauseElement, params: Mapping[str, object] | None) -> sqlite3.Cursor:
        text, constants = compiled(statement)
        if not constants:
            return self._connection.execute(text, params or {})
        return self._connection.execute(text, {**constants, **(params or {})})
