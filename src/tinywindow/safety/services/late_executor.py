"""An executor that still takes work while the interpreter ends.

The standard library's refuses every new task once the main thread has finished, which is just
when a flattener in another thread may still have to look up a host name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["LateExecutor"]

P = ParamSpec("P")
T = TypeVar("T")

CALLS_AT_ONCE = 64
"""Calls that hang, such as looking up one venue's host, must leave room for the other venues'."""


class LateExecutor(ThreadPoolExecutor):
    """Runs each call on a daemon thread of its own, a bounded number at once."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._turns = threading.BoundedSemaphore(CALLS_AT_ONCE)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call on a thread of its own."""
        future: Future[T] = Future()

        def work() -> None:
            with self._turns:
                if not future.set_running_or_notify_cancel():
                    return
                try:
                    result = fn(*args, **kwargs)
                except BaseException as fault:  # noqa: BLE001 - handed on whole, never dropped
                    future.set_exception(fault)
                else:
                    future.set_result(result)

        threading.Thread(target=work, name="tinywindow-late", daemon=True).start()
        return future
