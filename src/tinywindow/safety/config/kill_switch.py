"""The kill switch's configuration."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import PlainValidator

from tinywindow.safety.config import rules
from tinywindow.safety.config.section import Section

__all__ = ["KillSwitchConfig"]

_Flag = Annotated[bool, PlainValidator(rules.flag)]
_Seconds = Annotated[float, PlainValidator(rules.seconds())]
_Bound = Annotated[float, PlainValidator(rules.seconds(high=60))]


class KillSwitchConfig(Section):
    """How a stop is carried out. Durations are seconds.

    What is not given comes from `TINYWINDOW_KILL_SWITCH__...`, then from the table
    `[kill_switch]` of `tinywindow.toml`, then from the defaults.

    Attributes:
        two_person: a release needs a second operator.
        cancel_entries_on_trip: a breaker's trip cancels resting orders that can grow risk.
        close_deadline: when a close that is not flat is INCOMPLETE and pages a human; also how
            long the end of the process waits for a close.
        report_wait: how long `activate` waits for the venues at most before it reports.
        write_timeout: how long a stop waits for the database, and for Redis.
        read_timeout: how long `is_active` waits for each of them.
        order_timeout: how long an order waits for Redis.
        venue_timeout: how long one call to a venue may take.
        in_flight_grace: the age at which an intent that the venue never knew was never sent.
        watch_interval: how often the watcher looks at Redis and at the file `KILL`.
        idle_interval: how often a venue that is flat, or halted and quiet, is looked at again.
        slow_interval: how often an INCOMPLETE close is tried again.
        release_ttl: how long a pending release may be confirmed.
    """

    section: ClassVar[str | None] = "kill_switch"

    two_person: _Flag = False
    cancel_entries_on_trip: _Flag = True
    close_deadline: _Seconds = 120.0
    report_wait: _Bound = 5.0
    write_timeout: _Bound = 0.2
    read_timeout: _Bound = 0.5
    order_timeout: _Bound = 0.05
    venue_timeout: _Bound = 5.0
    in_flight_grace: _Bound = 2.0
    watch_interval: _Bound = 0.1
    idle_interval: _Seconds = 5.0
    slow_interval: _Seconds = 10.0
    release_ttl: _Seconds = 600.0
