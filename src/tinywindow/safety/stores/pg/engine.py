"""Statements on PostgreSQL: compiled once from SQLAlchemy Core, run raw by psycopg."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import psycopg
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql import ClauseElement

from tinywindow.safety.errors import InvariantBroken
from tinywindow.safety.stores.pg.link import BoundedConnection
from tinywindow.safety.stores.sql.engine import Compiler, Engine, Row
from tinywindow.safety.stores.sql.rows import Writer

__all__ = ["Asked", "PostgresEngine"]

T = TypeVar("T")

_PARAMETER: Final = re.compile(r"%\((\w+)\)s")

compiled: Final = Compiler(PGDialect_psycopg())  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Joined:
    """Several queries in one: its name on the server, its text, and how it is run."""

    name: str
    text: str
    execute: str


_joined: Final[dict[tuple[int, ...], Joined]] = {}
_naming: Final = threading.Lock()


_upserts: Final[dict[int, tuple[Writer, ClauseElement]]] = {}
"""Each writer's upsert; the writer is kept, so that its id is never given to another."""


class PostgresEngine:
    """Runs compiled statements on one connection, inside the transaction at hand.

    What was left is sent in one message with whatever is asked next: each message is a round trip
    for which everybody waits who waits for the lock.
    """

    def __init__(self, connection: BoundedConnection) -> None:
        self._connection = connection
        self._left: list[str] = []

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
        cursor = self._run(statement, params)
        # SQLAlchemy asks for the id of a row whose table numbers it.
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row is not None and isinstance(row[0], int) else 0

    def leave(self, statement: ClauseElement, params: Mapping[str, object]) -> None:
        """Change something with the next message."""
        self._left.append(self._text(statement, params))

    def put(self, writer: Writer, params: Mapping[str, object]) -> None:
        """Update a row by its key, or insert it where there is none, with the next message."""
        self.leave(_upsert_of(writer), params)

    def flush(self) -> None:
        """Send what was left."""
        if self._left:
            self._send(self._left.pop())

    def _run(
        self, statement: ClauseElement, params: Mapping[str, object] | None
    ) -> psycopg.Cursor[Row]:
        if self._left:
            return self._send(self._text(statement, params))
        text, constants = compiled(statement)
        return self._connection.execute(text, {**constants, **(params or {})})

    def _text(self, statement: ClauseElement, params: Mapping[str, object] | None) -> str:
        """A statement with its parameters in it, quoted by the driver."""
        text, constants = compiled(statement)
        cursor = psycopg.ClientCursor(self._connection)
        return cursor.mogrify(text, {**constants, **(params or {})})

    def _send(self, text: str) -> psycopg.Cursor[Row]:
        """Send what was left and a statement in one message; gives the statement's answer."""
        texts, self._left = [*self._left, text], []
        cursor = psycopg.ClientCursor(self._connection)
        # Quoted text; the driver asks for a literal, and sends it as it is without parameters.
        cursor.execute("; ".join(texts))
        cursor.set_result(-1)
        return cursor


def _upsert_of(writer: Writer) -> ClauseElement:
    known = _upserts.get(id(writer))
    if known is None:
        add = insert(writer.table).values({name: bindparam(f"p_{name}") for name in writer.names})
        changed = {name: add.excluded[name] for name in writer.names if name not in writer.key}
        known = writer, add.on_conflict_do_update(index_elements=writer.key, set_=changed)
        _upserts[id(writer)] = known
    return known[1]


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

    def leave(self, statement: ClauseElement, params: Mapping[str, object]) -> None:
        del statement, params
        raise InvariantBroken("a look writes nothing")

    def put(self, writer: Writer, params: Mapping[str, object]) -> None:
        del writer, params
        raise InvariantBroken("a look writes nothing")

    def flush(self) -> None:
        """Nothing was left."""


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
        connection.prepare(self.joined.name, self.joined.text)

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
    # Two threads may not give one name to two texts.
    with _naming:
        return _joined.get(key) or _newly_joined(key, statements)


def _newly_joined(key: tuple[int, ...], statements: list[ClauseElement]) -> Joined:
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
    text = _PARAMETER.sub(numbered, text)
    given = ", ".join(f"%({one})s" for one in names)
    made = Joined(name, text, f"EXECUTE {name}({given})" if names else f"EXECUTE {name}")
    _joined[key] = made
    return made


def _renamed(text: str, number: int) -> str:
    return text.replace("%(", f"%(q{number}_")
