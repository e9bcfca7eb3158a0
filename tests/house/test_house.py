"""The rules of the house, each with its reason; house_rules.py says how a line is excepted."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import house_rules
import pytest
from house_rules import Source
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tinywindow"
SOURCES = tuple(
    Source(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
)

# The names that programs rely on: one that is missing breaks them, one that is added is a promise.
EXPECTED = (
    "Admitted",
    "ApprovedInPrinciple",
    "Breach",
    "Capacity",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerStatus",
    "ConfigurationError",
    "Inspection",
    "KillReport",
    "KillState",
    "KillSwitch",
    "KillSwitchConfig",
    "KillSwitchMode",
    "KillSwitchStatus",
    "LimitResult",
    "LimitsDiffer",
    "Metric",
    "MetricReading",
    "MetricState",
    "Order",
    "OrderGate",
    "OrderType",
    "OrderValidator",
    "Outcome",
    "PendingRelease",
    "PendingReset",
    "PositionLimitEnforcer",
    "PositionLimits",
    "PromptSanitizer",
    "Reason",
    "Refusal",
    "Refused",
    "ReleaseRefused",
    "ResetRefused",
    "SafetyError",
    "Side",
    "StartRefused",
    "StoreUnavailable",
    "ValidationResult",
    "VenueReport",
    "run_circuit_breaker_monitor",
)

# Loaded only by who asks for them: `import tinywindow.safety` stays light.
EXTRAS = ("anthropic", "apprise", "ccxt", "matplotlib", "mcp")


def listed(findings: list[house_rules.Finding]) -> str:
    return "\n".join(map(str, findings))


def tracked_files() -> list[Path]:
    """What belongs to the project, as git sees it, committed or not yet."""
    asked = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *asked]
    try:
        out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        # An unpacked archive: the sources and what stands around them.
        folders = ("src", "tests", "docs", "requirements", "examples", "benchmarks", "ops")
        found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
        return [path for path in (*found, *ROOT.glob("*")) if path.is_file()]
    return [path for name in out.split("\0") if name and (path := ROOT / name).is_file()]


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 10
    assert Path("src/tinywindow/__init__.py") in {p.relative_to(ROOT) for p in tracked_files()}


def test_no_file_is_over_400_lines() -> None:
    """One noun, one file: a longer one holds two."""
    sizes = {source.place: len(source.text.splitlines()) for source in SOURCES}
    assert {k: n for k, n in sizes.items() if n > house_rules.FILE_LINES_MAX} == {}


def test_no_function_is_over_70_lines() -> None:
    """A function is read in one piece, on one screen."""
    assert not (found := [f for s in SOURCES for f in house_rules.long_functions(s)]), listed(found)


def test_nothing_on_the_ban_list_stands_without_its_reason() -> None:
    assert not (found := [f for s in SOURCES for f in house_rules.violations(s)]), listed(found)


def test_what_is_silenced_is_named() -> None:
    """A blanket `noqa` or `type: ignore` also hides what comes later."""
    found = [f for s in SOURCES for f in house_rules.silenced_without_code(s)]
    assert not found, listed(found)


def test_init_files_compute_nothing() -> None:
    """To import a package costs nothing and changes nothing."""
    found = [f for s in SOURCES for f in house_rules.computing_statements(s)]
    assert not found, listed(found)


def test_every_module_says_what_it_is() -> None:
    assert [s.place for s in SOURCES if not (ast.get_docstring(s.tree) or "").strip()] == []


def test_requirements_name_no_address() -> None:
    """Pins are versions and hashes; where the files come from is the installer's business."""
    files = sorted((ROOT / "requirements").glob("*.txt"))
    assert [f.name for f in files] == ["build.txt", "dev.txt", "run.txt", "server.txt"]
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert "://" not in text
        pins = re.findall(r"^\S+==\S+.*\\\n +--hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[^ #\n]", text, re.MULTILINE))


def test_pins_name_the_extras_that_are_asked_of_them() -> None:
    """An older pip takes `coverage[toml]` for unpinned where only `coverage` is pinned."""
    text = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)(?:\[([\w,-]+)\])?==", text, re.MULTILINE)
    assert pins
    pinned: dict[str, set[str]] = {}
    for name, extras in pins:
        pinned.setdefault(canonicalize_name(name), set()).update(filter(None, extras.split(",")))
    asked = {("redis", "hiredis"), ("sqlalchemy", "asyncio"), ("psycopg", "binary")}
    for dist in metadata.distributions():
        if canonicalize_name(dist.name) in pinned:
            for one in map(Requirement, dist.requires or ()):
                if one.marker is None or one.marker.evaluate({"extra": ""}):
                    asked |= {(canonicalize_name(one.name), extra) for extra in one.extras}
    missing = {f"{name}[{extra}]" for name, extra in asked if extra not in pinned.get(name, set())}
    assert missing == set()


def test_tests_have_names_of_their_own() -> None:
    """The folders of tests are no packages: pytest takes two files of one name for one module."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_no_file_names_a_place_of_one_machine() -> None:
    """What holds on one machine only is of no use to anybody else."""
    place = re.compile(r"(?<![\w./-])/" + r"(?:work|root|home/\w+)/")
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {m[0]}" for m in place.finditer(text)]
    assert found == []


def test_exported_names() -> None:
    """The front door's names are pinned, and each is there."""
    import tinywindow.safety

    assert sorted(tinywindow.safety.__all__) == sorted(EXPECTED)
    for name in EXPECTED:
        assert getattr(tinywindow.safety, name) is not None


