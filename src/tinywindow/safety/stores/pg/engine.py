"""Statements on PostgreSQL: compiled once from SQLAlchemy Core, run raw by psycopg."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql import ClauseElement

from tinywindow.safety.errors import InvariantBroken
from tinywindow.safety.stores.pg.link import BoundedConnection
from tinywindow.safety.stores.sql.engine import Compiler, Engine, Row

__all__ = ["Asked", "PostgresEngine"]

T = TypeVar("T")

_PARAMETER: Final = re.compile(r"%\((\w+)\)s")

compiled: Final = Compiler(PGDialect_psycopg())  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Joined:
    """Several queries in one: its name on the server, how it is prepared, and how it is run."""

    name: str
    prepare: str
    execute: str


_joined: Final[dict[tuple[int, ...], Joined]] = {}


class PostgresEngine:
    """Runs compiled statements on one connection, inside the transaction at hand."""

    def __init__(self, connection: BoundedConnection) -> None:
        self._connection = connection

    def rows(
        self, statement: ClauseElement, params: Mapping[str, object] | None = None
    ) -> list[Row]:
        """Run a query and give all its rows."""
        text, constants = compiled(statement)
        return self._connection.execute(text, {**constants, **(params or {})}).fetchall()

    def run(self, statement: ClauseElement, params: Mapping[str, object] | None = None) -> int:
        """Run a change and give the number of rows it changed."""
        text, constants = compiled(statement)
        return self._connection.execute(text, {**constants, **(params or {})}).rowcount

    def insert(self, statement: ClauseElement, params: Mapping[str, object]) -> int:
        """Run an insert and give the new row's integer id, where the table has one."""
        text, constants = compiled(statement)
        cursor = self._connection.execute(text, {**constants, **params})
        # SQLAlchemy asks for the id of a row whose table numbers it.
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row is not None and isinstance(row[0], int) else 0


class _Recorder:
    """Notes what a look would ask, answering that there is nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[ClauseElement, dict[str, object]]] = []

    def rows(
        self, statement: ClauseElement, params: Mapping[str, object] | None = None
    ) -> list[Row]:
        self.asked.append((statement, dict(params or {})))
        return []

    def run(self, statement: ClauseElement, params: Mapping[str, object] | None = None) -> int:
        del statement, params
        raise InvariantBroken("a look writes nothing")

    def insert(self, statement: ClauseElement, params: Mapping[str, object]) -> int:
        del statement, params
        raise InvariantBroken("a look writes nothing")


class _Replayed(_Recorder):
    """Gives the answers in the order in which they were asked for."""

    def __init__(self, answers: list[list[Row]]) -> None:
        super().__init__()
        self._answers = iter(answers)

    def rows(
        self, statement: ClauseElement, params: Mapping[str, object] | None = None
    ) -> list[Row]:
        del statement, params
        return next(self._answers)


class Asked:
    """All the queries of a look as one statement: one round trip and one snapshot.

    What the look asks may not depend on what it was answered; it is called twice.
    """

    def __init__(self, look: Callable[[Engine], object]) -> None:
        recorder = _Recorder()
        look(recorder)
        self.joined = _joined_of([statement for statement, _ in recorder.asked])
        self.params = {
            f"q{number}_{name}": value
            for number, (statement, given) in enumerate(recorder.asked)
            for name, value in {**compiled(statement)[1], **given}.items()
        }

    def prepare(self, connection: BoundedConnection) -> None:
        """Have the server prepare the statement, once for each connection."""
        if self.joined.name not in connection.prepared:
            connection.execute(self.joined.prepare)
            connection.prepared.add(self.joined.name)

    def answered(self, row: Row | None, look: Callable[[Engine], T]) -> T:
        """Give the look its answers, from the one row that the statement brought."""
        if row is None:
            raise InvariantBroken("one statement has one answer")
        return look(_Replayed([_tuples(answer) for answer in row]))


def _tuples(answer: object) -> list[Row]:
    # The server keeps the columns' order, and the parser the keys'.
    return [tuple(one.values()) for one in cast("list[dict[str, object]]", answer or [])]


def _joined_of(statements: list[ClauseElement]) -> Joined:
    """Join queries into one row of JSON arrays; each query's parameters get names of their own."""
    key = tuple(id(statement) for statement in statements)
    known = _joined.get(key)
    if known is None:
        # The texts are compiled from statements that are constants of this package.
        parts = [
            f"(SELECT json_agg(r) FROM ({_renamed(compiled(statement)[0], number)}) r)"  # noqa: S608 - constants
            for number, statement in enumerate(statements)
        ]
        text = "SELECT " + ", ".join(parts)
        names: list[str] = []

        def numbered(found: re.Match[str]) -> str:
            if found[1] not in names:
                names.append(found[1])
            return f"${names.index(found[1]) + 1}"

        name = f"tinywindow_look_{len(_joined)}"
        prepare = f"PREPARE {name} AS {_PARAMETER.sub(numbered, text)}"
        given = ", ".join(f"%({one})s" for one in names)
        known = Joined(name, prepare, f"EXECUTE {name}({given})" if names else f"EXECUTE {name}")
        _joined[key] = known
    return known


def _renamed(text: str, number: int) -> str:
    return text.replace("%(", f"%(q{number}_")
