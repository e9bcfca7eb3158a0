"""One venue's flattening: cancel, look up what is in flight, close, and prove, again and again.

Each round reads everything anew, since only what the venue reports counts. Nothing here raises
for a venue's trouble, and nothing ends while a stop stands and something is left to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from traceback import format_exc
from typing import Final

from tinywindow.safety.config import KillSwitchConfig
from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.flatten import (
    FLAT_GAP_MS,
    FlatProof,
    Observation,
    orders_to_cancel,
)
from tinywindow.safety.domain.kill import KillEvent, KillState, KillSwitchMode, step
from tinywindow.safety.errors import VenueUnavailable
from tinywindow.safety.services.close_tally import CloseTally
from tinywindow.safety.services.directive import Directive
from tinywindow.safety.services.flatten_ledger import FlattenLedger
from tinywindow.safety.services.kill_report import VenueReport
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.order_sweep import OrderSweep
from tinywindow.safety.services.position_closer import PositionCloser

__all__ = ["VenueCloser"]

BUSY_PAUSE_S: Final = 0.1
BACKOFF_S: Final = 0.25
BEAT_S: Final = 1.0
QUIET_ROUNDS: Final = 2
UNPROVEN: Final = "the database cannot be read, so nobody can say that every order has ended"
UNNAMED: Final = "the venue does not say whose account it is, so nothing proves which one is flat"
_RESUMED: Final = {
    KillSwitchMode.HALT_ONLY: {KillState.HALTED},
    KillSwitchMode.CLOSE_POSITIONS: {KillState.CLOSING, KillState.INCOMPLETE, KillState.FLAT},
}
_CLOSE: Final = KillSwitchMode.CLOSE_POSITIONS

_log = get_logger(__name__)


@dataclass(slots=True)
class VenueCloser:
    """Carries a stop out on one venue. Belongs to one event loop.

    `publish` is called with each new report; `leaving` says that the owner is gone or going, so
    that nothing is waited for once the work is done; `abandoned` that even a close must end.
    """

    sweep: OrderSweep
    positions: PositionCloser
    publish: Callable[[VenueReport], None]
    leaving: Callable[[], bool]
    abandoned: Callable[[], bool]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _directive: Directive = field(default_factory=Directive)
    _state: KillState = KillState.INACTIVE
    _proof: FlatProof = field(default_factory=FlatProof)
    _rounds: int = 0
    _failures: int = 0
    _since_s: float = 0.0
    _fence: int = 0
    _published: VenueReport | None = None
    _refused: str = ""

    @property
    def venue(self) -> str:
        """The venue's name."""
        return self.sweep.calls.name

    @property
    def _ledger(self) -> FlattenLedger:
        return self.sweep.ledger

    def __post_init__(self) -> None:
        self._ledger.progress = self._report

    async def run(self) -> None:
        """Work until no stop stands, or until nothing is left and the owner is gone."""
        beat = asyncio.ensure_future(self._beat())
        try:
            while not self.abandoned():
                try:
                    if await self._turn():
                        return
                except Exception as fault:  # noqa: BLE001 - one bug must not end the closing
                    _log.error("flatten_turn_failed", venue=self.venue, trace=format_exc())
                    self._failures += 1
                    self.sweep.errors.add(f"{type(fault).__name__}: {fault}")
                await self._pause()
        finally:
            beat.cancel()
            await self._ledger.lease.give_up()

    async def _turn(self) -> bool:
        """Do what the stops ask for, once; True when nothing is left to do."""
        directive = await self._ledger.directive()
        if directive.mode is None:
            return await self._wound_up()
        lease = self._ledger.lease
        await self._ask_account()
        if not await lease.take(now_ms=self._ledger.now_ms()):
            await self._stand_by(directive)
            return self.leaving()
        if lease.fence != self._fence:
            # Another may have had the lease since: what it did is what counts.
            self._fence = lease.fence
            self._forget()
        await self._guarded_round(directive)
        return self.leaving() and self._finished()

    async def _ask_account(self) -> None:
        """Find out whose account would be closed; a venue that does not say holds no close back."""
        lease = self._ledger.lease
        if lease.asked:
            return
        try:
            lease.account_id = await self.sweep.calls.account_id()
            lease.asked = True
        except VenueUnavailable as fault:
            _log.warning("account_not_known", venue=self.venue, error=str(fault))

    async def _wound_up(self) -> bool:
        """After a release nothing is sent; closes that went out are still followed to their end."""
        if not any(hold.flatten for hold in self._ledger.open_intents()):
            return True
        self.sweep.errors.sentences.clear()
        await self.sweep.look_up(closing=True, only_own=True)
        return self.sweep.unresolved == 0 or self.leaving()

    async def _stand_by(self, directive: Directive) -> None:
        """Show what the flattener that holds the lease does; its progress is resumed after it."""
        self._forget()
        foreign = self._ledger.lease.foreign
        if foreign:
            # What the database keeps under this name is another account's, and no news of ours.
            if foreign != self._refused:
                _log.error("flatten_refused", venue=self.venue, error=foreign)
            self._refused = foreign
            self.publish(
                VenueReport(
                    self.venue,
                    KillState.CLOSING if directive.mode is _CLOSE else KillState.HALTED,
                    errors=(foreign,),
                    latch_ids=directive.latch_ids,
                )
            )
            return
        saved = await self._ledger.saved()
        if saved is not None and set(directive.latch_ids) <= set(saved.latch_ids):
            self.publish(saved)

    def _forget(self) -> None:
        self._state = KillState.INACTIVE
        self._proof = FlatProof()
        self._published = None

    async def _beat(self) -> None:
        """Keep the lease while a round takes its time."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._ledger.keep_alive()
            except Exception:  # noqa: BLE001 - a beat that fails is one beat
                _log.error("flatten_beat_failed", venue=self.venue, trace=format_exc())

    async def _guarded_round(self, directive: Directive) -> None:
        self.sweep.errors.sentences.clear()
        try:
            await self._begin(directive)
            await self._round(directive)
        except Exception as fault:  # noqa: BLE001 - a bug in one round must not end the closing
            _log.error("flatten_round_failed", venue=self.venue, trace=format_exc())
            self._proof = FlatProof()
            self.sweep.errors.add(f"{type(fault).__name__}: {fault}")
        self._failures = self._failures + 1 if self.sweep.errors.sentences else 0
        await self._deadline()
        await self._tell()

    def _finished(self) -> bool:
        if self._directive.mode is _CLOSE:
            return self._state is KillState.FLAT
        return self._quiet()

    def _quiet(self) -> bool:
        """Whether a halt has nothing left to cancel, by two rounds in a row."""
        sweep = self.sweep
        left = sweep.resting or sweep.unresolved or sweep.errors.sentences
        return not left and self._rounds >= QUIET_ROUNDS

    def _delay_s(self) -> float:
        config: KillSwitchConfig = self.sweep.config
        if self._state is KillState.INCOMPLETE:
            return float(config.slow_interval)
        if self.sweep.errors.sentences:
            backoff_s = BACKOFF_S * float(2 ** min(self._failures, 5))
            return min(backoff_s, config.idle_interval)
        if self._state is KillState.FLAT or (self._state is KillState.HALTED and self._quiet()):
            return config.idle_interval
        return FLAT_GAP_MS / 1000 if self._proof.first is not None else BUSY_PAUSE_S

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._delay_s()):
                await self.wake.wait()
        except TimeoutError:
            return
        self.wake.clear()

    async def _begin(self, directive: Directive) -> None:
        """Start anew when other stops ask than before; go on where somebody left off."""
        if self._state is not KillState.INACTIVE and directive == self._directive:
            return
        event = KillEvent.CLOSE if directive.mode is _CLOSE else KillEvent.HALT
        if self._state is not KillState.INACTIVE:
            if event is KillEvent.HALT and self._directive.mode is _CLOSE:
                # The closing stops were released and a halt stands: that is another stop.
                self._state = step(self._state, KillEvent.RELEASED)
            self._state = step(self._state, event)
        else:
            await self._resume(directive, event)
        self._directive = directive
        self._proof = FlatProof()
        self._rounds = 0
        self._since_s = self.sweep.clock.monotonic()

    async def _resume(self, directive: Directive, event: KillEvent) -> None:
        """Go on from the progress that was kept, where it served the same stops."""
        saved = await self._ledger.saved()
        wanted = set(directive.latch_ids)
        serves = saved is not None and bool(wanted) and wanted <= set(saved.latch_ids)
        mode = directive.mode
        if saved is None or mode is None or not serves or saved.state not in _RESUMED[mode]:
            self._state = step(self._state, event)
            return
        self._state = saved.state
        self.sweep.tally = CloseTally.resumed(saved.positions)
        self.sweep.cancelled = list(saved.cancelled)

    async def _round(self, directive: Directive) -> None:
        closing = directive.mode is _CLOSE
        self.sweep.moved = False
        await self.sweep.cancel(_CLOSE if closing else KillSwitchMode.HALT_ONLY)
        await self.sweep.look_up(closing=closing)
        if closing:
            await self.positions.close()
            if self.sweep.moved:
                self._not_flat()
            await self._prove()
        self._rounds += 1

    async def _prove(self) -> None:
        """Read the venue back; only that proves anything."""
        # An order of ours that has not ended may still change what is read now.
        terminal_ms = self.sweep.ended_ms()
        begun_ms = self._monotonic_ms()
        try:
            positions, orders = await asyncio.gather(
                self.sweep.calls.positions(), self.sweep.calls.open_orders()
            )
        except VenueUnavailable as fault:
            self.sweep.errors.add(str(fault))
            self._proof = self._proof.observe(None)
            return
        plans = await self.positions.plans(positions)
        self.sweep.resting = len(orders_to_cancel(orders, _CLOSE))
        clean = self.sweep.resting == 0 and all(plan.done for plan in plans)
        if not self._ledger.lease.asked:
            self.sweep.errors.add(UNNAMED)
            clean = False
        seen = Observation(begun_ms, self._monotonic_ms(), terminal_ms, clean)
        self._proof = self._proof.observe(seen)
        if clean and not self._ledger.fresh:
            self.sweep.errors.add(UNPROVEN)
        if not clean or self._ledger.open_intents():
            self._not_flat()
        elif self._proof.proven:
            if self._state is not KillState.FLAT:
                self._state = step(self._state, KillEvent.PROVEN_FLAT)
                await self._note_flat()
            # The positions as booked are read again, so that the last fills are in.
            if await self._ledger.directive() == self._directive:
                await self._ledger.align(positions, self.sweep.new_id)

    def _not_flat(self) -> None:
        if self._state is KillState.FLAT:
            # Something appeared afterwards: it gets the whole deadline.
            self._since_s = self.sweep.clock.monotonic()
        self._state = step(self._state, KillEvent.NOT_FLAT)

    async def _note_flat(self) -> None:
        positions = [position.to_data() for position in self.sweep.tally.reports()]
        latch_ids = list(self._directive.latch_ids)
        data = {"step": "FLAT", "latch_ids": latch_ids, "positions": positions}
        await self._ledger.note(self._ledger.row(self.sweep.new_id(), data))

    async def _deadline(self) -> None:
        """Page a human once the close has taken too long; it is tried on, more slowly."""
        elapsed_s = self.sweep.clock.monotonic() - self._since_s
        if self._state is not KillState.CLOSING or elapsed_s < self.sweep.config.close_deadline:
            return
        self._state = step(self._state, KillEvent.DEADLINE)
        data = self._report().to_data()
        _log.error("kill_incomplete", **data)
        row = self._ledger.row(self.sweep.new_id(), data, event=EventType.KILL_INCOMPLETE)
        await self._ledger.note(row)

    def _report(self) -> VenueReport:
        closing = self._directive.mode is _CLOSE
        return VenueReport(
            venue=self.venue,
            state=self._state,
            positions=self.sweep.tally.reports() if closing else (),
            cancelled=tuple(self.sweep.cancelled),
            errors=tuple(self.sweep.errors.sentences),
            resting=self.sweep.resting,
            unresolved=self.sweep.unresolved,
            latch_ids=self._directive.latch_ids,
            rounds=self._rounds,
        )

    async def _tell(self) -> None:
        """Publish the report, and keep it where it says something new."""
        report = self._report()
        self.publish(report)
        told = replace(report, rounds=0)
        if told != self._published and await self._ledger.save(report):
            self._published = told

    def _monotonic_ms(self) -> int:
        return int(self.sweep.clock.monotonic() * 1000)