def test_the_front_door_loads_no_extra() -> None:
    """Whoever wants only the safety layer pays for nothing else."""
    program = f"""
import sys, tinywindow.safety as safety
for name in safety.__all__:
    getattr(safety, name)
print(*sorted(set({EXTRAS!r}) & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


# The rules themselves: each finds what it is for, and lets pass what resembles it.

CAUGHT = {
    "clock_read": (
        "datetime.now(UTC)",
        "datetime.datetime.utcnow()",
        "time.time()",
        "time.monotonic()",
        "field(default_factory=datetime.now)",
        "date.today()",
        "from time import sleep, time",
        "time.gmtime()",
        "time.strftime('%Y')",
    ),
    "blocking_sleep": ("time.sleep(1)", "from time import sleep"),
    "undeclared_random": (
        "import random",
        "from random import Random",
        "random.random()",
        "Random()",
    ),
    "dropped_task": (
        "asyncio.create_task(f())",
        "_ = asyncio.create_task(f())",
        "asyncio.get_running_loop().create_task(f())",
        "self._loop.create_task(f())",
        "create_task(f())",
    ),
    "bare_except": ("try:\n    f()\nexcept:\n    g()",),
    "swallowed_exception": (
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept (ValueError, BaseException) as e:\n    ...",
        "contextlib.suppress(Exception)",
    ),
    "float_in_domain": ("float(x)", "x = 0.25"),
    "assert_statement": ("assert x",),
    "print_outside_cli": ("print(x)",),
}

PASSES = (
    "clock.now()",
    "time.gmtime(0)",
    "time.strftime('%Y', moment)",
    "clock.monotonic()",
    "asyncio.sleep(1)",
    "Random(7).random()",
    "rng.random()",
    "task = asyncio.create_task(f())",
    "group.create_task(f())",
    "try:\n    f()\nexcept ValueError:\n    pass",
    "try:\n    f()\nexcept Exception:\n    g()",
    "contextlib.suppress(FileNotFoundError)",
    "x: float",
    "text = 'time.time() assert print('",
)


@pytest.mark.parametrize(
    ("rule", "code"), [(rule, code) for rule, codes in CAUGHT.items() for code in codes]
)
def test_a_rule_finds_what_it_is_for(rule: str, code: str) -> None:
    found = house_rules.violations(Source("safety/domain/made_up.py", code))
    assert any(f.rule.startswith(f"{rule}: ") for f in found)


@pytest.mark.parametrize("code", PASSES)
def test_the_rules_let_pass_what_is_fine(code: str) -> None:
    assert house_rules.violations(Source("safety/domain/made_up.py", code)) == []


@pytest.mark.parametrize("code", ["from random import Random", "import random\nrandom.Random(7)"])
def test_a_declared_module_may_draw_from_a_seeded_generator(code: str) -> None:
    assert house_rules.violations(Source("market/simulated.py", code)) == []


@pytest.mark.parametrize("code", ["random.random()", "Random()", "from random import choice"])
def test_nobody_may_draw_without_a_seed(code: str) -> None:
    assert house_rules.violations(Source("market/simulated.py", code))


def test_every_ban_has_its_example() -> None:
    assert set(CAUGHT) == {ban.__name__ for ban in house_rules.BANS}


def test_a_line_may_carry_its_reason() -> None:
    allowed = "x = time.time()  # house: shown to people only"
    assert house_rules.violations(Source("market/made_up.py", allowed)) == []


def test_an_allowance_needs_a_reason() -> None:
    found = house_rules.violations(Source("market/made_up.py", "x = time.time()  # house: "))
    assert len(found) == 2


def test_an_allowance_for_nothing_is_found() -> None:
    found = house_rules.violations(Source("market/made_up.py", "x = 1  # house: no longer so"))
    assert [f.rule for f in found] == ["an allowance for nothing: remove it"]


@pytest.mark.parametrize(
    "code", ["x = f()", "for x in y:\n    pass", "def f():\n    pass", "if a:\n    import b"]
)
def test_an_init_file_that_computes_is_found(code: str) -> None:
    assert house_rules.computing_statements(Source("notify/__init__.py", code))


def test_a_long_function_is_found() -> None:
    body = "    x = 1\n" * house_rules.FUNCTION_LINES_MAX
    assert house_rules.long_functions(Source("made_up.py", f"def f():\n{body}"))
    assert not house_rules.long_functions(Source("made_up.py", f"def f():\n{body[10:]}"))


@pytest.mark.parametrize("comment", ["# noqa", "# type: ignore", "# noqa - why", "# noqa:"])
def test_a_blanket_silence_is_found(comment: str) -> None:
    assert house_rules.silenced_without_code(Source("made_up.py", f"x = 1  {comment}"))


@pytest.mark.parametrize(
    "comment", ["# noqa: S105 - a name", "# type: ignore[misc]", "# noqa: FBT001, FBT002"]
)
def test_a_named_silence_passes(comment: str) -> None:
    assert not house_rules.silenced_without_code(Source("made_up.py", f"x = 1  {comment}"))


def test_what_runs_alone_is_where_it_is_looked_for() -> None:
    """`./tw test` reads two folders for its second half."""
    found = {
        path.relative_to(ROOT / "tests").parts[0]
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.alone" in path.read_text("utf-8") and path != Path(__file__)
    }
    assert found == {"concurrency", "integration"}
