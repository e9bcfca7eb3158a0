"""Every fault TinyWindow raises, drawn as one tree.

A verdict is a value; an exception is a fault: a broken dependency, a wrong configuration, or a
bug. Nothing here means "your order was refused"; that is a `Refused`.

    SafetyError
    ├── ConfigurationError          the process must not start; lists every violation at once
    │   └── LimitsDiffer            this process is configured with other limits than the store's
    ├── DependencyError             something outside is broken; entries are refused meanwhile
    │   ├── StoreUnavailable        the database cannot be read or written
    │   │   └── LedgerBusy          the database is alive, but no turn came within the bound
    │   ├── StoreRolledBack         the database is older than the anchor kept outside it
    │   ├── DoorbellUnavailable     Redis cannot be read or rung
    │   ├── AuditUnwritable         an audit row cannot be written
    │   ├── ClockUntrusted          wall clock and monotonic clock disagree
    │   └── VenueUnavailable        an exchange cannot be reached
    ├── ReleaseRefused              a stop may not be released now; says why
    ├── ResetRefused                the circuit breaker may not be reset now; says why
    ├── StartRefused                trading may not be started now; says why
    └── InvariantBroken             a bug: what must always hold does not
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "AuditUnwritable",
    "ClockUntrusted",
    "ConfigurationError",
    "DependencyError",
    "DoorbellUnavailable",
    "InvariantBroken",
    "LedgerBusy",
    "LimitsDiffer",
    "ReleaseRefused",
    "ResetRefused",
    "SafetyError",
    "StartRefused",
    "StoreRolledBack",
    "StoreUnavailable",
    "VenueUnavailable",
]


class SafetyError(Exception):
    """The root of every fault raised by TinyWindow's safety layer."""


class ConfigurationError(SafetyError, ValueError):
    """The configuration is wrong; `violations` lists every sentence that must be mended."""

    def __init__(self, violations: str | Iterable[str]) -> None:
        sentences = (violations,) if isinstance(violations, str) else tuple(violations)
        self.violations: tuple[str, ...] = sentences
        super().__init__("; ".join(sentences))


class LimitsDiffer(ConfigurationError):
    """The limits given here differ from those in force in the store."""


class DependencyError(SafetyError):
    """Something outside this process is broken; what can grow risk is refused meanwhile."""


class StoreUnavailable(DependencyError):
    """The database cannot be read or written."""


class LedgerBusy(StoreUnavailable):
    """The database is alive, but no turn at it came within the bound."""


class StoreRolledBack(DependencyError):
    """The database is older than the anchor that is kept outside it."""


class DoorbellUnavailable(DependencyError):
    """Redis cannot be read or rung."""


class AuditUnwritable(DependencyError):
    """An audit row cannot be written; no audit, no entry."""


class ClockUntrusted(DependencyError):
    """The wall clock jumped, or stands before rows that were already written."""


class VenueUnavailable(DependencyError):
    """An exchange cannot be reached, or did not answer within the bound."""


class ReleaseRefused(SafetyError):
    """A standing stop may not be released now; the message says why."""


class ResetRefused(SafetyError):
    """The circuit breaker may not be reset now; the message says why."""


class StartRefused(SafetyError):
    """Trading may not be started now; the message says why."""


class InvariantBroken(SafetyError):
    """What must always hold does not: a bug in TinyWindow, never the caller's fault."""
