"""Global options stand before or after the subcommand; values are left alone."""

from __future__ import annotations

import pytest

from tinywindow.cli.global_options import hoisted, subcommand


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("kill", "kill"),
        ("--json kill", "kill"),
        ("--data-dir kill status", "status"),
        ("--data-dir=kill status --json", "status"),
        ("--config x --data-dir y --json kill --reason z", "kill"),
        ("--help", None),
        ("", None),
    ],
)
def test_the_subcommand_is_the_first_word_that_is_no_option(words: str, wanted: str) -> None:
    assert subcommand(words.split()) == wanted


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("status --json", "--json status"),
        ("status --data-dir D --config=F", "--data-dir D --config=F status"),
        ("release --reason --json", "release --reason --json"),
        ("check -- --json", "check -- --json"),
        ("status --data-dir", "--data-dir status"),
    ],
)
def test_hoisting(words: str, wanted: str) -> None:
    assert hoisted(words.split(), {"--reason"}) == wanted.split()
