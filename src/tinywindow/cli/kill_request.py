"""What the command `kill` was asked, read by hand: argparse alone costs a third of its time."""

from __future__ import annotations

from tinywindow.cli.who import printable

__all__ = ["HELP", "HINT", "KillRequest", "WrongUsage", "read_request"]

MODES = ("HALT_ONLY", "CLOSE_POSITIONS")
HINT = "usage: tinywindow kill --reason TEXT [--mode HALT_ONLY|CLOSE_POSITIONS] [--wait] [--json]"
HELP = f"""{HINT}
                       [--data-dir DIR] [--config FILE]

Stop trading at once. The stop is latched before this command says anything; nothing but
`tinywindow release` undoes it.

  --reason TEXT   why; it stands in the audit log
  --mode MODE     HALT_ONLY (default): no order that could grow a position is sent any more
                  CLOSE_POSITIONS: besides, everything of ours is cancelled and closed
  --wait          wait until every venue is flat, and close here if nobody else does
  --json          one JSON document on standard output
  --data-dir DIR  the data directory (TINYWINDOW_DATA_DIR, ~/.local/share/tinywindow)
  --config FILE   the configuration file (TINYWINDOW_CONFIG, ./tinywindow.toml)
"""
REASON_CHARS_MAX = 500
_WITH_VALUE = ("--reason", "--mode", "--data-dir", "--config")


class WrongUsage(Exception):
    """The words make no request; the message says why in one line."""


class KillRequest:
    """One request to stop."""

    def __init__(self) -> None:
        self.reason = ""
        self.mode = "HALT_ONLY"
        self.wait = False
        self.json = False
        self.help = False
        self.data_dir: str | None = None
        self.config: str | None = None


def read_request(argv: list[str]) -> KillRequest:
    """Read the words after `tinywindow`, global options anywhere.

    Raises:
        WrongUsage: with a one-line reason.
    """
    request = KillRequest()
    words = list(argv)
    named = False
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name in _WITH_VALUE and word.startswith("--"):
            if not equals:
                if not words:
                    raise WrongUsage(f"{name} needs a value")
                value = words.pop(0)
            setattr(request, name[2:].replace("-", "_"), value)
        elif word in {"--wait", "--json", "--help"}:
            setattr(request, word[2:], True)
        elif word == "kill" and not named:
            named = True
        else:
            raise WrongUsage(f"kill does not know {ascii(word)[:80]}")
    if not request.help:
        _check(request)
    return request


def _check(request: KillRequest) -> None:
    request.mode = request.mode.upper().replace("-", "_")
    if request.mode not in MODES:
        raise WrongUsage("--mode is HALT_ONLY or CLOSE_POSITIONS")
    request.reason = printable(" ".join(request.reason.split()))[:REASON_CHARS_MAX]
    if not request.reason:
        raise WrongUsage('kill needs --reason TEXT, such as --reason "it misbehaves"')
