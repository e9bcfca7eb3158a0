"""Releasing stops: by name, everywhere, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.kill import (
    KillState,
    KillSwitchMode,
    Latch,
    LatchSource,
)
from tinywindow.safety.domain.records import HoldState
from tinywindow.safety.errors import DoorbellUnavailable, ReleaseRefused, StoreUnavailable
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.kill_report import KillSwitchStatus
from tinywindow.safety.services.logs import get_logger
from tinywindow.safety.services.stop_register import StopRegister
from tinywindow.safety.services.times import to_ms

__all__ = ["PendingRelease", "Releaser"]

_UNDER_WAY: Final = frozenset({KillState.CLOSING, KillState.INCOMPLETE})

_log = get_logger(__name__)


@dataclass(slots=True)
class PendingRelease:
    """A release that a second operator must confirm, once, within its time.

    It covers exactly `latch_ids`: a stop that comes later stands.
    """

    id: str
    latch_ids: tuple[str, ...]
    requested_by: str
    reason: str
    expires_at: datetime
    _confirm: Callable[[PendingRelease, str, str], Awaitable[KillSwitchStatus]] = field(repr=False)
    used: bool = False

    async def confirm(self, actor: str, reason: str = "") -> KillSwitchStatus:
        """Release, as another person than the one who asked.

        Raises:
            ReleaseRefused: the same person, no name, too late, or used before.
        """
        return await self._confirm(self, actor, reason)


class _Chance:
    """A release's one chance: taken by its script, or given up by whoever waits no longer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = self._given_up = False

    def take(self) -> bool:
        """Whether the script may go on; then it may be committed, whenever that is."""
        with self._lock:
            self._taken = not self._given_up
            return self._taken

    def give_up(self) -> bool:
        """Whether the script did not begin, and never will."""
        with self._lock:
            self._given_up = True
            return not self._taken


