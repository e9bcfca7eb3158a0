"""The order's way on PostgreSQL: straight where nobody else writes, else several under one lock.

One order goes by one call, from the cached book, by compare-and-set; where the book moved on, it
is decided under the lock. Several orders of this process that wait together are decided one after
another under one lock, and committed at once: each sees what those before it hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import psycopg

from tinywindow.safety.domain.book import Book, DecisionIds, DecisionView, Draft
from tinywindow.safety.errors import InvariantBroken, LedgerBusy, SafetyError, StoreUnavailable
from tinywindow.safety.stores.jobs import Line, giving, raising
from tinywindow.safety.stores.pg import decision
from tinywindow.safety.stores.pg.books import Known, ids_of
from tinywindow.safety.stores.pg.decision import Call, Calls, Written
from tinywindow.safety.stores.pg.link import undecided
from tinywindow.safety.stores.pg.sessions import ORDER
from tinywindow.safety.stores.pg.writing import Writing, nothing
from tinywindow.safety.stores.sql.tx import SqlTx, commit_draft

__all__ = ["AskedOrder", "Orders"]

T = TypeVar("T")

ANSWER_TIMEOUT_S: Final = 1.0
"""How long an order waits for an answer before its connection counts as lost."""


@dataclass(frozen=True, slots=True)
class AskedOrder(Generic[T]):
    """One order to be decided: what it must look up, and what decides it from the book."""

    ids: DecisionIds
    propose: Callable[[DecisionView], Draft[T]]


class Orders:
    """Decides orders on the writer's thread."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    def decide(self, line: Line[AskedOrder[T]]) -> Iterator[Callable[[], T]]:
        """Decide orders in their sequence, and give the outcome of each once it is committed.

        What must be decided by itself makes no stop wait, and does not try a database again that
        was too busy or away for the one before it.
        """
        fault: SafetyError | None = None
        while taken := list(itertools.islice(line, 2)):
            done = self._several(taken, line) if len(taken) > 1 else {}
            for number, one in enumerate(taken):
                if number in done:
                    yield giving(done[number])
                    continue
                if len(taken) > 1 and fault is None and line.stop_waits():
                    fault = LedgerBusy("a stop goes first")
                if fault is None:
                    outcome, fault = self._by_itself(one)
                    yield outcome
                else:
                    yield raising(fault)

    def _by_itself(self, one: AskedOrder[T]) -> tuple[Callable[[], T], SafetyError | None]:
        """The outcome of one order, and what the next one would find as well."""
        try:
            result = self._writing.job(lambda: self._decide(one), ANSWER_TIMEOUT_S)
        except (LedgerBusy, StoreUnavailable) as fault:
            return raising(fault), fault
        except BaseException as fault:  # noqa: BLE001 - handed on whole to whoever asked
            return raising(fault), None
        return giving(result), None

    def _several(self, taken: list[AskedOrder[T]], line: Iterator[AskedOrder[T]]) -> dict[int, T]:
        """The results of those that could be decided under one lock, by their number.

        What comes to the line meanwhile is taken along, and added to `taken`.

        Raises:
            LedgerBusy, StoreUnavailable: nothing was decided.
        """

        def script(tx: SqlTx, _: None) -> tuple[Calls, Written]:
            calls = self._one_after_another(tx.book(), taken, line)
            return calls, calls

        def work() -> Calls:
            decision.prepare(self._writing.link.get())
            return self._writing.transaction(ORDER, nothing, script)

        try:
            written = self._writing.job(work, ANSWER_TIMEOUT_S)
        except (LedgerBusy, StoreUnavailable):
            raise
        except Exception:  # noqa: BLE001 - one of them is at fault: it shows when each is by itself
            return {}
        pairs = zip(written.calls, written.done, strict=True)
        return {number: call.draft.result for number, (call, done) in enumerate(pairs) if done}

    def _one_after_another(
        self, book: Book, taken: list[AskedOrder[T]], line: Iterator[AskedOrder[T]]
    ) -> Calls:
        """Draft each from a book that shows what those before it are to hold, and nobody else.

        Ends at the first that one call cannot commit.
        """
        written = Calls()
        own = False
        for one in itertools.chain(tuple(taken), _added(line, taken)):
            known = book.holds.get(one.ids.client_order_id)
            draft = one.propose(DecisionView(book, known, decision_spent=False))
            if not _by_one_call(one.ids, draft, known=known is not None):
                break
            params = decision.parameters(book.head, one.ids, draft, known=known is not None)
            written.calls.append(Call(draft, params))
            if draft.hold is not None:
                book, own = (book if own else book.copied()), True
                book.apply(decision.foreseen(book, draft))
        return written

    def _decide(self, one: AskedOrder[T]) -> T:
        book = self._writing.books.writers
        if self._writing.alone and book is not None:
            known = book.holds.get(one.ids.client_order_id)
            draft = one.propose(DecisionView(book, known, decision_spent=False))
            if self._straight(book, one.ids, draft, known=known is not None):
                return draft.result
        return self._under_lock(one)

    def _straight(self, book: Book, ids: DecisionIds, draft: Draft[Any], *, known: bool) -> bool:
        """Commit what was decided from the cached book, if it is still the newest.

        False when it is not, or when the draft needs more than one call: nothing was written.
        """
        writing = self._writing
        if not _by_one_call(ids, draft, known=known):
            return False
        call = Call(draft, decision.parameters(book.head, ids, draft, known=known))
        connection = writing.link.get()
        try:
            answer = decision.call(connection, call)
        except psycopg.Error as error:
            if error.sqlstate == decision.ATTEMPTED_STATE:
                return False
            if not draft.audit or not undecided(error, connection):
                raise
            return all(writing.commits.told_after_loss(error, [call]))
        if answer[0] != "DONE":
            writing.alone = answer[0] != "MOVED"
            return False
        writing.committed(book, decision.taken_on(book.head, draft, answer))
        return True

    def _under_lock(self, one: AskedOrder[T]) -> T:
        """Decide where nobody else can write: nobody loses this race for ever."""

        def script(tx: SqlTx, found: Known) -> tuple[tuple[T, Calls], Written]:
            draft = one.propose(DecisionView(tx.book(), found.hold, found.spent))
            known = found.hold is not None
            if found.attempted or not _by_one_call(one.ids, draft, known=known):
                commit_draft(tx, draft, known=known)
                return (draft.result, Calls()), tx.finish()
            # What the decision's id stands for was seen under the lock.
            ids = DecisionIds(one.ids.client_order_id)
            params = decision.parameters(tx.book().head, ids, draft, known=known)
            calls = Calls([Call(draft, params)])
            return (draft.result, calls), calls

        decision.prepare(self._writing.link.get())
        result, calls = self._writing.transaction(ORDER, ids_of(one.ids), script)
        if not all(calls.done):
            raise InvariantBroken("the database moved under its lock")
        return result


def _by_one_call(ids: DecisionIds, draft: Draft[Any], *, known: bool) -> bool:
    """Whether one call can commit a draft that was made from the cached book alone.

    Without a row there would be nothing to look for after a lost answer.
    """
    return decision.fits(ids, draft, known=known) and (draft.hold is None or bool(draft.audit))


def _added(line: Iterator[AskedOrder[T]], taken: list[AskedOrder[T]]) -> Iterator[AskedOrder[T]]:
    for one in line:
        taken.append(one)
        yield one
