"""Settings: every section read at once, secrets kept, and every value explained."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinywindow.market.scenarios import SCENARIOS
from tinywindow.safety.config.layers import read_layers
from tinywindow.safety.environment import SECTIONS, TOP_LEVEL, known_variables
from tinywindow.safety.errors import ConfigurationError
from tinywindow.settings import LoggingSettings, PaperSettings, RunSettings, Settings, redacted

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _bare_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in tuple(os.environ):
        if name.upper().startswith("TINYWINDOW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def violations(**given: object) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**given)
    return caught.value.violations


def test_the_catalogue_and_the_sections_name_the_same_fields() -> None:
    assert set(SECTIONS["run"]) == set(RunSettings.model_fields)
    assert set(SECTIONS["paper"]) == set(PaperSettings.model_fields)
    assert set(SECTIONS["logging"]) == set(LoggingSettings.model_fields)
    assert set(TOP_LEVEL) | set(SECTIONS) == set(Settings.model_fields)


def test_defaults() -> None:
    settings = Settings.load(environ={})
    assert settings.data_dir == Path("~/.local/share/tinywindow").expanduser()
    assert settings.db_connection == settings.data_dir / "tinywindow.db"
    assert settings.sqlite_path == settings.data_dir / "tinywindow.db"
    assert settings.redis is None
    assert (settings.run.strategy, settings.run.port, settings.run.balance) == (
        "momentum",
        8700,
        20_000,
    )
    assert settings.run.scenario in SCENARIOS
    assert {getattr(settings.paper, name) for name in SECTIONS["paper"]} == {0}
    assert (settings.logging.level, settings.logging.format) == ("info", "text")
    assert not settings.named("data_dir")


def test_command_line_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('data_dir = "/tmp/f"\nredis = "redis://f"\n[run]\nport = 1\nseed = 7\n')
    environ = {
        "TINYWINDOW_DATA_DIR": str(tmp_path / "e"),
        "TINYWINDOW_RUN__PORT": "2",
        "TINYWINDOW_CIRCUIT_BREAKER__DAILY_LOSS_LIMIT": "-8",
    }
    settings = Settings.load(environ=environ, config=file)
    assert settings.data_dir == tmp_path / "e"
    assert (settings.run.port, settings.run.seed, settings.redis) == (2, 7, "redis://f")
    assert settings.circuit_breaker.daily_loss_limit == -8
    over = Settings.load(environ=environ, config=file, data_dir=tmp_path / "c")
    assert over.data_dir == tmp_path / "c"
    assert over.named("data_dir")


def test_all_violations_of_all_sections_at_once(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    said = violations(
        environ={
            "TINYWINDOW_DATA_DIR": str(blocked),
            "TINYWINDOW_DATABASE": f"mysql://root:{SECRET}@h/db",
            "TINYWINDOW_REDIS": f"http://:{SECRET}@h",
            "TINYWINDOW_RUN__PORT": "65536",
            "TINYWINDOW_RUN__STRATEGY": "yolo",
            "TINYWINDOW_RUN__SCENARIO": "moon",
            "TINYWINDOW_RUN__HOST": "a b",
            "TINYWINDOW_LOGGING__LEVEL": "loud",
            "TINYWINDOW_KILL_SWITCH__TWO_PERSON": "perhaps",
            "TINYWINDOW_CIRCUIT_BREAKER__DRAWDOWN_LIMIT": "15",
            "TINYWINDOW_POSITION_LIMITS__MAX_LEVERAGE": "0",
            "TINYWINDOW_DATABSE": SECRET,
        },
        config=tmp_path / "none.toml",
    )
    assert len(said) == 13
    assert len(set(said)) == 13
    assert not any(SECRET in sentence for sentence in said)
    for name in (
        "data_dir",
        "database",
        "redis",
        "run.port",
        "logging.level",
        "TINYWINDOW_DATABSE",
    ):
        assert any(name in sentence for sentence in said), name


def test_every_violation_of_the_paper_venues_section_is_said_at_once() -> None:
    wrong = {
        "latency": "-0.001",
        "latency_jitter": "0.0005",
        "reject_chance": "1.01",
        "limit_partial_chance": "-0.01",
        "market_partial_chance": "nan",
    }
    said = violations(environ={f"TINYWINDOW_PAPER__{n.upper()}": v for n, v in wrong.items()})
    assert len(said) == len(wrong)
    for name in wrong:
        assert sum(sentence.startswith(f"paper.{name}: ") for sentence in said) == 1, name


@pytest.mark.parametrize(("latency", "share"), [("0", "0"), ("60", "1"), ("0.001", "0.5")])
def test_the_paper_venues_section_takes_its_bounds_and_what_lies_between(
    latency: str, share: str
) -> None:
    environ = {"TINYWINDOW_PAPER__LATENCY": latency, "TINYWINDOW_PAPER__REJECT_CHANCE": share}
    paper = Settings.load(environ=environ).paper
    assert (paper.latency, paper.reject_chance) == (float(latency), float(share))


def test_a_secret_is_never_shown() -> None:
    environ = {
        "TINYWINDOW_REDIS": f"redis://:{SECRET}@h:6379/0",
        "TINYWINDOW_DATABASE": f"postgresql://u:{SECRET}@h/db",
    }
    settings = Settings.load(environ=environ)
    explained = settings.explain(read_layers(environ))
    assert SECRET not in repr(settings)
    assert SECRET not in repr(explained)
    assert settings.shown("redis") == "redis://***@h:6379/0"
    assert settings.shown("database") == "postgresql://***@h/db"
    assert settings.sqlite_path is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h/0", "redis://h/0"),
        ("rediss://user:pw@h", "rediss://***@h"),
        ("redis://h/0?password=x&db=1", "redis://h/0?***@&db=1"),
    ],
)
def test_redacted(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_an_empty_url_is_none() -> None:
    settings = Settings.load(environ={"TINYWINDOW_REDIS": "", "TINYWINDOW_DATABASE": ""})
    assert settings.redis is None
    assert settings.database is None


def test_explain_says_where_each_value_came_from(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("[run]\nseed = 7\n")
    environ = {"TINYWINDOW_RUN__PORT": "2", "TINYWINDOW_DATA_DIR": "/tmp/e"}
    layers = read_layers(environ, file=file)
    settings = Settings.from_layers(layers, data_dir="/tmp/c")
    rows = {row.name: row for row in settings.explain(layers, given=frozenset({"data_dir"}))}
    assert len(rows) == len(TOP_LEVEL) + sum(map(len, SECTIONS.values()))
    assert rows["run.port"].origin == "environment variable TINYWINDOW_RUN__PORT"
    assert rows["run.seed"].origin == f"{file} [run]"
    assert rows["run.symbols"].origin == "default"
    assert (rows["data_dir"].origin, rows["data_dir"].value) == ("given directly", Path("/tmp/c"))


def test_known_variables_are_unique_and_upper_case() -> None:
    assert all(name == name.upper() for name in known_variables())


def test_the_documentation_names_every_variable_and_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for name in known_variables():
        assert sum(f"`{name}`" in row for row in rows) == 1, name
    for section, fields in SECTIONS.items():
        assert f"`[{section}]`" in page
        assert all(any(row.startswith(f"| `{field}` |") for row in rows) for field in fields)
