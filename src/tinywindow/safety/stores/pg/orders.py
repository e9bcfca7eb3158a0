"""The order's way on PostgreSQL: straight where nobody else writes, else several under one lock.

One order goes by one call, from the cached book, by compare-and-set. Where the book moved on, and
where several orders of this process wait together, they are decided one after another under the
lock, and committed at once: each sees what those before it hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import psycopg

from tinywindow.safety.domain.book import Book, Changes, DecisionIds, DecisionView, Draft
from tinywindow.safety.errors import InvariantBroken, LedgerBusy, StoreUnavailable
from tinywindow.safety.stores.pg import decision
from tinywindow.safety.stores.pg.books import Known, ids_of
from tinywindow.safety.stores.pg.commits import by_row
from tinywindow.safety.stores.pg.decision import OneCall, Written
from tinywindow.safety.stores.pg.link import lost, undecided
from tinywindow.safety.stores.pg.sessions import ORDER
from tinywindow.safety.stores.pg.writing import Writing
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

    def decide(self, asked: Sequence[AskedOrder[T]]) -> Iterator[Callable[[], T]]:
        """Decide orders in their sequence, and give the outcome of each once it is committed."""
        left = list(asked)
        while left:
            results = self._several(left[: _distinct(left)])
            for result in results:
                yield _giving(result)
            if not results:
                yield self._alone(left[0])
            del left[: max(1, len(results))]

    def _alone(self, one: AskedOrder[T]) -> Callable[[], T]:
        return lambda: self._writing.job(lambda: self._decide(one), ANSWER_TIMEOUT_S)

    def _several(self, asked: Sequence[AskedOrder[T]]) -> list[T]:
        """The results of as many as could be committed at once; none where it is but one.

        Raises:
            LedgerBusy, StoreUnavailable: nothing was decided.
        """
        if len(asked) == 1:
            return []
        try:
            return self._writing.job(lambda: self._under_lock(asked), ANSWER_TIMEOUT_S)
        except (LedgerBusy, StoreUnavailable):
            raise
        except Exception:  # noqa: BLE001 - one of them is at fault: it shows when each is by itself
            return []

    def _decide(self, one: AskedOrder[T]) -> T:
        book = self._writing.books.writers
        if self._writing.alone and book is not None:
            known = book.holds.get(one.ids.client_order_id)
            draft = one.propose(DecisionView(book, known, decision_spent=False))
            if self._straight(book, one.ids, draft, known=known is not None):
                return draft.result
        (result,) = self._under_lock((one,))
        return result

    def _straight(self, book: Book, ids: DecisionIds, draft: Draft[Any], *, known: bool) -> bool:
        """Commit what was decided from the cached book, if it is still the newest.

        False when it is not, or when the draft needs more than one call: nothing was written.
        """
        writing = self._writing
        writes = decision.writes(draft)
        if not decision.fits(ids, draft, known=known) or (writes and not draft.audit):
            # Without a row there would be nothing to look for after a lost answer.
            return False
        params = decision.parameters(book.head, ids, draft, known=known)
        connection = writing.link.get()
        try:
            answer = connection.execute(decision.DECIDE, params).fetchone()
        except psycopg.Error as error:
            if error.sqlstate == decision.ATTEMPTED_STATE:
                return False
            if not writes or not lost(error, connection) or not undecided(error):
                raise
            writing.commits.told_after_loss(error, by_row(draft.audit[0].id))
            return True
        if answer is None or answer[0] != "DONE":
            writing.alone = answer is None or answer[0] != "MOVED"
            return False
        writing.committed(book, decision.taken_on(book.head, draft, answer))
        return True

    def _under_lock(self, asked: Sequence[AskedOrder[T]]) -> list[T]:
        """Decide where nobody else can write: nobody loses this race for ever.

        Gives the results of as many, from the first on, as one transaction takes.
        """

        def script(tx: SqlTx, found: Sequence[Known]) -> tuple[list[T], Written]:
            return self._scripted(tx, asked, found)

        return self._writing.transaction(ORDER, ids_of([one.ids for one in asked]), script)

    def _scripted(
        self, tx: SqlTx, asked: Sequence[AskedOrder[T]], found: Sequence[Known]
    ) -> tuple[list[T], Written]:
        book = tx.book()
        results: list[T] = []
        last: OneCall | None = None
        called = False
        for one, seen in zip(asked, found, strict=True):
            if last is not None:
                # The next one sees what this one holds. Were the commit to fail, the book goes.
                self._call(book, last)
                last, called = None, True
            draft = one.propose(DecisionView(book, seen.hold, seen.spent))
            known = seen.hold is not None
            if seen.attempted or not decision.fits(one.ids, draft, known=known):
                if results:
                    break
                commit_draft(tx, draft, known=known)
                return [draft.result], tx.finish()
            results.append(draft.result)
            if decision.writes(draft):
                # What the decision's id stands for was seen under the lock.
                ids = DecisionIds(one.ids.client_order_id)
                last = OneCall(draft, decision.parameters(book.head, ids, draft, known=known))
        if last is not None:
            return results, last
        return results, Changes(book.head) if called else None

    def _call(self, book: Book, call: OneCall) -> None:
        connection = self._writing.link.get()
        answer = connection.execute(decision.DECIDE, call.parameters).fetchone()
        if answer is None or answer[0] != "DONE":
            raise InvariantBroken("the database moved under its lock")
        self._writing.books.written(book, decision.taken_on(book.head, call.draft, answer))


def _distinct(asked: Sequence[AskedOrder[Any]]) -> int:
    """How many orders, from the first on, share no id, since all are looked up at once."""
    ids: set[tuple[str, str]] = set()
    for count, one in enumerate(asked):
        own = {("order", one.ids.client_order_id)}
        if one.ids.decision_id is not None:
            own.add(("decision", one.ids.decision_id))
        if ids & own:
            return count
        ids |= own
    return len(asked)


def _giving(result: T) -> Callable[[], T]:
    return lambda: result
