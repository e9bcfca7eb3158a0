"""Whether any process committed: a thread that polls the head row, so that no loop has to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, LiteralString

import psycopg

from tinywindow.safety.domain.records import Head, TradingState
from tinywindow.safety.errors import ConfigurationError, StoreUnavailable
from tinywindow.safety.stores.pg.link import Link

__all__ = ["POLL_INTERVAL_S", "HeadWatch", "token_of"]

POLL_INTERVAL_S: Final = 0.03
"""How often the head is read; with the read itself, a commit is seen within 50 ms."""
RETRY_INTERVAL_S: Final = 0.2
"""How often a database that is away is tried again."""
UNKNOWN: Final = -1

_POLL: Final[LiteralString] = (
    "SELECT version + stop_epoch + audit_seq, 2 * stop_epoch + (trading = 'STOPPED')::int"
    " FROM head WHERE id = 1"
)


def token_of(head: Head) -> int:
    """A number that moves with every commit that the book or the audit log shows."""
    return head.version + head.stop_epoch + head.audit_seq


def stops_of(head: Head) -> int:
    """A number that moves with every stop, trip and start, whoever made it."""
    return 2 * head.stop_epoch + (head.trading is TradingState.STOPPED)


class HeadWatch:
    """The newest token; its thread starts with the first question."""

    def __init__(self, link: Link, head: Head) -> None:
        self._link = link
        self._token = token_of(head)
        self._stops = stops_of(head)
        self._seen = 0
        self._waiting: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def token(self) -> int:
        """The newest token known; -1 when the database is away or the watch has ended."""
        if self._ended.is_set():
            return UNKNOWN
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._poll, name="tinywindow-head-watch", daemon=True
            )
            self._thread.start()
        return self._token

    def stops(self) -> int:
        """What `stops_of` says of the newest token's head; -1 when the database is away."""
        return self._stops

    def tell(self, since: int, notify: Callable[[], None]) -> bool:
        """Call `notify` once the token has moved on from `since`; False when it has already."""
        with self._lock:
            if self._token != since:
                return False
            self._waiting.append(notify)
            return True

    def untell(self, notify: Callable[[], None]) -> None:
        """Call it no more: whoever waited has gone."""
        with self._lock:
            if notify in self._waiting:
                self._waiting.remove(notify)

    def saw(self, head: Head) -> None:
        """Take on the head that this store's writer holds locked, or committed just now."""
        with self._lock:
            self._seen += 1
            self._move(token_of(head), stops_of(head))

    def _move(self, token: int, stops: int) -> None:
        if self._ended.is_set():
            token = stops = UNKNOWN
        # The token last: whoever sees it move finds the stops that belong to it.
        self._stops = stops
        if token == self._token:
            return
        self._token = token
        waiting, self._waiting = self._waiting, []
        for notify in waiting:
            notify()

    def _poll(self) -> None:
        pause, known = POLL_INTERVAL_S, self._seen
        while not self._ended.wait(pause):
            before = self._seen
            if before != known:
                # Whoever writes all the time sees the head all the time.
                known, pause = before, POLL_INTERVAL_S / 2
                continue
            try:
                row = self._link.get().run_prepared("tinywindow_poll", _POLL).fetchone()
                token, stops = (UNKNOWN, UNKNOWN) if row is None else (int(row[0]), int(row[1]))
                pause = POLL_INTERVAL_S
            except (psycopg.Error, StoreUnavailable, ConfigurationError):
                self._link.drop()
                token, stops, pause = UNKNOWN, UNKNOWN, RETRY_INTERVAL_S
            with self._lock:
                # An answer from before what the writer saw would go back behind it.
                if self._seen == before:
                    self._move(token, stops)
        self._link.drop()

    def stop(self) -> None:
        """End the thread; it lets go of its connection by itself, and whoever waits is told."""
        with self._lock:
            self._ended.set()
            self._move(UNKNOWN, UNKNOWN)
