"""One command's session: its global options, its settings, and the store that it opens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import typer

from tinywindow.cli.output import Output
from tinywindow.data_folder import is_replay
from tinywindow.safety.config.layers import Layers, read_layers
from tinywindow.safety.errors import ConfigurationError, StoreUnavailable
from tinywindow.safety.services.context import ContextHandle, SafetyContext
from tinywindow.settings import Settings

__all__ = ["Exit", "GlobalOptions", "Session", "session_of"]

T = TypeVar("T")


class Exit:
    """The exit codes."""

    DONE: Final = 0
    SAID_NO: Final = 1
    WRONG_USAGE: Final = 2
    NOT_REACHED: Final = 3


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """What stood on the command line for every command."""

    data_dir: Path | None = None
    config: Path | None = None
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """Settings, where they came from, and where to print."""

    settings: Settings
    layers: Layers
    out: Output
    given: frozenset[str] = frozenset()
    """Settings that the command line gave."""

    @property
    def replay(self) -> bool:
        """Whether the data directory belongs to a replay."""
        return is_replay(self.settings.data_dir)

    @property
    def has_store(self) -> bool:
        """Whether there is a database yet."""
        path = self.settings.sqlite_path
        return path is None or path.exists()

    @contextlib.asynccontextmanager
    async def store(self) -> AsyncIterator[SafetyContext]:
        """Open the store with everything that stands beside it; one that is new is made.

        Raises:
            StoreUnavailable: it cannot be opened.
        """
        handle = ContextHandle(self.settings.db_connection, data_dir=self.settings.data_dir)
        try:
            yield await handle.open()
        finally:
            await handle.close()

    def with_store(self, work: Callable[[SafetyContext], Awaitable[T]]) -> T:
        """Run `work` on the open store, in an event loop of its own."""

        async def run() -> T:
            async with self.store() as context:
                return await work(context)

        try:
            return asyncio.run(run())
        except OSError as error:
            raise StoreUnavailable(f"the data directory cannot be used: {error}") from error


def session_of(ctx: typer.Context, *, replay_allowed: bool = False) -> Session:
    """Make a command's session from the global options.

    Raises:
        ConfigurationError: the configuration is wrong, or the data directory is a replay's and
            the command is not for one.
    """
    given: GlobalOptions = ctx.obj
    layers = read_layers(file=given.config)
    over = {} if given.data_dir is None else {"data_dir": given.data_dir}
    settings = Settings.from_layers(layers, **over)
    session = Session(settings, layers, Output(as_json=given.as_json), frozenset(over))
    if session.replay and not replay_allowed:
        raise ConfigurationError(
            f"{settings.data_dir} is the data directory of a replay, where nothing real trades; "
            "only a replay, status and audit work on it: name another one with --data-dir"
        )
    return session
