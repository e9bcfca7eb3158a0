"""What a close tells somebody who was woken by it."""

from __future__ import annotations

from decimal import Decimal as D

from tinywindow.cli.close_words import close_words
from tinywindow.safety.domain.kill import KillState
from tinywindow.safety.services.kill_report import PositionReport, VenueReport


def told(report: VenueReport) -> list[str]:
    return list(close_words(report.venue, report.to_data()))


def test_each_position_has_a_line_that_says_what_is_left_and_why() -> None:
    waits = "what is left of it is in flight or not free at the venue"
    report = VenueReport(
        "paper",
        KillState.INCOMPLETE,
        (
            PositionReport("A/USDT", wanted=D(2), sent=D(2), filled=D(2)),
            PositionReport("B/USDT", wanted=D(2), sent=D(2), filled=D(1), left=D(1), error=waits),
            PositionReport("C/USDT", wanted=D(2), filled=D("1.9"), left=D("0.1"), dust=True),
            PositionReport("D/USDT:USDT", "long", D(2)),
            PositionReport("E/USDT"),
        ),
        errors=(f"B/USDT: {waits}", "positions: no answer within 5 s"),
        resting=1,
        unresolved=3,
    )
    assert told(report) == [
        "paper: NOT FLAT after the deadline; it is tried on, but look at the venue",
        "  1 order still rests",
        "  of 3 sent orders nobody knows yet what became of them",
        "  A/USDT: closed, 2 of 2 by our orders",
        f"  B/USDT: 1 of 2 closed, 1 left (sent so far: 2); last trouble: {waits}",
        "  C/USDT: 1.9 of 2 closed, 0.1 left, which is too small for the venue to take (dust)",
        "  D/USDT:USDT long: closed, 0 of 2 by our orders; the rest was gone before "
        "(liquidated, or closed by somebody else)",
        "  E/USDT: nothing of it is ours to close",
        "  trouble: positions: no answer within 5 s",
    ]


def test_a_flat_venue_without_positions_is_one_line_and_a_crowd_is_cut() -> None:
    assert told(VenueReport("paper", KillState.FLAT)) == [
        "paper: flat, as two reads of the venue have shown"
    ]
    many = tuple(PositionReport(f"C{n}/USDT", wanted=D(1), left=D(1)) for n in range(60))
    lines = told(VenueReport("paper", KillState.CLOSING, many, resting=2, unresolved=1))
    assert lines[1:3] == [
        "  2 orders still rest",
        "  of 1 sent order nobody knows yet what became of it",
    ]
    assert lines[-1] == "  and 10 more positions"
