"""Who types: the name that stands in the audit log. Standard library only."""

from __future__ import annotations

import os
import pwd

__all__ = ["actor", "printable"]

NAME_CHARS_MAX = 60


def actor() -> str:
    """The operating system's user of this process, as an actor of the command line."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"cli:uid-{os.getuid()}"
    return "cli:" + printable(name)[:NAME_CHARS_MAX]


def printable(text: str) -> str:
    """The text with a `?` in place of what does not print: no line breaks, no escapes."""
    return "".join(mark if mark.isprintable() else "?" for mark in text)
