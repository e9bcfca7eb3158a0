"""The data directory: a replay's is marked, and a directory serves one kind of run for good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tinywindow.safety.errors import ConfigurationError

__all__ = ["REPLAY_MARK", "claim_folder", "default_folder", "is_replay"]

REPLAY_MARK: Final = "REPLAY"
"""A file of this name marks a data directory as a replay's: its times are the market's."""


def is_replay(data_dir: Path) -> bool:
    """Whether the directory belongs to a replay."""
    return (data_dir / REPLAY_MARK).exists()


def default_folder(data_dir: Path) -> Path:
    """Where a replay goes when nobody names a directory: beside the one for trading."""
    return data_dir.with_name(data_dir.name + "-replay")


def claim_folder(data_dir: Path, *, replay: Sequence[Path]) -> None:
    """Make the directory, and take it for a replay or for trading, whichever it is for.

    Raises:
        ConfigurationError: it belongs to a run of the other kind, or to a replay of other files.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark = data_dir / REPLAY_MARK
    names = sorted(path.name for path in replay)
    if not replay:
        if mark.exists():
            raise ConfigurationError(
                f"{data_dir} belongs to a replay, whose times are the market's: "
                "name another directory with --data-dir"
            )
        return
    if mark.exists():
        known = _names(mark)
        if known != names:
            raise ConfigurationError(
                f"{data_dir} belongs to a replay of {', '.join(known) or 'other files'}: "
                "name another directory with --data-dir"
            )
        return
    if any(data_dir.glob("*.db")):
        raise ConfigurationError(
            f"{data_dir} holds a database of real time, where no replay may write: "
            "name another directory with --data-dir"
        )
    mark.write_text(json.dumps(names) + "\n", "utf-8")


def _names(mark: Path) -> list[str]:
    try:
        names = json.loads(mark.read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []
