"""A venue's name belongs to one account: another one books, sends and closes nothing under it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from breaker_world import FakeClock
from gate_world import PERP, Desk, Venue, code, opened

from tinywindow.safety.config import KillSwitchConfig
from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.kill import KillState
from tinywindow.safety.domain.records import Lease
from tinywindow.safety.domain.venue_account import KnownAccount, account_key
from tinywindow.safety.errors import (
    ConfigurationError,
    ResetRefused,
    StoreUnavailable,
    VenueUnavailable,
)
from tinywindow.safety.services import venue_account
from tinywindow.safety.services.bounded_store import BoundedStore
from tinywindow.safety.services.context import ContextHandle
from tinywindow.safety.services.flatten_lease import VenueLease, lease_name
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.recovery import Recovery
from tinywindow.safety.services.times import to_ms
from tinywindow.safety.services.venue_account import VenueAccount
from tinywindow.safety.services.venue_adoption import QUIET_S, give_free
from tinywindow.testing import Fault
from venue_race import race

KEY = account_key("scripted")


def recovery(desk: Desk) -> Recovery:
    return Recovery(desk.gate, desk.limits, desk.breaker)


async def trading_on(desk: Desk, amount: int) -> None:
    """A start, and a position under the venue's name."""
    await recovery(desk).run()
    await desk.have(amount, PERP)


