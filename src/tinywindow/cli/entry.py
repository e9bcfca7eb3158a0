"""Where the command `tinywindow` begins. Standard library only, so that `kill` starts at once."""

from __future__ import annotations

import os
import sys

from tinywindow.cli.global_options import subcommand

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line and give the exit code.

    0: done. 1: a check said no. 2: wrong usage or configuration. 3: a store or a venue could
    not be reached.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        # Each way is imported where it is taken: `kill` must not pay for the other.
        if subcommand(words) == "kill":
            from tinywindow.cli.kill import kill  # noqa: PLC0415

            return kill(words)
        from tinywindow.cli.app import run  # noqa: PLC0415

        return run(words)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not complain about it at the exit.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - to the end
        return 0


if __name__ == "__main__":
    sys.exit(main())
