"""What `kill` says, in plain lines. Standard library only."""

from __future__ import annotations

import sys

__all__ = ["add", "counted", "say", "say_elsewhere", "warn"]

NOTHING = "NOTHING WAS LATCHED. Trading may go on: stop the process, or the API keys."


def warn(line: str) -> None:
    """Print one line to standard error."""
    sys.stderr.write(f"tinywindow: {line}\n")


def add(lines: object, line: str) -> None:
    """Add a line to those that a report lists."""
    if isinstance(lines, list):
        lines.append(line)


def say(shown: dict[str, object], *, more: bool) -> None:
    """Say what this host holds; `more` when other places are still to be told."""
    for line in (*_lines(shown["errors"]), *_lines(shown["notes"])):
        warn(line)
    if not shown["latched"]:
        warn("this host holds nothing; database and Redis are told" if more else NOTHING)
        return
    places = [
        name
        for name, there in (
            ("the file KILL", shown["in_file"]),
            ("the database", shown["durable"]),
            ("the journal", shown["journalled"]),
        )
        if there
    ]
    _stopped(shown)
    sys.stdout.write(f"  held by {', '.join(places)} in {shown['data_dir']}\n")
    if shown["mode_in_force"] != shown["mode"]:
        sys.stdout.write(f"  in force is {shown['mode_in_force']}, by a stop that stood before\n")
    sys.stdout.flush()


def _stopped(shown: dict[str, object]) -> None:
    sys.stdout.write(
        f"Stopped: {shown['mode']} is latched as {shown['latch_id']}\n  reason  {shown['reason']}\n"
    )


def say_elsewhere(
    shown: dict[str, object], *, database: bool, here: bool, before: tuple[int, int]
) -> None:
    """Say what the places beyond this host hold, and the stop itself where not `here` already.

    `before` counts the lines that were said.
    """
    if shown["latched"] and not here:
        _stopped(shown)
    for name, there in (
        ("PostgreSQL", shown["durable"] if database else None),
        ("Redis", shown["in_redis"]),
    ):
        if there is not None:
            sys.stdout.write(f"  {'held by' if there else 'NOT held by'} {name}\n")
    sys.stdout.flush()
    errors, notes = before
    for line in (*_lines(shown["errors"])[errors:], *_lines(shown["notes"])[notes:]):
        warn(line)
    if not shown["latched"]:
        warn(NOTHING)


def counted(shown: dict[str, object]) -> tuple[int, int]:
    """How many errors and notes there are."""
    return len(_lines(shown["errors"])), len(_lines(shown["notes"]))


def _lines(value: object) -> list[str]:
    return [str(line) for line in value] if isinstance(value, list) else []
