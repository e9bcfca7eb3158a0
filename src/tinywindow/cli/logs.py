"""Where logs go: standard error, always; standard output belongs to the command's answer."""

from __future__ import annotations

import logging
import sys

import structlog

__all__ = ["logs_to_stderr"]


def logs_to_stderr(level: str = "warning", *, as_json: bool = False) -> None:
    """Send what is logged at `level` and above to standard error, as text or as JSON lines."""
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
