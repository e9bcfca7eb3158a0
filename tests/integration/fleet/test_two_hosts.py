"""Two hosts on one PostgreSQL and one Redis, and the links between them that are cut."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fleet import Fleet, Member, beats_of, eventually, figure
from fleet_bot import Bot, Place, operating, trade
from network import PORTS, Link, enter, network
from pg_writers import assert_chain, query
from postgres import PostgresServer
from valkey import Valkey

from program import SOAK
from tinywindow.safety import KillSwitchMode

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]

STOPPED_MS = 500
"""After a link is cut: a read's time-out, and an approval's life before it."""
NO_DATABASE = {"STATE_UNKNOWN", "LEDGER_BUSY"}
"""What refuses where the database does not answer: a look, or an order that waits for another."""


@dataclass
class Host:
    """A host's network and data directory, its links by server, and the bot on it."""

    pid: int
    links: dict[str, Link]
    place: Place
    member: Member | None = field(default=None)

    @property
    def bot(self) -> Member:
        assert self.member is not None
        return self.member


@dataclass(frozen=True)
class InNetwork:
    """Begins a bot in a network of its own."""

    pid: int

    def __call__(self, place: Place, name: str, cap: int, how: str, folder: Path) -> None:
        if self.pid:
            enter(self.pid)
        trade(place, name, cap, how, folder)


@dataclass
class Trial:
    """Two hosts that trade, and an operator who reaches both servers directly."""

    fleet: Fleet
    url: str
    redis: Valkey
    operator: Bot
    hosts: list[Host]
    figures: dict[str, object] = field(default_factory=dict)

    async def cut_off(self, server: str, how: str, *, exits: bool) -> set[str]:
        """Cut host A's link to a server; gives what its entries are refused for."""
        a, b = self.hosts
        link = a.links[server]
        if how == "cut":
            link.cut()
        else:
            await link.reset()
        cut_s = time.monotonic()
        await eventually(lambda: a.bot.codes_since(cut_s + 1) - {"-"}, "A is refused")
        late_ms = 1000 * (a.bot.last_entry_s(cut_s) - cut_s)
        assert late_ms <= STOPPED_MS
        self.figures[f"{server} {how}"] = round(late_ms)
        now_s = time.monotonic()
        await eventually(lambda: b.bot.entered_since(now_s), "B goes on")
        if exits:
            await eventually(lambda: a.bot.left_since(now_s), "A still leaves positions")
        else:
            await eventually(lambda: a.bot.codes_since(now_s, "SELL"), "A is told about exits")
            assert a.bot.codes_since(now_s, "SELL") <= NO_DATABASE
        await eventually(lambda: a.bot.codes_since(now_s), "A is refused on")
        assert not a.bot.entered_since(now_s)
        return a.bot.codes_since(now_s)

    async def heal(self, server: str, how: str) -> None:
        link = self.hosts[0].links[server]
        if how == "cut":
            link.mend()
        else:
            await link.accept()

    async def stop_reaches_a(self, server: str, how: str) -> None:
        """With a link of A's cut, a stop made elsewhere reaches it; healing starts nothing."""
        assert not self._says_it_is_stopped(self.hosts[0])
        await self.operator.switch.activate(KillSwitchMode.HALT_ONLY, "from elsewhere")
        stopped_s = time.monotonic()
        a, b = self.hosts
        await eventually(lambda: "KILL_SWITCH_ACTIVE" in b.bot.codes_since(stopped_s), "B stops")
        if server == "redis":
            await eventually(lambda: "KILL_SWITCH_ACTIVE" in a.bot.codes_since(stopped_s), "A, too")
        else:
            # Its entries are refused because of the database already; its heartbeat tells.
            await eventually(lambda: self._says_it_is_stopped(a), "A has heard the doorbell")
        await self.heal(server, how)
        healed_s = time.monotonic()
        await eventually(
            lambda: (
                a.bot.left_since(healed_s) and "KILL_SWITCH_ACTIVE" in a.bot.codes_since(healed_s)
            ),
            "A reaches both again, and is stopped",
        )
        await self.fleet.all_have_heard(time.monotonic() + 0.3)
        for host in (a, b):
            assert host.bot.last_entry_s(stopped_s) == stopped_s, "it started by itself"
        assert query(self.url, "SELECT trading FROM head") == [("STOPPED",)]
        await self.operator.restart_trading()
        await self.fleet.all_trade()

    def _says_it_is_stopped(self, host: Host) -> bool:
        beats = beats_of(self.redis, host.bot)
        return any(beat["stopped"] for beat in beats if "kill-switch" in beat["roles"])


@contextlib.asynccontextmanager
async def two_hosts(
    fleet: Fleet, postgres: PostgresServer, url: str, redis: Valkey
) -> AsyncIterator[Trial]:
    targets = {"postgres": f"{postgres.folder}/.s.PGSQL.5432", "redis": redis.path}
    async with contextlib.AsyncExitStack() as stack:
        net = stack.enter_context(network())
        hub = net.namespace()
        operator = await stack.enter_async_context(
            operating(fleet.host("operator", url, redis.url))
        )
        hosts: list[Host] = []
        for name in ("a", "b"):
            pid = net.namespace()
            links = {
                server: net.link(hub, pid, target, PORTS[server])
                for server, target in targets.items()
            }
            for link in links.values():
                await stack.enter_async_context(link.proxy)
            database = url.partition("?")[0].replace("@/", f"@{links['postgres'].address}:5432/")
            place = fleet.host(name, database, f"redis://{links['redis'].address}:6379/0")
            hosts.append(Host(pid, links, place))
        for host in hosts:
            host.member = fleet.add(host.place, "buy_and_sell", begun_in=InNetwork(host.pid))
        await fleet.all_trade()
        trial = Trial(fleet, url, redis, operator, hosts, {"namespaces": net.real})
        yield trial
        await asyncio.to_thread(fleet.end)


@pytest.mark.parametrize("how", ["cut", "reset"] if SOAK else ["cut"])
async def test_a_host_that_loses_a_server(
    fleet: Fleet,
    durable_postgres_server: PostgresServer,
    durable_url: str,
    own_valkey: Valkey,
    how: str,
) -> None:
    async with two_hosts(fleet, durable_postgres_server, durable_url, own_valkey) as trial:
        codes = await trial.cut_off("redis", how, exits=True)
        assert codes == {"STATE_UNKNOWN"}
        # Without a stop, a healed link is all it takes.
        await trial.heal("redis", how)
        await trial.fleet.all_trade()
        if SOAK:
            await trial.cut_off("redis", how, exits=True)
            await trial.stop_reaches_a("redis", how)
        codes = await trial.cut_off("postgres", how, exits=False)
        assert codes <= NO_DATABASE
        await trial.stop_reaches_a("postgres", how)
    assert_chain(durable_url)
    figure("two hosts, last entry after the loss in ms", trial.figures)
