"""Where durable state lives: what callers may pass as `db_connection`, made one location.

Accepted are an SQLAlchemy `AsyncEngine` (its URL is all that is taken from it), a URL of SQLite
or PostgreSQL, or the path of an SQLite file. Refused with a clear error are `None`, `:memory:`
and network file systems: a safety system without durable, locally locked state would forget a
stop.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tinywindow.safety.errors import ConfigurationError
from tinywindow.safety.ports import Clock
from tinywindow.safety.stores.pg.address import POSTGRES_SCHEMES, postgres_url

__all__ = ["DATA_DIR_VARIABLE", "Location", "default_data_dir", "locate"]

DATA_DIR_VARIABLE: Final = "TINYWINDOW_DATA_DIR"

_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs"}
)
_SQLITE_PREFIXES: Final = ("sqlite+aiosqlite://", "sqlite+pysqlite://", "sqlite://")


@dataclass(frozen=True, slots=True)
class Location:
    """One database and the data directory that belongs to it.

    `sqlite_path` is set for SQLite, where `url` is made from the resolved path, and None for
    PostgreSQL; `data_dir` holds the `KILL` file, the journal and the anchor.

    `wall` is the wall clock where the store is written on another one's time, such as a
    replay's: then every audit row of an SQLite store tells the wall's time, too.
    """

    url: str
    sqlite_path: Path | None
    data_dir: Path
    wall: Clock | None = None

    @property
    def anchor_path(self) -> Path:
        """The file with the heads of this database's audit chain."""
        if self.sqlite_path is None:
            return self.data_dir / "audit.anchor"
        return self.data_dir / f"{self.sqlite_path.name}.anchor"


def default_data_dir() -> Path:
    """The data directory of the command: `TINYWINDOW_DATA_DIR`, or one below the user's home."""
    configured = os.environ.get(DATA_DIR_VARIABLE)
    if configured:
        return Path(configured).expanduser()
    return Path("~/.local/share/tinywindow").expanduser()


def locate(db_connection: object, *, data_dir: Path | None = None) -> Location:
    """Resolve what a caller passed as its database.

    The data directory is the one given, else `TINYWINDOW_DATA_DIR`, else the folder of the
    SQLite file, else the command's default.

    Raises:
        ConfigurationError: for `None`, an in-memory or read-only database, a network file
            system, an unknown scheme, or an object of another kind.
    """
    if db_connection is None:
        raise ConfigurationError(
            "db_connection is None: a safety system without durable state is refused; "
            "pass an AsyncEngine, a database URL or the path of an SQLite file"
        )
    if isinstance(db_connection, Path):
        return _sqlite(db_connection, data_dir)
    url = _url_text(db_connection)
    for prefix in _SQLITE_PREFIXES:
        if url.startswith(prefix):
            return _sqlite(_sqlite_path(url.removeprefix(prefix)), data_dir)
    if url.partition("://")[0] in POSTGRES_SCHEMES:
        return Location(postgres_url(url), None, data_dir or default_data_dir())
    raise ConfigurationError(
        "db_connection must be an AsyncEngine, a sqlite or postgresql URL, or a Path to an "
        "SQLite file"
    )


def _url_text(db_connection: object) -> str:
    if isinstance(db_connection, str):
        return db_connection
    url = getattr(db_connection, "url", None)
    render = getattr(url, "render_as_string", None)
    if render is None:
        raise ConfigurationError(
            "db_connection must be an AsyncEngine, a database URL or a Path, "
            f"not a {type(db_connection).__name__}"
        )
    return str(render(hide_password=False))


def _sqlite_path(rest: str) -> Path:
    path, _, query = rest.partition("?")
    if "mode=ro" in query or "immutable=1" in query:
        raise ConfigurationError(
            "db_connection is a read-only database, which could not take a stop; open it to write"
        )
    if "mode=memory" in query or path in {"", "/", "/:memory:"}:
        raise ConfigurationError(
            "db_connection is an in-memory database: it would forget a stop; use a file"
        )
    if not path.startswith("/"):
        raise ConfigurationError("db_connection: a sqlite URL has three slashes before its path")
    return Path(path[1:])


def _sqlite(path: Path, data_dir: Path | None) -> Location:
    if str(path) == ":memory:" or str(path).startswith("file:"):
        raise ConfigurationError(
            "db_connection is an in-memory database: it would forget a stop; use a file"
        )
    resolved = path.expanduser().resolve()
    if resolved.is_dir():
        raise ConfigurationError(f"db_connection is a folder, not an SQLite file: {resolved}")
    kind = _file_system_of(resolved.parent)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise ConfigurationError(
            f"db_connection lies on a network file system ({kind}), where SQLite's locks and "
            "write-ahead log cannot be trusted; use a local disk"
        )
    configured = os.environ.get(DATA_DIR_VARIABLE)
    if data_dir is None:
        data_dir = Path(configured).expanduser() if configured else resolved.parent
    # Whoever changes the working directory must not change where a stop is looked for.
    return Location(f"sqlite:///{resolved}", resolved, data_dir.expanduser().resolve())


def _file_system_of(folder: Path) -> str:
    """The file system type of the mount that holds `folder`; empty when it cannot be told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    text = str(folder)
    for line in lines:
        fields = line.split(" ")
        mount = fields[4].replace("\\040", " ")
        inside = text == mount or text.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, fields[fields.index("-") + 1]
    return kind
