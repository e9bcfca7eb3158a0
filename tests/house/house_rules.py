"""What the house does not allow in a source file, found by its syntax tree and its comments.

A line that needs an exception carries the reason: `# house: <why it may stay>`.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

ALLOWANCE = re.compile(r"# house:(?P<reason>.*)")
SILENCED = re.compile(r"# (?P<tool>noqa|type: ignore)(?P<rest>.*)")
SILENCED_WITH_CODE = {
    "noqa": re.compile(r": ?[A-Z]+[0-9]+(,? ?[A-Z]+[0-9]+)*"),
    "type: ignore": re.compile(r"\[[a-z-]+(, ?[a-z-]+)*\]"),
}

CLOCK_READS = {
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "time": {
        "time",
        "time_ns",
        "monotonic",
        "monotonic_ns",
        "perf_counter",
        "localtime",
        "gmtime",
        "ctime",
        "strftime",
    },
}
# These read the clock only when they are not told the time.
READS_UNLESS_TOLD = {"localtime": 1, "gmtime": 1, "ctime": 1, "strftime": 2}

# The modules that may draw at random, from a generator that is handed to them or seeded.
MAY_DRAW = ("exchanges/paper/", "market/simulated.py", "runtime.py", "testing/")

LOOPS = {"asyncio", "loop", "get_running_loop", "get_event_loop"}
TASK_MAKERS = {"create_task", "ensure_future"}
TOO_WIDE = {"Exception", "BaseException"}


@dataclass(frozen=True)
class Source:
    """One file of the package; its place is the path below `src/tinywindow`."""

    place: str
    text: str
    tree: ast.Module = field(init=False)
    comments: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", ast.parse(self.text))
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        found = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}
        object.__setattr__(self, "comments", found)

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)

    def lies_in(self, *places: str) -> bool:
        return self.place.startswith(places)


@dataclass(frozen=True)
class Finding:
    place: str
    line: int
    rule: str

    def __str__(self) -> str:
        return f"src/tinywindow/{self.place}:{self.line}: {self.rule}"


def _last_name(node: ast.expr) -> str:
    """The name that stands last: `datetime` of `datetime.datetime`, `loop` of `self.loop()`."""
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _imported(source: Source, module: str) -> Iterator[tuple[ast.stmt, set[str]]]:
    """The statements that import from the module, with the names that they take."""
    for node in source.nodes():
        if isinstance(node, ast.Import) and any(a.name == module for a in node.names):
            yield node, set()
        elif isinstance(node, ast.ImportFrom) and node.module == module and not node.level:
            yield node, {a.name for a in node.names}


def _calls_of(builtin: str, source: Source) -> Iterator[ast.Call]:
    for node in source.nodes():
        if isinstance(node, ast.Call) and ast.unparse(node.func) == builtin:
            yield node


def clock_read(source: Source) -> Iterator[ast.AST]:
    """Clocks are a port: what reads one by itself cannot be tested or simulated."""
    told = {
        id(node.func)
        for node in source.nodes()
        if isinstance(node, ast.Call)
        and len(node.args) >= READS_UNLESS_TOLD.get(_last_name(node.func), sys.maxsize)
    }
    for node in source.nodes():
        if (
            isinstance(node, ast.Attribute)
            and node.attr in CLOCK_READS.get(_last_name(node.value), ())
            and id(node) not in told
        ):
            yield node
    for statement, names in _imported(source, "time"):
        if names & CLOCK_READS["time"]:
            yield statement


def blocking_sleep(source: Source) -> Iterator[ast.AST]:
    """`time.sleep` stops the whole loop, the kill switch's watch with it."""
    for node in source.nodes():
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep":
            yield node
    for statement, names in _imported(source, "time"):
        if "sleep" in names:
            yield statement


def undeclared_random(source: Source) -> Iterator[ast.AST]:
    """A draw that no seed decides cannot be repeated; modules that draw are declared.

    They draw from a generator that they were handed or seeded: the functions of the module
    `random` share one that nobody seeded.
    """
    for statement, names in _imported(source, "random"):
        if not source.lies_in(*MAY_DRAW) or names - {"Random"}:
            yield statement
    for node in source.nodes():
        if isinstance(node, ast.Attribute):
            shared = isinstance(node.value, ast.Name) and node.value.id == "random"
            if shared and node.attr != "Random":
                yield node
        elif isinstance(node, ast.Call):
            seeded = bool(node.args or node.keywords)
            if _last_name(node.func) == "Random" and not seeded:
                yield node


def dropped_task(source: Source) -> Iterator[ast.AST]:
    """The loop keeps no strong reference: a task that nobody holds may vanish in the middle."""
    for node in source.nodes():
        if isinstance(node, ast.Expr):
            value: ast.expr = node.value
        elif isinstance(node, ast.Assign) and all(_last_name(t) == "_" for t in node.targets):
            value = node.value
        else:
            continue
        if isinstance(value, ast.Call) and _last_name(value.func) in TASK_MAKERS:
            function = value.func
            if isinstance(function, ast.Name) or (
                isinstance(function, ast.Attribute)
                and _last_name(function.value).lstrip("_") in LOOPS
            ):
                yield node


