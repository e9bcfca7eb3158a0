"""Servers that die again and again under a fleet: what is approved stays right, and it goes on."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from dataclasses import dataclass, field

import pytest
from fleet import Fleet, approved_once, eventually, figure, highest_exposure
from fleet_bot import PRICE, Bot, operating
from pg_writers import assert_chain, query
from postgres import PostgresServer
from valkey import Valkey

from program import SOAK
from tinywindow.safety import KillSwitchMode

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(3600)]

DEATHS = 100 if SOAK else 2
SIZE = 4 if SOAK else 2
CAP = 1_000
HALTED_EVERY = 10 if SOAK else 2
"""How often the servers die while a stop stands."""


@dataclass
class Deaths:
    """Kills the servers under a fleet, and waits for it to go on by itself."""

    fleet: Fleet
    url: str
    redis: Valkey
    postgres: PostgresServer
    operator: Bot
    rng: random.Random = field(default_factory=lambda: random.Random(3))
    back_s: list[float] = field(default_factory=list)
    refusals: set[str] = field(default_factory=set)

    async def both_die(self, *, postgres: bool) -> None:
        """Redis is killed, PostgreSQL is stopped as in a crash; which first is left to chance."""
        deaths = [self.redis.kill]
        if postgres:
            deaths.append(lambda: self.postgres.stop(signal.SIGQUIT))
        self.rng.shuffle(deaths)
        for death in deaths:
            await asyncio.sleep(self.rng.uniform(0, 0.1))
            await asyncio.to_thread(death)
        dead_s = time.monotonic()
        await self._all_are_refused(dead_s)
        for member in self.fleet.members:
            # What was approved just before may still be sent within the approval's life.
            assert member.last_entry_s(dead_s) - dead_s <= 0.5, member.name
        births = [self.redis.start, *([self.postgres.start] if postgres else [])]
        self.rng.shuffle(births)
        for birth in births:
            await asyncio.to_thread(birth)

    async def _all_are_refused(self, since_s: float) -> None:
        def refused() -> bool:
            codes = [m.codes_since(since_s) - {"-"} for m in self.fleet.members]
            self.refusals |= set().union(*codes)
            return all(codes)

        await eventually(refused, "every bot is refused")

    async def round(self, number: int) -> None:
        """One death and one return; now and then with a stop on, which outlives both."""
        # With every second death of Redis PostgreSQL dies as well.
        postgres = number % 2 == 0
        if number % HALTED_EVERY == 0:
            await self._round_with_a_stop(postgres=postgres)
            return
        await self.both_die(postgres=postgres)
        self.back_s.append(await self.fleet.all_trade(120))

    async def _round_with_a_stop(self, *, postgres: bool) -> None:
        await self.operator.switch.activate(KillSwitchMode.HALT_ONLY, "before the death")
        # On a starved machine the latch may miss its 200 ms, and follows from the journal.
        standing = "SELECT id FROM latches WHERE released_ms IS NULL"
        await eventually(lambda: query(self.url, standing), "it is latched")
        stopped_s = time.monotonic()
        await self.both_die(postgres=postgres)
        await eventually(self._readable, "both can be read")
        await self.fleet.all_have_heard(time.monotonic())
        late = max(self.fleet.late_ms(stopped_s))
        assert late == 0, f"an entry was sent {late} ms after the stop"
        assert len(query(self.url, standing)) == 1
        await self.operator.restart_trading()
        await self.fleet.all_trade(120)

    async def _readable(self) -> bool:
        return not (await self.operator.switch.get_status()).unknown


async def test_both_servers_die_under_load(
    fleet: Fleet, own_postgres: PostgresServer, own_valkey: Valkey
) -> None:
    url = own_postgres.url(own_postgres.new_database())
    fleet.cap = CAP
    place = fleet.host("operator", url, own_valkey.url)
    async with operating(place, cap=CAP) as operator:
        for number in range(SIZE):
            how = "buy_up_to_the_cap"
            fleet.add(fleet.host(f"host-{number}", url, own_valkey.url), how)
        await fleet.all_trade()
        deaths = Deaths(fleet, url, own_valkey, own_postgres, operator)
        for number in range(DEATHS):
            await deaths.round(number)
        # One that was heard while the database was late has a second name, and is released with it.
        own = "SELECT count(*) FROM latches WHERE id !~ '^seen-'"
        latches = query(url, own)[0][0]
        # The only stops are the ones that were made: no death left one behind.
        assert latches == len(range(0, DEATHS, HALTED_EVERY))
        assert query(url, "SELECT count(*) FROM trips") == [(0,)]
    await asyncio.to_thread(fleet.end)
    rows = assert_chain(url)
    highest = highest_exposure(url)
    assert highest <= CAP
    # Too few orders at the cap would show nothing about it.
    assert highest > CAP - SIZE * PRICE
    figure(
        "both servers die",
        {
            "deaths_of_redis": DEATHS,
            "deaths_of_postgres": len(range(0, DEATHS, 2)),
            "approvals": approved_once(url),
            "highest_usd": int(highest),
            "rows": rows,
            "refusals": sorted(deaths.refusals),
            "all_trade_after_s": [round(s, 1) for s in sorted(deaths.back_s)],
        },
    )
