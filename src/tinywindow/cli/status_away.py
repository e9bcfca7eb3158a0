"""What `status` can still say while the database is away: what stands in the data directory."""

from __future__ import annotations

from tinywindow.cli.output import Output, text
from tinywindow.cli.session import Session
from tinywindow.safety.domain.kill import effective_mode
from tinywindow.safety.services.kill_file import KillFile
from tinywindow.safety.stores.latch_fields import latch_to_fields

__all__ = ["host_data", "show_host"]

MEANWHILE = "entries are refused until the database can be read again"


def host_data(session: Session, error: str) -> dict[str, object]:
    """The keys of `status`, with None for everything that only the database knows."""
    latches = KillFile(session.settings.data_dir / "KILL").read()
    mode = effective_mode(latches)
    newest = latches[-1] if latches else None
    return {
        "kill_switch": {
            # Without a file there may be a stop all the same: that is not known.
            "active": True if latches else None,
            "mode": None if mode is None else mode.value,
            "reason": "" if newest is None else newest.reason,
            "activated_at": None if newest is None else newest.activated_at,
            "actor": None if newest is None else newest.actor,
            "source": None if newest is None else newest.source.value,
            "state": "UNKNOWN",
            "venues": {},
            "latch_ids": [latch.id for latch in latches],
            "unknown": [error],
            "closing": None,
            "in_file": [latch_to_fields(latch) for latch in latches],
        },
        "circuit_breaker": None,
        "trading": "UNKNOWN",
        "limits": None,
        "venues": None,
        "audit": None,
        "entries_refused": True,
        "error": error,
    }


def show_host(session: Session, out: Output) -> None:
    """The same for people."""
    folder = text(session.settings.data_dir)
    latches = KillFile(session.settings.data_dir / "KILL").read()
    out.say(f"trading          [yellow]UNKNOWN[/yellow]; {MEANWHILE}")
    for latch in latches:
        out.say(
            f"kill switch      [bold red]{text(latch.mode.value)}[/bold red]  "
            f"{text(latch.id)}, in the file KILL",
            f"                 {text(latch.reason)}",
            f"                 by {text(latch.actor)}, {text(latch.activated_at)}",
        )
    if not latches:
        out.say(
            f"kill switch      [yellow]UNKNOWN[/yellow]; there is no file KILL in {folder}, "
            "which says nothing of stops in the database"
        )
    for what in ("circuit breaker", "limits, venues"):
        out.say(f"{what:17}[yellow]UNKNOWN[/yellow]")
