"""What the objects built on one database share: store, data directory, and the process's stops.

There is one context for each (resolved database, event loop). Objects count themselves in at
their first await and out at `close()`; the last one out closes the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.domain.kill import Latch
from tinywindow.safety.errors import DependencyError, StoreUnavailable
from tinywindow.safety.ports import Clock, Store
from tinywindow.safety.services.anchor import Anchor, chain_of
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.kill_file import KillFile
from tinywindow.safety.services.location import Location, locate
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.stores.journal import Journal

__all__ = ["NEWS_GAP_S", "ContextHandle", "SafetyContext", "open_store"]

NEWS_GAP_S: Final = 0.01
"""The least pause between two calls of the listeners, however much is committed."""
ANCHOR_INTERVAL_S: Final = 1.0
"""How often the chain's head is written outside the database while rows are added."""

log = get_logger(__name__)


@dataclass(slots=True)
class SafetyContext:
    """One store and everything that must not exist twice beside it in one event loop.

    `local_stops` is the process's own flag: stops that were activated here and are not known to
    be released. `faults` is what is broken around the store, by reason: entries are refused for
    each. `listeners` are called, on the loop, whenever any process committed. `bells` tell, without
    I/O and from any thread, what was last heard from a shared Redis.
    """

    store: Store
    data_dir: Path
    kill_file: KillFile
    journal: Journal
    anchor: Anchor
    clock: Clock = field(default_factory=SystemClock)
    faults: dict[Reason, str] = field(default_factory=dict)
    local_stops: dict[str, Latch] = field(default_factory=dict)
    listeners: list[Callable[[], None]] = field(default_factory=list)
    bells: dict[int, Callable[[], Breach | None]] = field(default_factory=dict)
    users: int = 0
    _watch: asyncio.Task[None] | None = None

    def stop_probe(self) -> Refusal | None:
        """Look at what stops this host without the database: own flag, `KILL` file, Redis as heard.

        Costs a microsecond; made for the reserving transaction and for the last look.
        """
        if self.local_stops:
            latch = next(iter(self.local_stops.values()))
            return _halted(f"{latch.mode.value} by {latch.actor}: {latch.reason}")
        if self.kill_file.exists():
            return _halted("the file KILL stands in the data directory")
        for bell in tuple(self.bells.values()):
            breach = bell()
            if breach is not None:
                return Refusal((breach,))
        return None

    def stops_beside(self) -> tuple[Latch, ...]:
        """The stops of the own flag and of the `KILL` file, with their modes.

        Reads the file where there is one; made for exits, which only a close holds back.
        """
        return (*tuple(self.local_stops.values()), *self.kill_file.read())

    def found(self) -> tuple[Breach, ...]:
        """What is broken around the store, as reasons to refuse entries."""
        return tuple(Breach(reason, message) for reason, message in self.faults.items())

    def start_watching(self) -> None:
        """Begin to tell listeners of commits by any process; needs a running loop."""
        if self._watch is None or self._watch.done():
            self._watch = asyncio.get_running_loop().create_task(
                self._watch_changes(), name="tinywindow-store-watch"
            )

    async def _watch_changes(self) -> None:
        loop = asyncio.get_running_loop()
        token = self.store.change_token()
        anchored = loop.time()
        while True:
            token = await self.store.changed(token)
            for listener in tuple(self.listeners):
                try:
                    listener()
                except Exception:  # one listener's fault keeps no news from others
                    log.exception("listener_failed")
            if loop.time() - anchored >= ANCHOR_INTERVAL_S:
                anchored = loop.time()
                await self.anchor_head()
            await asyncio.sleep(NEWS_GAP_S)

    async def anchor_head(self) -> None:
        """Write the chain's head outside the database; a failure is logged, and tried again.

        A database that was put back while this process runs is found out here: its head would
        otherwise become the newest anchor, and hide what is missing.
        """
        if Reason.STORE_ROLLED_BACK in self.faults:
            return
        try:
            point = self.anchor.last()
            head, chain, fault = await self.store.read(
                lambda tx: (tx.head(), chain_of(tx), self.anchor.fault(tx, point))
            )
            if fault is not None:
                self.faults[Reason.STORE_ROLLED_BACK] = fault
                log.error("store_rolled_back", fault=fault)
                return
            self.anchor.append(head.audit_seq, head.audit_hash, self.clock.now(), chain=chain)
        except (DependencyError, OSError) as error:
            log.warning("anchor_not_written", error=str(error))

    async def close(self) -> None:
        """Stop watching, anchor the head, and close the store."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        await self.anchor_head()
        await self.store.close()


def _halted(message: str) -> Refusal:
    return Refusal((Breach(Reason.KILL_SWITCH_ACTIVE, message),))


_Registry = dict[str, SafetyContext]
_contexts: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Registry] = (
    weakref.WeakKeyDictionary()
)
_opening: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
    weakref.WeakKeyDictionary()
)


async def open_store(location: Location, *, attempts: bool = True) -> Store:
    """Open the store at a location; an SQLite file's schema is brought up to date first.

    Without `attempts` its book has none: for whoever neither decides nor measures.

    Raises:
        StoreUnavailable: it cannot be opened, or a PostgreSQL database has another schema.
        ConfigurationError: a PostgreSQL server does not keep what it says it committed.
    """
    if location.sqlite_path is None:
        from tinywindow.safety.stores.postgres import PostgresStore  # noqa: PLC0415 - an extra

        return await PostgresStore.open(location.url, attempts=attempts)
    from tinywindow.safety.stores.sqlite import SqliteStore  # noqa: PLC0415 - loads SQLAlchemy

    return await SqliteStore.open(
        location.sqlite_path, data_dir=location.data_dir, wall=location.wall, attempts=attempts
    )


async def open_context(location: Location, *, attempts: bool = True) -> SafetyContext:
    """Open a store with what stands beside it, and compare it with its anchor.

    A context of one's own: the flattener's thread has one, since a store belongs to one loop.
    """
    context = SafetyContext(
        store=await open_store(location, attempts=attempts),
        data_dir=location.data_dir,
        kill_file=KillFile(location.data_dir / "KILL"),
        journal=Journal(location.data_dir / "journal.jsonl"),
        anchor=Anchor(location.anchor_path),
    )
    try:
        # The anchor is read before the database's snapshot: others may add to both meanwhile, and
        # a snapshot that is older than the anchor would look like a database that was rolled back.
        point = context.anchor.last()
        fault: str | None
        if point is None and context.anchor.has_content():
            fault = "the anchor holds no head that can be read"
        else:
            fault = await context.store.read(lambda tx: context.anchor.fault(tx, point))
    except OSError as error:
        fault = f"the anchor cannot be read: {error}"
    except BaseException:  # no open store is left behind, whatever broke
        await context.store.close()
        raise
    if fault is not None:
        context.faults[Reason.STORE_ROLLED_BACK] = fault
    return context


class ContextHandle:
    """One object's share in a context; resolved at construction, opened at the first await."""

    def __init__(
        self, db_connection: object, *, data_dir: Path | None = None, attempts: bool = True
    ) -> None:
        """Check what was passed; without `attempts` the store is one as `open_store` says.

        Raises:
            ConfigurationError: when it is no durable database.
        """
        self._attempts = attempts
        self._context: SafetyContext | None = None
        self._given: SafetyContext | None = None
        self._location: Location | None = None
        if isinstance(db_connection, SafetyContext):
            self._given = db_connection
        elif isinstance(db_connection, Location):
            self._location = db_connection
        else:
            self._location = locate(db_connection, data_dir=data_dir)

    @property
    def opened(self) -> SafetyContext | None:
        """The context if this handle has been opened, without opening it."""
        return self._context

    def glance(self) -> SafetyContext | None:
        """The context if anybody opened it in the running loop; opens and awaits nothing."""
        if self._context is not None or self._given is not None:
            return self._context or self._given
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        return _contexts.get(loop, {}).get(self._key)

    @property
    def _key(self) -> str:
        location = self._location
        if location is None:
            raise AssertionError("a handle has a location or a context")
        return f"{location.url}|{location.data_dir}|{self._attempts}"

    @property
    def data_dir(self) -> Path:
        """The data directory, known before anything is opened."""
        if self._given is not None:
            return self._given.data_dir
        if self._location is None:
            raise AssertionError("a handle has a location or a context")
        return self._location.data_dir

    async def open(self) -> SafetyContext:
        """Give the shared context, opening the store where this is the first user."""
        if self._context is not None:
            return self._context
        context = await self._shared() if self._given is None else self._given
        if self._context is None:
            # Of two tasks that open one handle at once, only one counts in.
            self._context = context
            context.users += 1
        context.start_watching()
        return context

    async def _shared(self) -> SafetyContext:
        location = self._location
        if location is None:
            raise AssertionError("a handle has a location or a context")
        loop = asyncio.get_running_loop()
        lock = _opening.setdefault(loop, asyncio.Lock())
        async with lock:
            registry = _contexts.setdefault(loop, {})
            if self._key not in registry:
                try:
                    location.data_dir.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise StoreUnavailable(f"the data directory cannot be made: {error}") from error
                registry[self._key] = await open_context(location, attempts=self._attempts)
            return registry[self._key]

    async def close(self) -> None:
        """Count out; the last one out closes the store. Closing twice is harmless."""
        context, self._context = self._context, None
        if context is None:
            return
        context.users -= 1
        if context.users > 0:
            return
        registry = _contexts.get(asyncio.get_running_loop(), {})
        for key, known in tuple(registry.items()):
            if known is context:
                del registry[key]
        await context.close()
