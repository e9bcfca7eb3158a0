"""The store, asked within a bound: whoever closes positions may not wait for a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tinywindow.safety.errors import DependencyError, StoreUnavailable
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.context import ContextHandle, SafetyContext
from tinywindow.safety.services.kill_file import KillFile
from tinywindow.safety.stores.journal import Journal

__all__ = ["BoundedStore"]

T = TypeVar("T")

OPEN_TIMEOUT_S: Final = 10.0
"""How long opening may take: the first one loads the engine and makes the schema."""
HASTY_TIMEOUT_S: Final = 0.25
"""How long a hasty user waits for a database that did not answer the last time."""


@dataclass(slots=True)
class BoundedStore:
    """Runs scripts within `timeout_s` seconds; belongs to one event loop.

    `online` says whether the last answer came. A script that did not answer in time may still
    commit: scripts are written so that this does no harm. A `hasty` one waits only a moment while
    it is offline, unless it is told how long: whoever sends forty closes cannot wait two seconds
    for each, and asks once a round with patience.
    """

    handle: ContextHandle
    timeout_s: float
    hasty: bool = False
    online: bool = True
    kill_file: KillFile = field(init=False)
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.kill_file = KillFile(self.handle.data_dir / "KILL")
        self.journal = Journal(self.handle.data_dir / "journal.jsonl")

    async def context(self) -> SafetyContext:
        """The context, opened at the first use.

        Raises:
            StoreUnavailable: it cannot be opened within the bound.
        """
        opened = self.handle.opened
        if opened is not None:
            return opened
        return await self._bounded(self.handle.open(), self._patience(OPEN_TIMEOUT_S))

    def _patience(self, timeout_s: float) -> float:
        return min(timeout_s, HASTY_TIMEOUT_S) if self.hasty and not self.online else timeout_s

    async def write(self, script: Callable[[Tx], T], *, timeout_s: float | None = None) -> T:
        """Run a script in a write transaction that goes before waiting orders.

        Raises:
            StoreUnavailable: it was not run, or nobody can say whether it was.
        """
        context = await self.context()
        work = context.store.transact(script, stop=True)
        return await self._bounded(
            work, self._patience(self.timeout_s) if timeout_s is None else timeout_s
        )

    async def read(self, script: Callable[[Tx], T], *, timeout_s: float | None = None) -> T:
        """Run a script that only reads.

        Raises:
            StoreUnavailable: it did not answer.
        """
        context = await self.context()
        work = context.store.read(script)
        return await self._bounded(
            work, self._patience(self.timeout_s) if timeout_s is None else timeout_s
        )

    async def _bounded(self, work: Coroutine[object, object, T], timeout_s: float) -> T:
        task = asyncio.ensure_future(work)
        task.add_done_callback(_seen)
        try:
            # Shielded: a commit that comes late is better than one that is torn off.
            async with asyncio.timeout(timeout_s):
                result = await asyncio.shield(task)
        except (DependencyError, OSError) as fault:
            self.online = False
            if isinstance(fault, TimeoutError):
                raise StoreUnavailable(
                    f"the database did not answer within {timeout_s} s"
                ) from fault
            raise StoreUnavailable(str(fault)) from fault
        self.online = True
        return result


def _seen(task: asyncio.Future[T]) -> None:
    """Mark a fault as seen, for the case that nobody waited for it any more."""
    if not task.cancelled():
        task.exception()
