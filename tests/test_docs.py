"""The documents are complete: whatever a user can meet by name has its line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.main import get_command

from tinywindow.cli.app import app
from tinywindow.safety.domain.audit import EventType
from tinywindow.safety.domain.decision import Reason
from tinywindow.safety.environment import known_variables, variable
from tinywindow.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"

# What the command line promises; a command that goes missing is missed here.
PROMISED_COMMANDS = frozenset(
    {
        "run",
        "status",
        "kill",
        "release",
        "start",
        "stop",
        "reset",
        "check",
        "replay",
        "audit verify",
        "audit tail",
        "audit export",
        "doctor",
        "db upgrade",
        "db current",
    }
)


def document(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def names_in(name: str) -> set[str]:
    """The words of a document that could be names: `A_B` is no part of `A_B_C`."""
    return set(re.findall(r"\w+", document(name)))


def settings_of(model: type[BaseModel], section: str | None = None) -> Iterator[str]:
    """The environment variable of every setting; a section's fields stand for the section."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if inspect.isclass(inner) and issubclass(inner, BaseModel):
            yield from settings_of(inner, name)
        else:
            yield variable(section, name)


def commands_of(command: object, path: str = "") -> Iterator[str]:
    """Every command that can be run, with its group before it: `audit verify`."""
    inner: dict[str, object] = getattr(command, "commands", {})
    if not inner and path:
        yield path
    for name, each in inner.items():
        yield from commands_of(each, f"{path} {name}".strip())


SETTINGS = sorted(settings_of(Settings))
COMMANDS = sorted(commands_of(get_command(app)))


def test_there_is_something_to_look_for() -> None:
    assert len(Reason) > 20
    assert len(EventType) > 10
    assert "TINYWINDOW_CIRCUIT_BREAKER__DAILY_LOSS_LIMIT" in SETTINGS
    assert "audit verify" in COMMANDS


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_explained(reason: Reason) -> None:
    assert reason.value in names_in("semantics.md")


@pytest.mark.parametrize("event", list(EventType))
def test_every_audit_event_is_explained(event: EventType) -> None:
    assert event.value in names_in("audit.md")


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_explained(name: str) -> None:
    assert name in names_in("configuration.md")


def test_no_setting_is_explained_that_nothing_reads() -> None:
    named = {word for word in names_in("configuration.md") if word.startswith("TINYWINDOW_")}
    # `TINYWINDOW_TEST_…` is the test suite's; a name that ends in "_" is the start of several.
    unknown = {n for n in named - known_variables() if not n.startswith("TINYWINDOW_TEST_")}
    assert {name for name in unknown if not name.endswith("_")} == set()


def test_the_catalogue_of_names_is_what_the_settings_read() -> None:
    assert set(SETTINGS) | {"TINYWINDOW_CONFIG"} == known_variables()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_explained(command: str) -> None:
    assert re.search(rf"tinywindow {re.escape(command)}\b", document("cli.md"))


def test_every_promised_command_is_there() -> None:
    assert PROMISED_COMMANDS - set(COMMANDS) == set()


def test_every_link_between_documents_leads_somewhere() -> None:
    """Relative links only; a `#part` of the target is not looked for."""
    broken = []
    for file in sorted((*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md"))):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            elsewhere = "://" in target or target.startswith("mailto:")
            if not elsewhere and not (file.parent / target).exists():
                broken.append(f"{file.name}: {target}")
    assert broken == []
