"""Refusals in a flood: above twenty a second from one agent, identical ones share one row."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from tinywindow.safety.domain.admission import halting_reasons
from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.decision import Refusal
from tinywindow.safety.domain.order import CheckedOrder
from tinywindow.safety.ports import Clock

__all__ = ["RefusalCounter"]

REFUSALS_PER_SECOND_MAX: Final = 20
AGENTS_MAX: Final = 1024
WINDOW_S: Final = 1.0

_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class _Counted:
    """Identical refusals that were counted instead of written, and since when."""

    since: float
    order_id: str
    agent_id: str | None
    reason: str
    event: EventType
    count: int = 0


@dataclass(slots=True)
class RefusalCounter:
    """Decides, refusal by refusal, whether it gets a row of its own or is counted with others."""

    clock: Clock
    _recent: dict[str, deque[float]] = field(default_factory=dict)
    _counted: dict[_Key, _Counted] = field(default_factory=dict)

    def counts(self, order: CheckedOrder, refusal: Refusal) -> bool:
        """Count this refusal with its like, and say so; False when it deserves its own row."""
        now = self.clock.monotonic()
        agent = order.agent_id or ""
        if agent not in self._recent and len(self._recent) >= AGENTS_MAX:
            self._recent.clear()
        recent = self._recent.setdefault(agent, deque(maxlen=REFUSALS_PER_SECOND_MAX))
        flooded = len(recent) == REFUSALS_PER_SECOND_MAX and now - recent[0] < WINDOW_S
        if not flooded:
            recent.append(now)
            return False
        key = (agent, refusal.reason_code.value, order.symbol.text, order.side.value)
        counted = self._counted.get(key)
        if counted is None:
            event = (
                EventType.ORDER_REJECTED_HALTED
                if refusal.reason_code in halting_reasons
                else EventType.ORDER_REJECTED_LIMITS
            )
            counted = _Counted(now, order.client_order_id, order.agent_id, refusal.reason, event)
            self._counted[key] = counted
        counted.count += 1
        return True

    def due(
        self, *, everything: bool = False
    ) -> list[tuple[str, str | None, dict[str, object], EventType]]:
        """Take out the counts whose second is over, as rows to be written."""
        now = self.clock.monotonic()
        rows = []
        for key, counted in tuple(self._counted.items()):
            if everything or now - counted.since >= WINDOW_S:
                del self._counted[key]
                data: dict[str, object] = {
                    "reason": counted.reason,
                    "symbol": key[2],
                    "side": key[3],
                    "count": counted.count,
                }
                rows.append((counted.order_id, counted.agent_id, data, counted.event))
        return rows
