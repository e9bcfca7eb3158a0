"""`tinywindow kill --wait`: see the close through, and close here where nobody else does.

Loaded only after the stop is latched; nothing here can undo it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any, Final

from tinywindow.cli.close_words import close_words
from tinywindow.cli.closing import PATIENCE_MS, anybody_closing
from tinywindow.cli.closing_look import NOBODY
from tinywindow.cli.logs import logs_to_stderr
from tinywindow.cli.output import Output, plain_data, text
from tinywindow.cli.session import Exit, Session
from tinywindow.exchanges.paper import PaperExchange, PriceBoard
from tinywindow.safety.config.layers import Layers, read_layers
from tinywindow.safety.domain.kill import KillState, KillSwitchMode
from tinywindow.safety.errors import ConfigurationError, SafetyError, VenueUnavailable
from tinywindow.safety.ports import Exchange
from tinywindow.safety.services.clock import SystemClock
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.kill_report import KillSwitchStatus, VenueReport
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.order_validator import new_order_id
from tinywindow.safety.services.times import to_ms
from tinywindow.safety.services.venue_account import VenueAccount
from tinywindow.settings import Settings

__all__ = ["wait_until_flat"]

PAPER_BOOK: Final = "paper.db"
"""As `runtime.PAPER_BOOK`, which would load strategies and feeds; a test compares them."""
LOOK_INTERVAL_S: Final = 0.2
PATIENCE_S: Final = PATIENCE_MS / 1000
"""How long a close may be without a heartbeat before nobody counts as closing."""

Answer = tuple[int, dict[str, object]]


def wait_until_flat(data_dir: str | None, config: str | None, *, as_json: bool) -> Answer:
    """Wait until every venue is flat; give the exit code and the report as plain data."""
    logs_to_stderr()
    out = Output(as_json=as_json)
    session = _session(data_dir, config, out)
    try:
        code, report = asyncio.run(_wait(session))
    except SafetyError as error:
        out.warn(f"the stop stands, but waiting failed: {error}")
        return Exit.NOT_REACHED, {"flat": False, "state": "UNKNOWN", "wait_error": str(error)}
    return code, report


def _session(data_dir: str | None, config: str | None, out: Output) -> Session:
    """The session; where the configuration is wrong, the defaults with the same places."""
    over = {} if data_dir is None else {"data_dir": data_dir}
    layers = read_layers(file=config)
    try:
        return Session(Settings.from_layers(layers, **over), layers, out)
    except ConfigurationError as error:
        for sentence in error.violations:
            out.warn(f"configuration: {sentence}")
        bare = Layers()
        found = layers.find(None, "data_dir")
        if found is not None:
            over.setdefault("data_dir", str(found.value))
        return Session(Settings.from_layers(bare, **over), bare, out)


def _venues(session: Session) -> Mapping[str, Exchange]:
    """The venues that this process can reach by itself; none is an answer too."""
    book = session.settings.data_dir / PAPER_BOOK
    if session.replay or not book.exists():
        return {}
    venue = PaperExchange(book, PriceBoard(), clock=SystemClock(), name=session.settings.run.venue)
    return {venue.name: venue}


async def _wait(session: Session) -> Answer:
    settings = session.settings
    venues = _venues(session)
    try:
        async with session.store() as context:
            fault = await _foreign(context, venues)
            own = {} if fault else venues
            async with KillSwitch(
                settings.redis, own, context, config=settings.kill_switch
            ) as switch:
                code, report = await _watch(session, context, switch, can_close=bool(own))
    finally:
        for venue in venues.values():
            await venue.close()
    if not fault:
        return code, report
    # Whatever became of the others: the account that lies here was looked at by nobody.
    session.out.warn(f"the account in this data directory was not closed: {fault}")
    return code or Exit.SAID_NO, {**report, "flat": False, "error": fault}


async def _foreign(context: SafetyContext, venues: Mapping[str, Exchange]) -> str:
    """Why the account in this data directory may not be closed under its name; empty if it may."""
    for venue in venues.values():
        try:
            await VenueAccount(venue, SystemClock(), new_order_id).claim(context)
        except (ConfigurationError, VenueUnavailable) as error:
            return str(error)
    return ""


async def _watch(
    session: Session, context: SafetyContext, switch: KillSwitch, *, can_close: bool
) -> Answer:
    out, clock = session.out, SystemClock()
    heard_s = clock.monotonic()
    shown = ""
    while True:
        status = await switch.get_status()
        report = _report(status)
        if status.mode is not KillSwitchMode.CLOSE_POSITIONS:
            out.say("The mode in force closes nothing; there is nothing to wait for.")
            return Exit.DONE, report
        if status.state is KillState.FLAT:
            _tell(out, report)
            out.say("Every venue is flat.")
            return Exit.DONE, report
        if status.state is KillState.INCOMPLETE:
            _tell(out, report)
            out.warn("the close is INCOMPLETE: look at the venues; it is tried on and on")
            return Exit.SAID_NO, report
        if can_close or await _anybody_closing(context, clock):
            heard_s = clock.monotonic()
        elif clock.monotonic() - heard_s > PATIENCE_S:
            _tell(out, report)
            out.warn(NOBODY)
            return Exit.SAID_NO, {**report, "error": NOBODY}
        shown = _progress(out, status, shown)
        await asyncio.sleep(LOOK_INTERVAL_S)


def _report(status: KillSwitchStatus) -> dict[str, Any]:
    return {
        "flat": status.state is KillState.FLAT,
        "state": status.state.value,
        "venues": plain_data({name: venue.to_data() for name, venue in status.venues.items()}),
    }


def _tell(out: Output, report: Mapping[str, Any]) -> None:
    for name, venue in sorted(report["venues"].items()):
        for line in close_words(name, venue):
            out.say(text(line))


def _progress(out: Output, status: KillSwitchStatus, shown: str) -> str:
    """Say how far each venue is, on a terminal, whenever that changes."""
    line = ", ".join(
        f"{name}: {venue.state.value}, {_open(venue)} of {len(venue.positions)} positions still "
        f"open, {venue.resting} orders rest"
        for name, venue in sorted(status.venues.items())
    )
    if line and line != shown and sys.stderr.isatty():
        out.progress.print(f"  {line}", markup=False)
    return line


def _open(venue: VenueReport) -> int:
    return sum(1 for position in venue.positions if position.left and not position.dust)


async def _anybody_closing(context: SafetyContext, clock: SystemClock) -> bool:
    """Whether any flattener's heart beats, on any venue that the store knows."""
    now_ms = to_ms(clock.now())
    return await context.store.read(lambda tx: anybody_closing(tx, now_ms=now_ms))