@dataclass(slots=True)
class Releaser:
    """Clears named latches from database, Redis and file; if one fails, a stop stands."""

    register: StopRegister
    new_id: Callable[[], str]

    def check(self, status: KillSwitchStatus, ids: frozenset[str], *, closing: bool) -> None:
        """Say no where a release would be wrong now.

        `closing` says that somebody closes positions, or has to.

        Raises:
            ReleaseRefused: the state is unknown, or a close that would end is under way.
        """
        if status.unknown:
            raise ReleaseRefused(f"STATE_UNKNOWN: {'; '.join(status.unknown)}")
        ends = [
            latch
            for latch in status.latches
            if latch.id in ids and latch.mode is KillSwitchMode.CLOSE_POSITIONS
        ]
        if ends and closing and status.state in _UNDER_WAY:
            venues = ", ".join(
                f"{name} is {venue.state}"
                for name, venue in status.venues.items()
                if venue.state is not KillState.FLAT
            )
            raise ReleaseRefused(
                f"a close is running ({venues or 'it has just begun'}); wait until it is flat, or "
                "release with force=True, which stops it and leaves the positions open"
            )

    async def release(
        self, ids: frozenset[str], *, by: str, reason: str, force: bool
    ) -> tuple[str, ...]:
        """Turn latches into tombstones, then clear Redis and the file; gives what was released.

        Raises:
            ReleaseRefused: one of the three could not be cleared; then a stop stands.
        """
        register = self.register
        try:
            await register.look(timeout_s=register.config.read_timeout)
        except DoorbellUnavailable as fault:
            raise ReleaseRefused(f"Redis cannot be cleared: {fault}") from fault
        row_id = self.new_id()
        now = register.clock.now()
        chance = _Chance()

        def script(tx: Tx) -> tuple[str, ...]:
            if not chance.take():
                raise ReleaseRefused("the release was given up before its turn came")
            unknown = [h for h in tx.book().holds.values() if h.state is HoldState.UNKNOWN]
            if unknown and not force:
                raise ReleaseRefused(
                    f"the outcome of {len(unknown)} sent orders is not known, such as "
                    f"{unknown[0].client_order_id}; reconcile them first, or force the release"
                )
            released = tuple(
                latch_id
                for latch_id in sorted(ids)
                if tx.release_latch(latch_id, at_ms=to_ms(now), by=by, reason=reason)
            )
            if released:
                data = {"latch_ids": list(released), "reason": reason, "forced": force}
                # The rows of the stops come first: a release follows what it releases.
                tx.drain_outbox()
                tx.audit(AuditDraft(row_id, now, EventType.KILL_SWITCH_DEACTIVATE, by, data))
            return released

        try:
            released = await register.store.write(script)
        except StoreUnavailable as fault:
            if not chance.give_up() and not await self._all_stand(ids, fault):
                await self._stand_again("the database did not say what became of it")
            raise ReleaseRefused(f"the database cannot be written: {fault}") from fault
        register.notes.released(ids)
        failures = await self._clear(ids)
        if failures:
            await self._stand_again("; ".join(failures))
            raise ReleaseRefused(
                f"the release could not be completed, so a stop stands: {'; '.join(failures)}"
            )
        for latch_id in ids:
            register.let_go(latch_id)
        self._remember(released)
        return released

    async def _all_stand(self, ids: frozenset[str], fault: StoreUnavailable) -> bool:
        """Whether a release that failed is known to have done nothing, and to do nothing yet."""
        if isinstance(fault.__cause__, TimeoutError):
            return False
        try:
            view = await self.register.view(ids, timeout_s=self.register.config.read_timeout)
        except StoreUnavailable:
            return False
        return all(view.known.get(latch_id, fault) is None for latch_id in ids)

    async def _clear(self, ids: frozenset[str]) -> list[str]:
        """Clear Redis and the file of the released latches; gives what went wrong."""
        failures = []
        if self.register.doorbell is not None:
            try:
                await self.register.doorbell.silence(ids)
            except DoorbellUnavailable as fault:
                failures.append(f"Redis could not be cleared: {fault}")
        try:
            self.register.store.kill_file.remove(ids)
        except OSError as fault:
            failures.append(f"the file KILL could not be removed: {fault}")
        return failures

    async def _stand_again(self, why: str) -> None:
        """Latch a halt in place of what was released only in part."""
        register = self.register
        latch = Latch(
            self.new_id(),
            KillSwitchMode.HALT_ONLY,
            f"a release could not be completed: {why}",
            "release",
            LatchSource.PYTHON,
            register.clock.now(),
        )
        register.hold(latch)
        if await register.commit(latch) is not None:
            register.write_journal(latch)
        _log.error("release_not_completed", latch_id=latch.id, why=why)

    def _remember(self, released: tuple[str, ...]) -> None:
        """Leave tombstones in the journal, where there is one: its latches are history then."""
        journal = self.register.store.journal
        if not journal.path.exists():
            return
        try:
            for latch_id in released:
                journal.append({"kind": "release", "id": latch_id})
        except OSError as fault:
            _log.warning("release_not_journalled", error=str(fault))


def pending_release(
    latch_ids: tuple[str, ...],
    *,
    release_id: str,
    by: str,
    reason: str,
    now: datetime,
    ttl_s: float,
    confirm: Callable[[PendingRelease, str, str], Awaitable[KillSwitchStatus]],
) -> PendingRelease:
    """A release that waits for its second operator.

    Raises:
        ReleaseRefused: nobody is named who asks for it.
    """
    if not by.strip():
        raise ReleaseRefused("a release by two persons needs the name of the one who asks")
    return PendingRelease(
        release_id, latch_ids, by, reason, now + timedelta(seconds=ttl_s), confirm
    )


def check_second(pending: PendingRelease, actor: str, now: datetime) -> None:
    """Say whether `actor` may confirm; marks the pending release as used.

    Raises:
        ReleaseRefused: the same person, no name, too late, or used before.
    """
    name = actor.strip().casefold()
    if not name:
        raise ReleaseRefused("a confirmation needs the name of the operator")
    if name == pending.requested_by.strip().casefold():
        raise ReleaseRefused("the operator who asked for a release may not confirm it")
    if pending.used:
        raise ReleaseRefused("this release was confirmed before")
    if now >= pending.expires_at:
        raise ReleaseRefused("this release has expired; ask for another")
    pending.used = True