def bare_except(source: Source) -> Iterator[ast.AST]:
    """A bare except also takes cancellation, and with it the way to stop."""
    for node in source.nodes():
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node


def _is_too_wide(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(_is_too_wide(each) for each in kind.elts)
    return kind is None or _last_name(kind) in TOO_WIDE


def swallowed_exception(source: Source) -> Iterator[ast.AST]:
    """A fault that is dropped in silence is a fault that nobody mends."""
    for node in source.nodes():
        if isinstance(node, ast.ExceptHandler):
            does_nothing = all(
                isinstance(each, ast.Pass | ast.Continue)
                or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
                for each in node.body
            )
            if does_nothing and _is_too_wide(node.type):
                yield node
        elif isinstance(node, ast.Call):
            suppresses = _last_name(node.func) == "suppress"
            if suppresses and any(map(_is_too_wide, node.args)):
                yield node


def float_in_domain(source: Source) -> Iterator[ast.AST]:
    """Money is decimal; a binary fraction decides a limit wrongly by its last digit."""
    if source.lies_in("safety/domain/"):
        yield from _calls_of("float", source)
        for node in source.nodes():
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                yield node


def assert_statement(source: Source) -> Iterator[ast.AST]:
    """`python -O` removes asserts; `raise InvariantBroken` stays."""
    return (node for node in source.nodes() if isinstance(node, ast.Assert))


def print_outside_cli(source: Source) -> Iterator[ast.AST]:
    """Standard output belongs to the command line, which may owe one JSON document there."""
    if not source.lies_in("cli/"):
        yield from _calls_of("print", source)


BANS: tuple[Callable[[Source], Iterator[ast.AST]], ...] = (
    clock_read,
    blocking_sleep,
    undeclared_random,
    dropped_task,
    bare_except,
    swallowed_exception,
    float_in_domain,
    assert_statement,
    print_outside_cli,
)


def _lines(node: ast.AST) -> range:
    """The lines on which an allowance for the node may stand; of a handler, only its head's."""
    if isinstance(node, ast.ExceptHandler):
        return range(node.lineno, node.body[0].lineno + 1)
    assert isinstance(node, ast.expr | ast.stmt)
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def violations(source: Source) -> list[Finding]:
    """What the ban list finds and no line allows; and each allowance that is void."""
    allowed = {
        line: match["reason"].strip()
        for line, comment in source.comments.items()
        if (match := ALLOWANCE.search(comment))
    }
    found = [
        Finding(source.place, line, "an allowance without its reason")
        for line, reason in allowed.items()
        if not reason
    ]
    used = set()
    for ban in BANS:
        for node in ban(source):
            here = [line for line in _lines(node) if allowed.get(line)]
            used.update(here)
            if not here:
                rule = f"{ban.__name__}: {(ban.__doc__ or '').splitlines()[0]}"
                found.append(Finding(source.place, _lines(node).start, rule))
    found.extend(
        Finding(source.place, line, "an allowance for nothing: remove it")
        for line, reason in allowed.items()
        if reason and line not in used
    )
    return found


def silenced_without_code(source: Source) -> list[Finding]:
    """Comments that silence a linter or the type checker without saying which of its rules."""
    return [
        Finding(source.place, line, f"{match['tool']} names no rule")
        for line, comment in source.comments.items()
        for match in SILENCED.finditer(comment)
        if not SILENCED_WITH_CODE[match["tool"]].match(match["rest"])
    ]


def long_functions(source: Source) -> list[Finding]:
    """Functions that do not fit on a screen; the first line counts, decorators do not."""
    return [
        Finding(source.place, node.lineno, f"{node.name} has {length} lines")
        for node in source.nodes()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]


def _hands_on(node: ast.stmt) -> bool:
    """Whether a statement of an `__init__` file hands names on and computes nothing."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)  # the docstring
    if isinstance(node, ast.FunctionDef):
        return node.name in {"__getattr__", "__dir__"}
    if isinstance(node, ast.If):
        return _last_name(node.test) == "TYPE_CHECKING" and all(map(_hands_on, node.body))
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        try:
            ast.literal_eval(node.value)  # __all__, __version__, and where lazy names live
        except ValueError:
            return False
        return True
    return False


def computing_statements(source: Source) -> list[Finding]:
    """What an `__init__` file does beside handing names on."""
    if source.place.rpartition("/")[2] != "__init__.py":
        return []
    return [
        Finding(source.place, node.lineno, "an __init__ file computes something")
        for node in source.tree.body
        if not _hands_on(node)
    ]