async def test_another_account_is_refused_before_anything_is_booked(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as first:
        await trading_on(first, 5)
        rows = await first.rows()
        other = Venue(account_id="other")
        async with opened(tmp_path, clock=clock, exchange=other, funded=False) as second:
            with pytest.raises(ConfigurationError, match=r"another account.*adopt-venue scripted"):
                await recovery(second).run()
            assert await first.position(PERP) == 5
            assert await first.rows() == rows
            assert set(other.calls) == {"account_id"}
            await second.fund()
            assert code(await second.buy(1)) == "STATE_UNKNOWN"
            assert other.sent == ()


async def test_the_gate_alone_refuses_another_account_and_takes_the_same_one(
    tmp_path: Path,
) -> None:
    """Whoever starts no recovery is held to it too; the name stays with the first."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as first:
        assert code(await first.buy(1)) == "ACCEPTED"
        for account, answer in (("other", "STATE_UNKNOWN"), ("scripted", "ACCEPTED")):
            venue = Venue(account_id=account)
            async with opened(tmp_path, clock=clock, exchange=venue, funded=False) as second:
                await second.fund()
                assert code(await second.buy(1)) == answer
        assert code(await first.buy(1)) == "ACCEPTED"


async def test_a_database_from_before_takes_the_first_that_comes(tmp_path: Path) -> None:
    async with opened(tmp_path, funded=False) as desk:
        await trading_on(desk, 5)
        (row,) = await desk.data("VENUE_ACCOUNT_SET")
        assert row == {"venue": "scripted", "account_id": "scripted"}
        kept = json.loads(await desk.read(lambda tx: tx.document(KEY)))
        assert kept == {"account_id": "scripted", "marked_as": "default"}
        await recovery(desk).run()
        assert len(await desk.rows("VENUE_ACCOUNT_SET")) == 1


@pytest.mark.parametrize("text", ["{", "[]", '"x"', '{"account_id": 7}', "{}"])
async def test_what_cannot_be_read_is_nobodys_account(tmp_path: Path, text: str) -> None:
    async with opened(tmp_path) as desk:
        await desk.context.store.transact(lambda tx: tx.put_document(KEY, text))
        with pytest.raises(ConfigurationError):
            await recovery(desk).run()
        assert code(await desk.buy(1)) == "STATE_UNKNOWN"


async def test_a_venue_that_cannot_say_is_refused_only_under_a_known_name(tmp_path: Path) -> None:
    silent = Venue(account_id=None)
    async with opened(tmp_path, exchange=silent) as desk:
        await recovery(desk).run()
        assert code(await desk.buy(1)) == "ACCEPTED"
    async with opened(tmp_path) as desk:
        await recovery(desk).run()
    async with opened(tmp_path, exchange=silent, funded=False) as desk:
        with pytest.raises(ConfigurationError):
            await recovery(desk).run()


async def test_a_venue_that_is_away_books_nothing_until_it_says(tmp_path: Path) -> None:
    async with opened(tmp_path, funded=False) as desk:
        await desk.have(5, PERP)
        await desk.fund()
        desk.exchange.set_position(PERP, 0)
        start = recovery(desk)
        desk.exchange.break_down("account_id", Fault.FAIL)
        report = await start.run()
        assert report.errors == ["account: account_id failed"]
        with pytest.raises(VenueUnavailable):
            await start.settle_working()
        assert await desk.position(PERP) == 5
        assert await desk.rows("RECOVERY") == ()
        assert code(await desk.buy(1)) == "STATE_UNKNOWN"
        desk.exchange.break_down("account_id", None)
        await start.settle_working()
        assert await desk.position(PERP) == 0
        assert code(await desk.buy(1)) == "ACCEPTED"


async def test_a_venue_that_never_says_holds_an_exit_up_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venue_account, "ORDER_ASK_TIMEOUT_S", 0.01)
    async with opened(tmp_path) as desk:
        await desk.have(5, PERP)
        desk.exchange.break_down("account_id", Fault.HANG)
        # As in a process that was started anew, and has heard nothing yet.
        desk.gate.account = VenueAccount(desk.exchange, desk.clock, iter("abc").__next__)
        async with asyncio.timeout(venue_account.ASK_TIMEOUT_S):
            assert code(await desk.buy(1)) == "STATE_UNKNOWN"
            assert code(await desk.sell(2, symbol=PERP)) == "ACCEPTED"


async def test_of_two_first_contacts_at_once_one_is_refused(tmp_path: Path) -> None:
    await race(tmp_path / "shared.db", tmp_path)


# --- closing ---


async def closed(desk: Desk, exchange: Venue) -> KillSwitch:
    config = KillSwitchConfig(report_wait=1, close_deadline=60)
    switch = KillSwitch(None, [exchange], desk.context, config=config, inline=True)
    await switch.activate("CLOSE_POSITIONS", "test")
    return switch


async def test_a_close_of_another_account_sends_nothing_and_is_never_flat(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await trading_on(desk, 5)
        other = Venue(account_id="other")
        other.set_position(PERP, 3)
        switch = await closed(desk, other)
        status = await switch.get_status()
        assert status.state is KillState.CLOSING
        assert "another account" in status.venues["scripted"].errors[0]
        assert other.sent == ()
        assert await desk.position(PERP) == 5
        await switch.close()
        # The account that the name stands for is closed as ever.
        switch = await closed(desk, desk.exchange)
        assert (await switch.wait_flat(20)).flat
        assert desk.exchange.position(PERP) == 0
        await switch.close()


async def test_a_lease_that_was_refused_is_not_had_by_the_database_going_away(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:
        handle = ContextHandle(desk.context)
        lease = VenueLease(
            "scripted", "me", BoundedStore(handle, 2.0), asked=True, account_id="other"
        )
        assert not await lease.take(now_ms=1)
        with pytest.MonkeyPatch.context() as patch:

            async def away(*_: object, **__: object) -> object:
                raise StoreUnavailable("away")

            patch.setattr(BoundedStore, "write", away)
            assert not await lease.take(now_ms=2)
            lease.foreign = ""
            assert await lease.take(now_ms=3)
        lease.unlock_host()
        await handle.close()


async def test_an_account_that_is_not_told_is_closed_but_not_called_flat(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await trading_on(desk, 5)
        venue = Venue()
        venue.set_position(PERP, 5)
        venue.break_down("account_id", Fault.FAIL)
        switch = await closed(desk, venue)
        assert venue.position(PERP) == 0
        status = await switch.get_status()
        assert status.state is KillState.CLOSING
        venue.break_down("account_id", None)
        async with asyncio.timeout(20):
            assert (await switch.wait_flat(20)).flat
        await switch.close()


# --- the way out ---


async def give(desk: Desk, venue: str = "scripted") -> None:
    row = AuditDraft(
        os.urandom(8).hex(),
        desk.clock.now(),
        EventType.VENUE_ACCOUNT_SET,
        "Ada",
        {"reason": "the disk is gone", "operator": "Ada"},
    )
    await give_free(desk.context, venue, row)


async def stopped(desk: Desk) -> None:
    await desk.kill_switch.stop_trading(actor="test")


async def test_a_name_is_given_free_only_when_nobody_trades_on_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await trading_on(desk, 5)
        with pytest.raises(ResetRefused, match="trading must be stopped"):
            await give(desk)
        await stopped(desk)
        with pytest.raises(ResetRefused, match="end every process"):
            await give(desk)
        with pytest.raises(ResetRefused, match="no account under the name elsewhere"):
            await give(desk, "elsewhere")
        desk.clock.advance(QUIET_S + 1)
        # Another account of the portfolio goes on, on a venue of another name.
        await desk.breaker.record_equity(1, account="another")
        before = await desk.rows()
        await give(desk)
        added = (await desk.rows())[len(before) :]
        assert [(row.event_type, row.actor) for row in added] == [("VENUE_ACCOUNT_SET", "Ada")]
        assert json.loads(added[0].data)["before"] == "scripted"
        assert await desk.position(PERP) == 5


async def test_whoever_comes_next_is_taken_on_reconciled_and_the_old_one_refused(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as first:
        start = recovery(first)
        await start.run()
        await first.have(5, PERP)
        await stopped(first)
        clock.advance(QUIET_S + 1)
        await give(first)
        other = Venue(account_id="other")
        async with opened(tmp_path, clock=clock, exchange=other, funded=False) as second:
            await recovery(second).run()
            assert await second.position(PERP) == 0
            await second.kill_switch.start_trading(actor="test")
            await second.fund()
            assert code(await second.buy(1)) == "ACCEPTED"
            await first.refresh()
            # It slept through all of it; nothing of it counts any more.
            assert code(await first.buy(1)) == "STATE_UNKNOWN"
            with pytest.raises(ConfigurationError):
                await start.settle_working()


async def test_a_name_that_is_given_away_between_an_approval_and_its_send_sends_nothing(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as desk:

        async def hook(_: object) -> None:
            text = KnownAccount("other").to_text()
            await desk.context.store.transact(lambda tx: tx.put_document(KEY, text))

        desk.exchange.hook = hook
        assert code(await desk.buy(1)) == "STATE_UNKNOWN"
        assert desk.sent() == []


async def test_a_name_is_kept_while_its_close_is_at_work(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await trading_on(desk, 5)
        await stopped(desk)
        desk.clock.advance(QUIET_S + 1)
        beat = Lease(lease_name("scripted"), "another process", 1, to_ms(desk.clock.now()))
        await desk.context.store.transact(lambda tx: tx.put_lease(beat))
        with pytest.raises(ResetRefused, match="at work closing"):
            await give(desk)
