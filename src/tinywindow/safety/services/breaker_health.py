"""The breaker's own health: is it still looked after, and does it still see equity?

Everything here is measured on the monotonic clock, in seconds, and concerns one process: a
monitor that died, a store that fails and a feed that fell silent are halts of their own. None of
them is latched: each ends when what was missing arrives.
"""

from __future__ import annotations

from typing import Final

from tinywindow.safety.domain.decision import Breach, Reason

__all__ = ["FAILURES_MAX", "INTERVALS_MAX", "MARK_GRACE_S", "BreakerHealth"]

INTERVALS_MAX: Final = 3
"""Monitor intervals after which the state that was last read counts as stale."""
FAILURES_MAX: Final = 3
"""Failed checks in a row that halt."""
MARK_GRACE_S: Final = 60.0
"""How long trading goes on, though without entries, when no trusted mark arrives."""


class BreakerHealth:
    """When the breaker was last checked, how often that failed, and when equity was last seen."""

    __slots__ = (
        "_checked_s",
        "_failure",
        "_grace_s",
        "_interval_s",
        "_marked_s",
        "_started_s",
        "_unaudited",
        "failures",
    )

    def __init__(self, now_s: float, *, interval_s: float, mark_age_max_s: float) -> None:
        self._started_s = now_s
        # A mark that is still trusted is no reason to halt, however long it may be trusted.
        self._grace_s = max(MARK_GRACE_S, mark_age_max_s)
        self._interval_s = interval_s
        self._checked_s: float | None = None
        self._marked_s = now_s
        self._failure = ""
        self.failures = 0
        self._unaudited = 0

    @property
    def ever_checked(self) -> bool:
        """Whether a check has ever succeeded."""
        return self._checked_s is not None

    @property
    def unaudited(self) -> int:
        """How many failed checks nobody has put on record yet."""
        return self._unaudited

    def audited(self, failures: int) -> None:
        """So many of the failed checks are on record now."""
        self._unaudited = max(0, self._unaudited - failures)

    def checked(self, now_s: float) -> None:
        """A check succeeded."""
        self._checked_s = now_s
        self.failures = 0

    def failed(self, message: str) -> None:
        """A check failed; it is counted until one succeeds."""
        self.failures += 1
        self._unaudited += 1
        self._failure = message

    def marked(self, now_s: float, *, age_ms: int) -> None:
        """A trusted mark of this age was seen."""
        self._marked_s = max(self._marked_s, now_s - max(age_ms, 0) / 1000)

    def halts(self, now_s: float) -> tuple[Breach, ...]:
        """Why the breaker counts as halted beside a trip, the gravest reason first.

        Before the first check there is a grace of three intervals.
        """
        since_s = self._started_s if self._checked_s is None else self._checked_s
        breaches = [*self._failing(), *self._stale(now_s - since_s)]
        blind_s = now_s - self._marked_s
        if blind_s > self._grace_s:
            message = f"no trusted equity mark for {blind_s:.1f} s; at most {self._grace_s:g} s"
            breaches.append(Breach(Reason.METRIC_UNKNOWN, f"{message} are borne"))
        return tuple(breaches)

    def entry_faults(self, now_s: float) -> tuple[Breach, ...]:
        """Why no entry may be sent, as far as the breaker's own health goes; without any grace."""
        if self._checked_s is None:
            message = "the breaker's state was not read yet"
            return (*self._failing(), Breach(Reason.MONITOR_STALE, message))
        return (*self._failing(), *self._stale(now_s - self._checked_s))

    def _failing(self) -> tuple[Breach, ...]:
        if self.failures < FAILURES_MAX:
            return ()
        message = f"{self.failures} checks in a row failed, the last with: {self._failure}"
        return (Breach(Reason.STATE_UNKNOWN, message),)

    def _stale(self, age_s: float) -> tuple[Breach, ...]:
        bound_s = INTERVALS_MAX * self._interval_s
        if age_s <= bound_s:
            return ()
        message = (
            f"the breaker's state is {age_s:.1f} s old; more than {bound_s:g} s, three monitor "
            "intervals, are not borne"
        )
        return (Breach(Reason.MONITOR_STALE, message),)
