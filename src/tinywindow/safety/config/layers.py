"""Where settings come from besides code: the environment, then the file.

A layer only finds raw values; what they must be is for the fields' rules to say.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tinywindow.safety.environment import (
    CONFIG,
    FILE_NAME,
    environment_violations,
    file_violations,
    variable,
)

__all__ = ["Found", "Layers", "read_layers", "using"]

FILE_BYTES_MAX: Final = 1_048_576


@dataclass(frozen=True, slots=True)
class Found:
    """A raw value and where it was found, in words."""

    value: object
    origin: str


@dataclass(frozen=True, slots=True)
class Layers:
    """The environment over the file. `violations` are what is wrong with either as a whole."""

    environ: Mapping[str, str] = field(default_factory=dict)
    document: Mapping[str, object] = field(default_factory=dict)
    file: Path | None = None
    violations: tuple[str, ...] = ()

    def find(self, section: str | None, name: str) -> Found | None:
        """The strongest value of a field: the environment's, else the file's, else None."""
        key = variable(section, name)
        if key in self.environ:
            return Found(self.environ[key], f"environment variable {key}")
        table = self.document if section is None else self.document.get(section)
        if isinstance(table, Mapping) and name in table:
            where = "" if section is None else f" [{section}]"
            return Found(table[name], f"{self.file}{where}")
        return None


def read_layers(
    environ: Mapping[str, str] | None = None, *, file: str | Path | None = None
) -> Layers:
    """Read the environment and the configuration file, and collect what is wrong with them.

    The file is the one given, else what `TINYWINDOW_CONFIG` names, else `./tinywindow.toml`
    where there is one. A file that is named must exist.
    """
    environ = os.environ if environ is None else environ
    named = file or environ.get(variable(None, CONFIG)) or None
    path = Path(FILE_NAME) if named is None else Path(named).expanduser()
    document, violations = _read_file(path, must_exist=named is not None)
    violations = [*environment_violations(environ), *violations]
    return Layers(environ, document, path if document or path.exists() else None, tuple(violations))


def _read_file(path: Path, *, must_exist: bool) -> tuple[dict[str, object], list[str]]:
    try:
        with path.open("rb") as handle:
            raw = handle.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}, [f"configuration file {path}: there is no such file"] if must_exist else []
    except OSError as error:
        return {}, [f"configuration file {path}: cannot be read: {error.strerror}"]
    if len(raw) > FILE_BYTES_MAX:
        return {}, [f"configuration file {path}: larger than {FILE_BYTES_MAX} bytes"]
    try:
        document = tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return {}, [f"configuration file {path}: is not UTF-8 text"]
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return {}, [f"configuration file {path}: is no TOML: {error}"]
    return document, file_violations(document, str(path))


_in_use: ContextVar[Layers | None] = ContextVar("tinywindow_layers", default=None)


@contextmanager
def using(layers: Layers) -> Iterator[None]:
    """Let configuration objects made inside the block read these layers."""
    token = _in_use.set(layers)
    try:
        yield
    finally:
        _in_use.reset(token)


def current_layers() -> Layers:
    """The layers in use, or those of this process."""
    return _in_use.get() or read_layers()
