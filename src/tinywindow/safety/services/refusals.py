"""Refusals in a flood: above twenty a second from one agent, identical ones share one row."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tinywindow.safety.domain.admission import halting_reasons
from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.decision import Reason, Refusal
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.ports import Clock

__all__ = ["Asked", "Counted", "RefusalCounter"]

REFUSALS_PER_SECOND_MAX: Final = 20
AGENTS_MAX: Final = 1024
KINDS_MAX: Final = 1024
"""Different refusals that are counted at once; one more gets a row of its own."""
WINDOW_S: Final = 1.0

_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class Counted:
    """Identical refusals that were counted instead of written: the row that they share."""

    key: _Key
    since_s: float
    event: EventType
    order_id: str | None
    agent_id: str | None
    what: Mapping[str, object]
    count: int = 0

    @property
    def data(self) -> dict[str, object]:
        """The row's data."""
        return {**self.what, "count": self.count}


@dataclass(slots=True)
class RefusalCounter:
    """Decides, refusal by refusal, whether it gets a row of its own or is counted with others.

    Refusals are decided on the store's thread and written from the loop's, hence the lock.
    """

    clock: Clock
    _recent: dict[str, deque[float]] = field(default_factory=dict)
    _counted: dict[_Key, Counted] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, order: CheckedOrder) -> Asked:
        """One order's part in this; its refusal counts when it is settled, and once."""
        return Asked(self, order)

    def first(self, order: CheckedOrder, refusal: Refusal) -> Counted:
        """What the shared row of a refusal's like would begin with."""
        agent, code = order.agent_id or "", refusal.reason_code
        event = (
            EventType.ORDER_REJECTED_HALTED
            if code in halting_reasons
            else EventType.ORDER_REJECTED_LIMITS
        )
        symbol, side = order.symbol.text, order.side.value
        return Counted(
            (agent, code.value, symbol, side),
            self.clock.monotonic(),
            event,
            order.client_order_id,
            order.agent_id,
            {"reason": refusal.reason, "symbol": symbol, "side": side},
        )

    def counts_invalid(self, errors: tuple[str, ...]) -> bool:
        """The same for an order that is not valid; nobody can say whose it is."""
        first = Counted(
            ("", Reason.VALIDATION_FAILED.value, "\n".join(errors), ""),
            self.clock.monotonic(),
            EventType.ORDER_VALIDATION_FAILED,
            None,
            None,
            {"errors": list(errors)},
        )
        if self.takes_row(first):
            return False
        self.count(first)
        return True

    def takes_row(self, first: Counted) -> bool:
        """Take one of the rows that its agent has to itself; False when it is to be counted."""
        agent, now_s = first.agent_id or "", first.since_s
        with self._lock:
            if agent not in self._recent and len(self._recent) >= AGENTS_MAX:
                self._recent.clear()
            recent = self._recent.setdefault(agent, deque(maxlen=REFUSALS_PER_SECOND_MAX))
            flooded = len(recent) == REFUSALS_PER_SECOND_MAX and now_s - recent[0] < WINDOW_S
            crowded = first.key not in self._counted and len(self._counted) >= KINDS_MAX
            if flooded and not crowded:
                return False
            recent.append(now_s)
            return True

    def give_row_back(self, first: Counted) -> None:
        """Leave a row's place to others: it was not written after all."""
        with self._lock, contextlib.suppress(ValueError):
            self._recent.get(first.agent_id or "", deque()).remove(first.since_s)

    def count(self, first: Counted) -> None:
        """Count a refusal with its like."""
        with self._lock:
            self._counted.setdefault(first.key, first).count += 1

    def due(self, *, everything: bool = False) -> list[Counted]:
        """Take out the counts whose second is over, as rows to be written."""
        now_s = self.clock.monotonic()
        with self._lock:
            rows = [
                counted
                for counted in self._counted.values()
                if everything or now_s - counted.since_s >= WINDOW_S
            ]
            for counted in rows:
                del self._counted[counted.key]
        return rows

    def put_back(self, rows: Iterable[Counted]) -> None:
        """Take rows in again that could not be written; they are due at the next look."""
        with self._lock:
            for row in rows:
                known = self._counted.setdefault(row.key, row)
                if known is not row:
                    known.count += row.count
                    known.since_s = min(known.since_s, row.since_s)


class Asked:
    """One order's decision, which a store may draft more than once before it commits.

    Only the draft that was committed leaves a trace: a refusal is counted once, and a row that
    was drafted and never written takes no place among an agent's twenty.
    """

    __slots__ = ("_counter", "_first", "_order", "_own_row")

    def __init__(self, counter: RefusalCounter, order: CheckedOrder) -> None:
        self._counter = counter
        self._order = order
        self._first: Counted | None = None
        self._own_row = False

    def begin(self) -> None:
        """A draft begins; the one before it, if any, was not committed."""
        if self._own_row and self._first is not None:
            self._counter.give_row_back(self._first)
        self._first, self._own_row = None, False

    def counts(self, refusal: Refusal) -> bool:
        """Say whether this draft's refusal is counted with its like; False: it writes its row."""
        self._first = self._counter.first(self._order, refusal)
        self._own_row = self._counter.takes_row(self._first)
        return not self._own_row

    def committed(self) -> None:
        """The newest draft stands."""
        if self._first is not None and not self._own_row:
            self._counter.count(self._first)
        self._first, self._own_row = None, False
