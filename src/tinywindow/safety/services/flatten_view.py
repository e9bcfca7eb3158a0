"""What one venue's flattener knows: the stops, the ledger, and what happened without a database.

The database is asked first, always, within a bound. While it is away, what was last read counts,
moved by what was sent and filled since; what was never read is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.breaker_documents import entries_go_on_trip
from tinywindow.safety.domain.money import EXACT, ZERO
from tinywindow.safety.domain.order import DEFAULT_ACCOUNT, PositionKey, Side
from tinywindow.safety.domain.records import Hold, HoldState
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.ports import Clock, Tx
from tinywindow.safety.services.bounded_store import BoundedStore
from tinywindow.safety.services.directive import Directive, directive_of, unmerged
from tinywindow.safety.services.flatten_lease import LEASE_TTL_MS, VenueLease
from tinywindow.safety.services.journalled_intents import hold_of
from tinywindow.safety.services.kill_report import VenueReport
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.stop_hints import StopHints
from tinywindow.safety.services.times import to_ms

__all__ = ["FlattenView"]

_log = get_logger(__name__)


@dataclass(slots=True)
class FlattenView:
    """One venue's view of the ledger and the stops; belongs to one event loop.

    `fresh` says whether the database answered when it was last asked what to do: only then does
    anybody know of every order. `progress` gives the report that is kept together with each
    intent and each fill; `marks` are the venue's prices, for a fill that comes without one.
    """

    venue: str
    store: BoundedStore
    lease: VenueLease
    clock: Clock
    hints: StopHints
    cancel_on_trip: bool
    fresh: bool = False
    progress: Callable[[], VenueReport] | None = None
    marks: dict[str, Decimal] = field(default_factory=dict)
    _known: bool = False
    _awake_s: float | None = None
    _last: Directive = field(default_factory=Directive)
    _managed: dict[PositionKey, Decimal] = field(default_factory=dict)
    _holds: dict[str, Hold] = field(default_factory=dict)
    _offline: dict[str, Hold] = field(default_factory=dict)

    def now_ms(self) -> int:
        """The wall clock in milliseconds of Unix time."""
        return to_ms(self.clock.now())

    async def directive(self) -> Directive:
        """What the stops ask for now; what was last known counts while the database is away."""
        self._notice_sleep()
        hints = self.hints.latches()
        patience_s = self.store.timeout_s

        def script(tx: Tx) -> tuple[Directive, Book]:
            book = tx.book()
            tripped = self.cancel_on_trip and tx.standing_trip() is not None
            tripped = tripped and entries_go_on_trip(book.documents)
            found = directive_of((*tx.standing_latches(), *unmerged(tx, hints)), tripped=tripped)
            # The store's own book moves on: what is kept here is a copy of this moment's.
            return found, replace(book, holds=dict(book.holds), positions=dict(book.positions))

        try:
            await self._catch_up(patience_s)
            self._last, book = await self.store.read(script, timeout_s=patience_s)
        except StoreUnavailable as fault:
            _log.warning("flatten_without_database", venue=self.venue, error=str(fault))
            self.fresh = False
            self._last = self._offline_directive()
        else:
            self.fresh = self._known = True
            self._remember(book)
        return self._last

    def _remember(self, book: Book) -> None:
        self._managed = {
            key: position.amount
            for key, position in book.positions.items()
            if key.venue == self.venue
        }
        self._holds = {
            hold.client_order_id: hold
            for hold in book.holds.values()
            if hold.key.venue == self.venue and hold.intent_ms is not None
        }

    def _offline_directive(self) -> Directive:
        latches = (*self.hints.latches(), *self.store.kill_file.read())
        seen = directive_of(latches, tripped=False)
        return seen if seen.rank >= self._last.rank else self._last

    async def keep_alive(self) -> None:
        """Beat the lease, and notice when this process slept."""
        self._notice_sleep()
        if self.lease.fence > 0:
            await self.lease.keep(now_ms=self.now_ms())

    def _notice_sleep(self) -> None:
        """Forget what another flattener may have changed while this process stood still."""
        now_s = self.clock.monotonic()
        before_s, self._awake_s = self._awake_s, now_s
        if before_s is not None and (now_s - before_s) * 1000 > LEASE_TTL_MS:
            _log.warning("flattener_slept", venue=self.venue, seconds=round(now_s - before_s, 1))
            self._known = False
            self.lease.unlock_host()

    def managed(self) -> Mapping[str, Decimal] | None:
        """What our ledger manages here, signed, in base units by symbol, over all accounts.

        It is what was last read, moved by what filled while the database was away; None while
        it was never read, or not since this process slept.
        """
        if not self._known:
            return None
        sums: dict[str, Decimal] = {}
        for key, amount in self._managed.items():
            sums[key.symbol] = EXACT.add(sums.get(key.symbol, ZERO), amount)
        for hold in self._offline.values():
            booked = self._holds.get(hold.client_order_id)
            new = EXACT.subtract(hold.filled, ZERO if booked is None else booked.filled)
            moved = new if hold.side is Side.BUY else -new
            sums[hold.key.symbol] = EXACT.add(sums.get(hold.key.symbol, ZERO), moved)
        return sums

    def key_of(self, symbol: str, leg: str) -> PositionKey:
        """The position of our ledger that a close of `symbol` moves."""
        keys = [key for key in self._managed if key.symbol == symbol and key.leg == leg]
        keys.sort(key=lambda key: (-abs(self._managed[key]), key))
        return keys[0] if keys else PositionKey(self.venue, DEFAULT_ACCOUNT, symbol, leg)

    def open_intents(self) -> tuple[Hold, ...]:
        """Every order of ours here, whichever process made it, that has not ended."""
        holds = {**self._holds, **self._offline}
        return tuple(hold for hold in holds.values() if hold.state.open)

    def ended(self, client_order_id: str) -> bool:
        """Whether an order has ended as far as our ledger knows."""
        hold = self._offline.get(client_order_id) or self._holds.get(client_order_id)
        return hold is None or not hold.state.open

    def in_flight(self, symbol: str, side: Side) -> Decimal:
        """What orders of ours may still fill on one side, in base units."""
        total = ZERO
        for hold in self.open_intents():
            if hold.key.symbol == symbol and hold.side is side:
                total = EXACT.add(total, hold.remaining)
        return total

    async def _catch_up(self, timeout_s: float) -> None:
        """Give the database the orders that were sent while it was away, by whichever process.

        They come in as UNKNOWN, so that what became of them is asked of the venue and booked.

        Raises:
            StoreUnavailable: it is still away.
        """
        offset = self._read_journal()
        if not self._offline:
            return
        offline = tuple(self._offline.values())

        def script(tx: Tx) -> None:
            for hold in offline:
                if tx.hold(hold.client_order_id) is None:
                    tx.put_hold(replace(hold, filled=ZERO, state=HoldState.UNKNOWN))

        await self.store.write(script, timeout_s=timeout_s)
        self.store.journal.merged(offset)
        self._offline.clear()

    def _read_journal(self) -> int:
        """Take on the journal's intents for this venue; gives how far it was read."""
        try:
            offset, entries = self.store.journal.pending()
        except OSError as fault:
            _log.error("journal_not_read", venue=self.venue, error=str(fault))
            return 0
        for entry in entries:
            hold = hold_of(entry)
            if hold is not None and hold.key.venue == self.venue:
                self._offline.setdefault(hold.client_order_id, hold)
        return offset
