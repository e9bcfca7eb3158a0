"""Loggers that stop nothing: a log that cannot be written is lost, and the work goes on.

A full disk or a caller's own log processor must not make `activate()` or `submit()` raise.
"""

from __future__ import annotations

import structlog

__all__ = ["Log", "get_logger"]


class Log:
    """A structlog logger whose calls never raise."""

    __slots__ = ("_logger",)

    def __init__(self, logger: object) -> None:
        self._logger = logger

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        try:
            getattr(self._logger, level)(event, **fields)
        except Exception:  # noqa: BLE001 - whatever the log's fault is, the work goes on
            return

    def debug(self, event: str, **fields: object) -> None:
        """Log for whoever looks closely."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Log what is worth knowing."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log what deserves a look."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Log what is broken."""
        self._write("error", event, fields)

    def critical(self, event: str, **fields: object) -> None:
        """Log what a person must see now."""
        self._write("critical", event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """Log what is broken, with the exception at hand."""
        self._write("exception", event, fields)


def get_logger(name: str) -> Log:
    """A logger by the name of its module."""
    return Log(structlog.get_logger(name))
