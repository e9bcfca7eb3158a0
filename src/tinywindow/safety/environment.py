"""The catalogue of settings: every name that the environment and `tinywindow.toml` may use.

It is the whole program's, not only the safety layer's, so that a library user is not refused for
a name that the program knows. Standard library only; the command `kill` may import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

__all__ = [
    "FILE_NAME",
    "PREFIX",
    "SECTIONS",
    "TOP_LEVEL",
    "environment_violations",
    "file_violations",
    "known_variables",
    "nearest",
    "variable",
]

PREFIX: Final = "TINYWINDOW_"
FILE_NAME: Final = "tinywindow.toml"
TEST_PREFIX: Final = "TINYWINDOW_TEST_"
"""Names of the project's own test suite; they say where test servers are and set nothing."""
CONFIG: Final = "config"
"""The one name that only the environment has: where the file is."""

TOP_LEVEL: Final = ("data_dir", "database", "redis")

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "circuit_breaker": (
        "daily_loss_limit",
        "drawdown_limit",
        "max_trades_per_hour",
        "error_rate_limit",
        "error_rate_min_samples",
        "consecutive_failure_limit",
        "monitor_interval",
        "equity_max_age",
        "day_start",
        "day_timezone",
        "tight_limits",
        "cancel_entries_on_trip",
    ),
    "position_limits": (
        "max_position_size",
        "max_total_exposure",
        "max_leverage",
        "max_sector_exposure_pct",
        "allowed_symbols",
        "price_max_age",
        "equity_max_age",
        "price_collar_pct",
        "reservation_ttl",
        "position_max_age",
        "sectors",
        "quote_usd",
    ),
    "kill_switch": (
        "two_person",
        "cancel_entries_on_trip",
        "close_deadline",
        "report_wait",
        "write_timeout",
        "read_timeout",
        "order_timeout",
        "venue_timeout",
        "in_flight_grace",
        "watch_interval",
        "idle_interval",
        "slow_interval",
        "release_ttl",
    ),
    "run": (
        "strategy",
        "scenario",
        "seed",
        "symbols",
        "venue",
        "balance",
        "cycle_interval",
        "host",
        "port",
    ),
    "paper": (
        "latency",
        "latency_jitter",
        "reject_chance",
        "limit_partial_chance",
        "market_partial_chance",
    ),
    "logging": ("level", "format"),
}
"""The fields of each section: a table in the file, `TINYWINDOW_TABLE__FIELD` outside it."""


def variable(section: str | None, field: str) -> str:
    """The environment variable that sets a field; `section` is None for those of no section."""
    name = field if section is None else f"{section}__{field}"
    return PREFIX + name.upper()


def known_variables() -> frozenset[str]:
    """Every environment variable that TinyWindow reads."""
    names = {variable(None, field) for field in (*TOP_LEVEL, CONFIG)}
    names.update(variable(section, field) for section, own in SECTIONS.items() for field in own)
    return frozenset(names)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`, or None when nothing is like it."""
    import difflib  # noqa: PLC0415 - only a misspelt name needs it, and it costs start-up time

    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return found[0] if found else None


def environment_violations(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each `TINYWINDOW_` variable that nothing reads; values are not shown."""
    known = known_variables()
    sentences = []
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX) or name in known or name.startswith(TEST_PREFIX):
            continue
        sentences.append(
            f"environment variable {ascii(name)[1:-1][:120]}: unknown name"
            + _hint(name.upper(), known)
        )
    return sentences


def file_violations(document: Mapping[str, object], source: str) -> list[str]:
    """A sentence for each key of a configuration file that nothing reads; values are not shown."""
    sentences = []
    for key, value in document.items():
        if key in TOP_LEVEL:
            continue
        own = SECTIONS.get(key)
        if own is None:
            hint = _hint(key, (*TOP_LEVEL, *SECTIONS))
            sentences.append(f"{source}: unknown key {_quoted(key)}{hint}")
        elif not isinstance(value, Mapping):
            sentences.append(f"{source}: {key} is not a table; wanted [{key}]")
        else:
            sentences.extend(
                f"{source}: unknown key {_quoted(name)} in [{key}]{_hint(name, own)}"
                for name in value
                if name not in own
            )
    return sentences


def _hint(name: str, known: Iterable[str]) -> str:
    found = nearest(name, known)
    return "" if found is None else f"; the nearest known one is {found}"


def _quoted(name: str) -> str:
    return ascii(name)[:80]
