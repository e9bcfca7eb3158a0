"""Words that come in with a stop, made safe to keep: a mode that nobody knows still stops."""

from __future__ import annotations

from typing import Final

from tinywindow.safety.domain.kill import KillSwitchMode

__all__ = ["clean_line", "known_mode"]

TEXT_CHARS_MAX: Final = 500


def known_mode(mode: KillSwitchMode | str, errors: list[str]) -> KillSwitchMode:
    """Read a mode; one that nobody knows still stops."""
    try:
        return KillSwitchMode(mode)
    except ValueError:
        errors.append(f"the mode {ascii(mode)[:80]} is not known: HALT_ONLY was taken")
        return KillSwitchMode.HALT_ONLY


def clean_line(text: object) -> str:
    """A caller's text as one bounded line."""
    line = "".join(char if char.isprintable() else " " for char in str(text)[:TEXT_CHARS_MAX])
    return line.encode("utf-8", "replace").decode("utf-8").strip()
