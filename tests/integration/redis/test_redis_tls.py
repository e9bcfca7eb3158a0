"""TLS in front of a server, and spoken by the servers themselves where they can."""

from __future__ import annotations

import contextlib
import gc
import shutil
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy import Proxy
from redis_world import bot_on, eventually
from valkey import Valkey, binaries, folder, free_port, until

from tinywindow.safety.stores.ring_value import RING_KEY

KINDS = pytest.mark.parametrize("kind", list(binaries()) or ["none"])


def certificate(place: Path) -> ssl.SSLContext:
    if shutil.which("openssl") is None:
        pytest.skip("NO OPENSSL: TLS was not shown")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", place / "key.pem",
            "-out", place / "cert.pem",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(place / "cert.pem", place / "key.pem")
    return context


async def test_tls_with_a_certificate_that_is_checked(valkey: Valkey, tmp_path: Path) -> None:
    """The wheel's server has no TLS: it is ended in front of it, as stunnel does."""
    async with Proxy(valkey.path, tls=certificate(tmp_path)) as proxy:
        plain = f"rediss://localhost:{proxy.port}/0"
        url = f"{plain}?ssl_ca_certs={tmp_path}/cert.pem"
        async with bot_on(url, tmp_path / "t.db", order_timeout=0.5) as bot:
            await eventually(bot.entry_is_sent)
            valkey.raw("SET", RING_KEY, "1")
            await eventually(bot.latched)
        async with bot_on(plain, tmp_path / "u.db") as bot:
            # A certificate that nobody vouches for is no Redis.
            assert await bot.refused_for() == "STATE_UNKNOWN"


def _options(place: Path) -> tuple[str, ...]:
    return (
        *("--tls-auth-clients", "no", "--tls-replication", "yes"),
        *("--tls-cert-file", f"{place}/cert.pem", "--tls-key-file", f"{place}/key.pem"),
        *("--tls-ca-cert-file", f"{place}/cert.pem"),
    )


@contextlib.contextmanager
def speaking(kind: str, place: Path) -> Iterator[tuple[Valkey, int]]:
    """A server that speaks TLS by itself, and its port."""
    certificate(place)
    port = free_port()
    with folder() as own:
        server = Valkey(own, binary=binaries().get(kind, ""))
        server.launch("--tls-port", str(port), *_options(place))
        try:
            until(lambda: server.ended or server.answers())
            if server.ended:
                pytest.skip(f"NO TLS in the server {kind}: only that of a proxy was shown")
            yield server, port
        finally:
            server.kill()


async def assert_heard(server: Valkey, url: str, place: Path) -> None:
    """An entry is sent, and a stop that is rung there is latched."""
    url = f"{url}?ssl_ca_certs={place}/cert.pem"
    async with bot_on(url, place / "t.db", order_timeout=0.5) as bot:
        await eventually(bot.entry_is_sent)
        server.raw("SET", RING_KEY, "1")
        await eventually(bot.latched)


@KINDS
async def test_tls_that_the_server_itself_speaks(kind: str, tmp_path: Path) -> None:
    with speaking(kind, tmp_path) as (server, port):
        await assert_heard(server, f"rediss://localhost:{port}/0", tmp_path)


@KINDS
async def test_tls_to_sentinels_and_to_the_primary_they_name(kind: str, tmp_path: Path) -> None:
    with speaking(kind, tmp_path) as (server, port), folder() as own:
        given = [word.removeprefix("--") for word in _options(tmp_path)]
        lines = [" ".join(pair) for pair in zip(given[::2], given[1::2], strict=True)]
        watched = f"sentinel monitor tw 127.0.0.1 {port} 2"
        ports = [free_port() for _ in range(3)]
        with contextlib.ExitStack() as running:
            for one in ports:
                conf = Path(own, f"{one}.conf")
                words = ["port 0", f"tls-port {one}", f"dir {own}", *lines, watched]
                conf.write_text("\n".join(words))
                process = subprocess.Popen(
                    [binaries()[kind], str(conf), "--sentinel"], stdout=subprocess.DEVNULL
                )
                running.callback(process.wait)
                running.callback(process.kill)
            hosts = ",".join(f"127.0.0.1:{one}" for one in ports)
            await assert_heard(server, f"rediss+sentinel://{hosts}/tw/0", tmp_path)
        # A handshake that meets its bound leaves redis-py a connection to collect.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
