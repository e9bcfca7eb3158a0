"""What a run shows: a line for each thing that happens, and a summary at the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from loop_world import BTC, ETH, buy, sell

from tinywindow.market.feed import Moment
from tinywindow.orchestrator import CycleReport
from tinywindow.run_report import RunReport
from tinywindow.safety import Outcome, Refused
from tinywindow.safety.domain.decision import Breach, Reason
from tinywindow.safety.domain.records import HoldState
from tinywindow.strategies.base import Proposal

START = datetime(2026, 3, 4, 12, tzinfo=UTC)


class Told:
    """A report, and every line that it said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[str] = []
        self.report = RunReport(say=self.said.append, show=self.shown.append)

    def cycle(
        self, *answers: tuple[Proposal, Outcome | Refused], equity: object = 10_000, second: int = 0
    ) -> None:
        at = START + timedelta(seconds=second)
        moment = Moment(at, {BTC: Decimal("60012.111"), ETH: Decimal(2_500)})
        worth = None if equity is None else Decimal(str(equity))
        self.report.cycle(CycleReport(moment, worth, list(answers)))


def outcome(status: str = "ACCEPTED", filled: object = 0, price: object = None) -> Outcome:
    return Outcome(
        "TW1",
        status,
        HoldState.FILLED,
        Decimal(str(filled)),
        None if price is None else Decimal(str(price)),
        message="" if status == "ACCEPTED" else "the venue's words",
    )


def test_an_order_is_told_with_side_amount_symbol_and_price() -> None:
    told = Told()
    told.cycle(
        (buy("0.066"), outcome(filled="0.066", price="60012.111")),
        (sell(2, ETH), outcome(filled="0.5", price=2_500)),
        (buy(1, ETH, price="2499.5"), outcome()),
    )
    assert told.said == [
        "2026-03-04 12:00:00  accepted  BUY 0.066 BTC/USDT at 60,012.11 TW1",
        "2026-03-04 12:00:00  accepted  SELL 2 ETH/USDT, 0.5 filled at 2,500.00 TW1",
        "2026-03-04 12:00:00  accepted  BUY 1 ETH/USDT limit 2499.5 TW1",
    ]


def test_the_readme_shows_what_is_printed() -> None:
    told = Told()
    placed = Outcome(
        "TW2TRXQPUA02NXD8EG",
        "ACCEPTED",
        HoldState.FILLED,
        Decimal("0.06126"),
        Decimal("65298.41"),
    )
    told.cycle((buy("0.06126"), placed))
    told.report.halted(START, "DAILY_PNL: -15.57 % is at or beyond the limit of -10.00 %")
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for line in told.said:
        assert line[len("2026-03-04 12:00:00") :] in readme


def test_what_was_not_taken_is_told_with_its_reason() -> None:
    told = Told()
    breach = Breach(Reason.POSITION_SIZE, "too much")
    told.cycle(
        (buy(9), Refused("TW2", (breach,))),
        (buy(1), outcome("REJECTED")),
        (buy(1), outcome("UNKNOWN")),
    )
    assert told.said == [
        "2026-03-04 12:00:00  refused   BUY 9 BTC/USDT: POSITION_SIZE: too much",
        "2026-03-04 12:00:00  rejected  BUY 1 BTC/USDT TW1 the venue's words",
        "2026-03-04 12:00:00  unknown   BUY 1 BTC/USDT TW1 the venue's words",
    ]


def test_the_line_of_the_moment_shows_equity_and_prices() -> None:
    told = Told()
    told.cycle(equity="19876.5")
    told.report.halted(START, "kill switch: enough")
    told.cycle(equity=None)
    assert told.shown == [
        "2026-03-04 12:00:00  trading   equity 19,876.50  BTC/USDT 60,012.11  ETH/USDT 2,500.00",
        "2026-03-04 12:00:00  HALTED    equity ?  BTC/USDT 60,012.11  ETH/USDT 2,500.00",
    ]


def test_a_halt_is_told_once_and_again_when_its_cause_is_another() -> None:
    told = Told()
    for reason in (
        "DAILY_PNL: -10.83 % is at or beyond the limit of -10.00 %",
        "DAILY_PNL: -10.90 % is at or beyond the limit of -10.00 %",
        "trading is stopped until an operator starts it",
        "trading is stopped until an operator starts it",
    ):
        told.report.halted(START, reason)
    told.report.resumed(START)
    told.report.resumed(START)
    told.report.halted(START, "kill switch: enough")
    assert [line[21:] for line in told.said] == [
        "HALTED    DAILY_PNL: -10.83 % is at or beyond the limit of -10.00 %",
        "HALTED    trading is stopped until an operator starts it",
        "RUNNING   trading goes on",
        "HALTED    kill switch: enough",
    ]


def test_the_summary_counts_everything_and_is_plain_data() -> None:
    told = Told()
    breach = Breach(Reason.POSITION_SIZE, "too much")
    told.cycle((buy(1), outcome(filled=1, price=1)), equity=20_000)
    told.cycle((buy(9), Refused("TW2", (breach,))), equity=None, second=1)
    told.cycle((buy(1), outcome("REJECTED")), (buy(1), outcome("UNKNOWN")), equity=19_000, second=2)
    told.report.halted(START, "kill switch: enough")
    summary = told.report.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["moments"] == 3
    assert summary["first_at"] == "2026-03-04T12:00:00.000000Z"
    assert summary["last_at"] == "2026-03-04T12:00:02.000000Z"
    assert summary["equity"] == {"first": "20000", "last": "19000", "peak": "20000", "low": "19000"}
    assert summary["orders"] == {
        "accepted": 1,
        "rejected": 1,
        "unknown": 1,
        "refused": {"POSITION_SIZE": 1},
    }
    assert summary["halted"] == {
        "at": "2026-03-04T12:00:00.000000Z",
        "reason": "kill switch: enough",
    }


def test_an_empty_run_has_a_summary_and_says_nothing() -> None:
    summary = RunReport().summary()
    assert (summary["moments"], summary["first_at"], summary["halted"]) == (0, None, None)
    silent = RunReport()
    silent.halted(START, "enough")
    silent.resumed(START)
