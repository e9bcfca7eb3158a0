"""What stands in ops/ is read by Docker, PostgreSQL and Grafana: here, what can be read without."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from tinywindow.cli.app import app
from tinywindow.cli.kill_request import read_request
from tinywindow.safety.environment import known_variables
from tinywindow.settings import Settings

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
COMPOSE: dict[str, Any] = yaml.safe_load((OPS / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
BOTS = ("bot-a", "bot-b")
VARIABLE = re.compile(r"\$\{([A-Z_]+)([^}]*)\}")


def texts() -> Iterator[tuple[str, str]]:
    for path in sorted(OPS.rglob("*")):
        if path.is_file() and "secrets" not in path.parts and path.name != ".env":
            yield str(path.relative_to(OPS)), path.read_text("utf-8")


def commands() -> Iterator[list[str]]:
    """Every `tinywindow …` of the README, the Dockerfile and compose.yaml."""
    for _, text in texts():
        for line in re.findall(r"exec \S+ tinywindow ([^|\n`]+)|`tinywindow ([^`\n]+)`", text):
            yield shlex.split("".join(line), comments=True)
    for name in (*BOTS, "migrate"):
        if "command" in SERVICES[name]:
            yield SERVICES[name]["command"]
    docker = (OPS / "Dockerfile").read_text("utf-8")
    for words in re.findall(r"^\s*CMD (\[.*\])$", docker, re.MULTILINE):
        yield [word for word in yaml.safe_load(words) if word != "tinywindow"]


def test_every_yaml_file_can_be_read() -> None:
    files = [path for path in OPS.rglob("*.y*ml") if path.is_file()]
    assert len(files) == 3
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict), path


def test_images_are_pinned_to_a_release() -> None:
    images = [one["image"] for one in SERVICES.values()]
    images += re.findall(r"^ARG \w+=(\S+)", (OPS / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    foreign = [image for image in images if image != "tinywindow:local"]
    assert len(foreign) == 5
    assert [image for image in foreign if not re.search(r":v?\d+\.\d+(\.\d+)?(-|$)", image)] == []


def test_every_setting_that_is_named_exists() -> None:
    named = {name for _, text in texts() for name in re.findall(r"TINYWINDOW_\w+", text)}
    assert len(named) >= 7
    assert named - known_variables() == set()


@pytest.mark.parametrize("bot", BOTS)
def test_the_bots_settings_are_taken(bot: str, tmp_path: Path) -> None:
    example = dict(
        line.split("=", 1)
        for line in (OPS / ".env.example").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    )
    given = {
        name: VARIABLE.sub(lambda found: example[found[1]], value)
        for name, value in SERVICES[bot]["environment"].items()
    }
    subprocess.run([OPS / "make-secrets.sh", tmp_path / "s"], check=True, capture_output=True)
    given["TINYWINDOW_CONFIG"] = str(tmp_path / "s" / "bot.toml")
    settings = Settings.load(environ=given)
    assert settings.run.scenario == "calm"
    assert settings.sqlite_path is None
    assert str(settings.redis).endswith("@redis:6379/0")


def test_the_bots_have_one_store_and_an_account_each() -> None:
    a, b = (SERVICES[name] for name in BOTS)
    differing = {key for key in a if a[key] != b[key]}
    assert differing == {"environment", "volumes"}
    names = {key for key in a["environment"] if a["environment"][key] != b["environment"][key]}
    assert names == {"TINYWINDOW_RUN__VENUE"}


def parsed(words: list[str]) -> str:
    """The command that the real parser makes of the words."""
    if "kill" in words:
        return "kill" if read_request(words).reason else ""
    command: Any = get_command(app)
    context = None
    name, rest = "tinywindow", words
    while hasattr(command, "commands"):
        context = command.make_context(name, rest, parent=context)
        name, command, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
    return str(command.make_context(name, rest, parent=context).info_name)


def test_every_command_is_one() -> None:
    found = list(commands())
    assert {parsed(words) for words in found} >= {"kill", "release", "start", "upgrade", "run"}
    assert len(found) > 8
    with pytest.raises(Exception, match="No such option"):
        parsed(["status", "--loud"])


def test_every_variable_is_in_the_example_and_has_no_default() -> None:
    example = set(re.findall(r"^(\w+)=", (OPS / ".env.example").read_text("utf-8"), re.MULTILINE))
    used = VARIABLE.findall((OPS / "compose.yaml").read_text("utf-8"))
    assert {name for name, _ in used} == example
    assert [name for name, rest in used if not rest.startswith(":?")] == []


def test_secrets_are_files_that_the_script_writes(tmp_path: Path) -> None:
    place = tmp_path / "s"
    subprocess.run([OPS / "make-secrets.sh", place], check=True, capture_output=True)
    files = {Path(VARIABLE.sub("", one["file"])).name for one in COMPOSE["secrets"].values()}
    assert files - {path.name for path in place.iterdir()} == set()
    assert place.stat().st_mode & 0o777 == 0o700
    used = {name for one in SERVICES.values() for name in one.get("secrets", ())}
    assert used == set(COMPOSE["secrets"])
    written = [path.read_text("utf-8") for path in sorted(place.iterdir())]
    # A second run replaces nothing: the servers know the passwords that are there.
    again = subprocess.run([OPS / "make-secrets.sh", place], check=False, capture_output=True)
    assert again.returncode == 1
    assert [path.read_text("utf-8") for path in sorted(place.iterdir())] == written
    other = tmp_path / "t"
    subprocess.run([OPS / "make-secrets.sh", other], check=True, capture_output=True)
    assert all((other / path.name).read_text() != path.read_text() for path in place.iterdir())


def test_nobody_starts_before_what_it_needs_is_well() -> None:
    for bot in BOTS:
        waits = {name: one["condition"] for name, one in SERVICES[bot]["depends_on"].items()}
        assert waits == {
            "migrate": "service_completed_successfully",
            "postgres": "service_healthy",
            "redis": "service_healthy",
        }
        assert SERVICES[bot]["read_only"] is True
    checked = {name for name, one in SERVICES.items() if "healthcheck" in one}
    # The bots' own check is the image's.
    assert checked | set(BOTS) == set(SERVICES)


def test_a_bot_that_ends_is_given_the_time_that_a_close_may_take() -> None:
    grace = re.fullmatch(r"(\d+)s", SERVICES["bot-a"]["stop_grace_period"])
    assert grace is not None
    assert int(grace[1]) > Settings.load(environ={}).kill_switch.close_deadline


def test_what_is_mounted_and_copied_is_there() -> None:
    for one in SERVICES.values():
        for mount in one.get("volumes", ()):
            source = mount.split(":")[0]
            assert source in COMPOSE["volumes"] or (OPS / source).exists(), mount
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (OPS / "Dockerfile").read_text(), re.MULTILINE
    )
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name


def test_only_this_machine_reaches_a_port() -> None:
    ports = [port for one in SERVICES.values() for port in one.get("ports", ())]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_grafana_reads_postgresql_as_the_one_who_can_only_read() -> None:
    file = OPS / "grafana" / "provisioning" / "datasources" / "datasources.yaml"
    sources = {one["type"]: one for one in yaml.safe_load(file.read_text("utf-8"))["datasources"]}
    postgres = sources["grafana-postgresql-datasource"]
    assert postgres["user"] == "tinywindow_viewer"
    secret = re.fullmatch(r"\$__file\{/run/secrets/(\w+)\}", postgres["secureJsonData"]["password"])
    assert secret is not None
    assert secret[1] in SERVICES["grafana"]["secrets"]
    assert sources["prometheus"]["url"] == "http://prometheus:9090"


def test_prometheus_scrapes_what_is_there() -> None:
    scraped = yaml.safe_load((OPS / "prometheus" / "prometheus.yml").read_text("utf-8"))
    targets = [t for job in scraped["scrape_configs"] for s in job["static_configs"]
               for t in s["targets"]]  # fmt: skip
    assert {target.split(":")[0] for target in targets} <= {*SERVICES, "127.0.0.1"}


def test_postgresqls_settings_are_the_documented_ones() -> None:
    reader = configparser.ConfigParser()
    reader.read_string("[all]\n" + (OPS / "postgres" / "postgres.conf").read_text("utf-8"))
    found = dict(reader["all"])
    assert (found["fsync"], found["synchronous_commit"], found["full_page_writes"]) == ("on",) * 3


def test_the_bots_rights_at_redis_are_the_documented_ones() -> None:
    written = (ROOT / "docs" / "operations.md").read_text("utf-8")
    found = re.search(r"\*\*Rights\*\*.*?`([^`]+)`.*?`doctor` also `([^`]+)`", written, re.DOTALL)
    assert found is not None
    script = (OPS / "make-secrets.sh").read_text("utf-8")
    line = re.search(r"^user tinywindow on #\S+ .*?digest\) (.*)$", script, re.MULTILINE)
    assert line is not None
    assert line[1].split() == [*found[1].split(), *found[2].split()]
