"""Every command but the fast `kill`: the typer application, and how faults become exit codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from tinywindow import __version__
from tinywindow.cli import (
    audit,
    check,
    db,
    doctor,
    release,
    replay,
    reset,
    run_command,
    status,
    trading,
)
from tinywindow.cli.global_options import FLAGS, hoisted
from tinywindow.cli.kill_request import HELP as KILL_HELP
from tinywindow.cli.logs import logs_to_stderr
from tinywindow.cli.output import Output
from tinywindow.cli.session import Exit, GlobalOptions
from tinywindow.safety.errors import ConfigurationError, DependencyError, SafetyError

__all__ = ["app", "run"]

app = typer.Typer(
    name="tinywindow",
    help="The safety layer between a trading decision and the exchange.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"tinywindow {__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    *,
    data_dir: Annotated[
        Path | None, typer.Option(help="The data directory.", metavar="DIR")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The configuration file.", metavar="FILE")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Take the options that every command has, before it or after it."""
    del version
    ctx.obj = GlobalOptions(data_dir, config, as_json)


run_command.register(app)
status.register(app)
# Listed here for the help; `entry.main` takes the fast way before this module is loaded.
app.command("kill", help=KILL_HELP.partition("\n\n")[2].partition("\n\n")[0])(lambda: None)
release.register(app)
trading.register(app)
reset.register(app)
check.register(app)
replay.register(app)
app.add_typer(audit.app, name="audit")
doctor.register(app)
app.add_typer(db.app, name="db")


def run(argv: Sequence[str]) -> int:
    """Run one command and give the exit code."""
    logs_to_stderr()
    command = get_command(app)
    words = hoisted(argv, set(_with_value(command)))
    output = Output(as_json=bool(FLAGS & set(words)))
    try:
        result = command.main(args=words, prog_name="tinywindow", standalone_mode=False)
    except ConfigurationError as error:
        return _failed(output, Exit.WRONG_USAGE, "the configuration is wrong", error.violations)
    except DependencyError as error:
        return _failed(output, Exit.NOT_REACHED, str(error))
    except SafetyError as error:
        return _failed(output, Exit.SAID_NO, str(error))
    except typer.Abort:
        return _failed(output, Exit.SAID_NO, "given up; nothing was changed")
    except Exception as error:  # only the parser's own complaint is answered
        if not hasattr(error, "format_message"):
            raise
        return _failed(output, Exit.WRONG_USAGE, _usage(error))
    return result if isinstance(result, int) else Exit.DONE


def _usage(error: Exception) -> str:
    """The parser's complaint and a hint, in one line."""
    context = getattr(error, "ctx", None)
    path = "tinywindow" if context is None else context.command_path
    message = " ".join(str(error.format_message()).split())  # type: ignore[attr-defined]
    return f"{message.rstrip('.')}; see: {path} --help"


def _failed(output: Output, code: int, message: str, violations: Sequence[str] = ()) -> int:
    if len(violations) == 1:
        message, violations = violations[0], ()
    output.document({"error": message, "violations": list(violations), "exit_code": code})
    output.warn(message if not violations else f"{message}:")
    for sentence in violations:
        output.warn(f"  {sentence}")
    return code


def _with_value(command: Any) -> Iterator[str]:  # noqa: ANN401 - typer's own classes
    """Every option in the tree of commands that takes a value."""
    for option in command.params:
        if option.param_type_name == "option" and not option.is_flag:
            yield from option.opts
    for inner in getattr(command, "commands", {}).values():
        yield from _with_value(inner)
