"""Where a stop belongs, by the configuration as far as it can be read. Standard library only.

A stop does not wait for a configuration's mending: where the file is broken, the environment and
the defaults say where the databases are.
"""

from __future__ import annotations

import os

from tinywindow.cli.kill_request import KillRequest

__all__ = ["Places", "places_of"]

DATABASE_FILE = "tinywindow.db"
CONFIG_FILE = "tinywindow.toml"
_SQLITE = ("sqlite:///", "sqlite+aiosqlite:///")
_POSTGRES = "postgresql"


class Places:
    """The places that are to hold a stop; None where one is not configured.

    `sqlite` is the path of the file, `postgres` and `redis` are URLs, which may hold passwords.
    """

    def __init__(self, data_dir: str) -> None:
        self.data_dir = data_dir
        self.sqlite: str | None = None
        self.postgres: str | None = None
        self.redis: str | None = None
        self.unknown_database = False


def places_of(request: KillRequest, notes: list[str]) -> Places:
    """Read them; what was passed over on the way is said in `notes`."""
    document = _document(request, notes)
    data_dir = (
        request.data_dir
        or os.environ.get("TINYWINDOW_DATA_DIR")
        or _text(document.get("data_dir"))
        or "~/.local/share/tinywindow"
    )
    places = Places(os.path.abspath(os.path.expanduser(data_dir)))
    places.redis = os.environ.get("TINYWINDOW_REDIS") or _text(document.get("redis")) or None
    url = os.environ.get("TINYWINDOW_DATABASE") or _text(document.get("database"))
    if not url:
        places.sqlite = os.path.join(places.data_dir, DATABASE_FILE)
    elif url.startswith(_POSTGRES):
        places.postgres = url
    else:
        for prefix in _SQLITE:
            if url.startswith(prefix):
                places.sqlite = url.removeprefix(prefix).partition("?")[0]
        places.unknown_database = places.sqlite is None
    return places


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _document(request: KillRequest, notes: list[str]) -> dict[str, object]:
    """The configuration file, as far as it can be read."""
    named = request.config or os.environ.get("TINYWINDOW_CONFIG")
    path = os.path.expanduser(named or CONFIG_FILE)
    if not os.path.exists(path):
        if named:
            notes.append(f"there is no configuration file {path}")
        return {}
    import tomllib  # noqa: PLC0415 - most often there is no such file

    try:
        with open(path, "rb") as handle:
            return tomllib.load(handle)
    except (OSError, ValueError, RecursionError) as fault:
        notes.append(f"the configuration file {path} was passed over: {fault}")
        return {}
