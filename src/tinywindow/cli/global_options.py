"""The options that every command takes, before it or after it. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["FLAGS", "WITH_VALUE", "hoisted", "subcommand"]

WITH_VALUE = frozenset({"--data-dir", "--config"})
FLAGS = frozenset({"--json"})


def subcommand(argv: Sequence[str]) -> str | None:
    """The first word that is neither a global option nor the value of one."""
    skip = False
    for word in argv:
        if skip:
            skip = False
        elif word in WITH_VALUE:
            skip = True
        elif not word.startswith("-"):
            return word
    return None


def hoisted(argv: Sequence[str], other_with_value: Iterable[str]) -> list[str]:
    """The same words with the global options in front.

    `other_with_value` are the commands' own options that take a value, so that a value that
    looks like a global option stays where it is. What follows `--` is left alone.
    """
    takes_value = frozenset(other_with_value)
    front: list[str] = []
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            return [*front, *rest, word, *words]
        target = front if word.partition("=")[0] in WITH_VALUE | FLAGS else rest
        target.append(word)
        if words and word in WITH_VALUE | takes_value:
            target.append(words.pop(0))
    return [*front, *rest]
