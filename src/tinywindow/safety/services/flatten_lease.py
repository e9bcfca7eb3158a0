"""The fenced lease: at most one flattener a venue, over all processes."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, replace
from typing import Final

from tinywindow.safety.domain.records import Lease
from tinywindow.safety.domain.venue_account import account_differs, account_key, known_account
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.bounded_store import BoundedStore
from tinywindow.safety.services.logs import get_logger

__all__ = ["LEASE_TTL_MS", "VenueLease", "heart_beats", "lease_name"]

LEASE_TTL_MS: Final = 5000
"""A flattener whose heartbeat is older has lost its lease to whoever asks."""

_log = get_logger(__name__)


def lease_name(venue: str) -> str:
    """The name of the lease under which one venue is flattened."""
    return f"flatten/{venue}"


def heart_beats(lease: Lease | None, *, now_ms: int) -> bool:
    """Whether a lease's owner was heard of lately; a clock that is far off is no heartbeat."""
    return lease is not None and abs(now_ms - lease.heartbeat_ms) <= LEASE_TTL_MS


@dataclass(slots=True)
class VenueLease:
    """One flattener's claim on one venue.

    The fence grows with every new owner, and every intent checks it in its own transaction, so
    an owner that slept cannot go on. The lock of the host stands in while the database is away.

    `account_id` is whose account would be closed, once the venue was `asked`; `foreign` what the
    database said against it when the lease was last asked for.
    """

    venue: str
    owner: str
    store: BoundedStore
    fence: int = 0
    asked: bool = False
    account_id: str | None = None
    foreign: str = ""
    _host_lock: int = -1

    async def take(self, *, now_ms: int) -> bool:
        """Take or keep the lease; False while another flattener's heart beats.

        Nor is it given for another account than the one that the database knows by this name.
        """
        name = lease_name(self.venue)

        def script(tx: Tx) -> tuple[int, str]:
            foreign = self._foreign(tx)
            if foreign:
                return 0, foreign
            lease = tx.lease(name)
            fence = 1 if lease is None else lease.fence
            if lease is not None and lease.owner != self.owner:
                if heart_beats(lease, now_ms=now_ms):
                    return 0, ""
                fence += 1
            tx.put_lease(Lease(name, self.owner, fence, now_ms))
            return fence, ""

        try:
            self.fence, self.foreign = await self.store.write(script)
        except StoreUnavailable:
            # What the database said of the account last counts while it is away.
            return not self.foreign and self.lock_host()
        if self.fence > 0:
            # Taken along where it is free, so that it is held when the database goes.
            self.lock_host()
        else:
            self.unlock_host()
        return self.fence > 0

    def _foreign(self, tx: Tx) -> str:
        if not self.asked:
            return ""
        known = known_account(tx.document(account_key(self.venue)))
        return account_differs(self.venue, known, self.account_id)

    async def keep(self, *, now_ms: int) -> None:
        """Beat a lease that stands; one that was lost is not taken back behind a round's back."""
        try:
            if not await self.store.write(lambda tx: self.mine(tx, now_ms=now_ms)):
                self.fence = 0
        except StoreUnavailable:
            return

    def stands(self, tx: Tx) -> bool:
        """Whether the lease still stands, inside the transaction that relies on it."""
        lease = tx.lease(lease_name(self.venue))
        return lease is not None and lease.owner == self.owner and lease.fence == self.fence

    def mine(self, tx: Tx, *, now_ms: int) -> bool:
        """The same, and beat it."""
        lease = tx.lease(lease_name(self.venue))
        if lease is None or not self.stands(tx):
            return False
        tx.put_lease(replace(lease, heartbeat_ms=now_ms))
        return True

    def lock_host(self) -> bool:
        """Take the lock of this host; False while another process has it."""
        if self._host_lock >= 0:
            return True
        folder = self.store.handle.data_dir
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"flatten-{self.venue}.lock"
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            _log.error("flatten_lock_failed", venue=self.venue, error=str(fault))
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._host_lock = handle
        return True

    def unlock_host(self) -> None:
        """Let another process of this host have the lock."""
        if self._host_lock >= 0:
            os.close(self._host_lock)
            self._host_lock = -1

    async def give_up(self) -> None:
        """Let another flattener begin at once."""
        self.unlock_host()
        if self.fence == 0:
            return
        name = lease_name(self.venue)

        def script(tx: Tx) -> None:
            lease = tx.lease(name)
            if lease is not None and lease.owner == self.owner:
                tx.put_lease(replace(lease, heartbeat_ms=0))

        try:
            await self.store.write(script)
        except StoreUnavailable as fault:
            _log.warning("flatten_lease_kept", venue=self.venue, error=str(fault))
        self.fence = 0
