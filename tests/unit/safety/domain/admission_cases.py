"""Orders, books and requests for the tests of admission."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal as D
from typing import Any

from tinywindow.safety.domain.admission import (
    Admission,
    AdmissionRequest,
    admit,
)
from tinywindow.safety.domain.book import Book, Changes, DecisionView, Draft
from tinywindow.safety.domain.breaker import BreakerLimits
from tinywindow.safety.domain.breaker_documents import NAV, NavPoint
from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.domain.limits import EquityView, LimitSet, default_quotes
from tinywindow.safety.domain.nav import apply_mark
from tinywindow.safety.domain.nav_state import Mark, NavConfig, NavState
from tinywindow.safety.domain.order import CheckedOrder, OrderType, PositionKey, Side
from tinywindow.safety.domain.records import (
    Head,
    Hold,
    Position,
    ReferencePrice,
    TradingState,
    Trip,
)
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.domain.windows import Execution, ExecutionKind, Outcome

NOW = 1_700_000_000_000
MOMENT = datetime.fromtimestamp(NOW // 1000, UTC)
HEAD = Head(1, 4, TradingState.RUNNING, 0, "0" * 64, 0)
BTC, PERP = "BTC/USDT", "BTC/USDT:USDT"
BUY, SELL = Side.BUY, Side.SELL
BREAKER = BreakerLimits()
LIMITS = LimitSet(
    max_position_size=D(10_000),
    max_total_exposure=D(50_000),
    max_leverage=D(20),
    max_sector_exposure_pct=D(40),
    allowed_symbols=frozenset({BTC, PERP}),
    price_max_age_ms=5_000,
    equity_max_age_ms=60_000,
    price_collar_pct=D(5),
    reservation_ttl_ms=60_000,
    position_max_age_ms=5_000,
    quote_usd=default_quotes(),
)
TRIP = Trip("t0", "drawdown", "-15", "-15", "drawdown is -15 %", NOW)
ROLLED = Breach(Reason.STORE_ROLLED_BACK, "the store is older than its anchor")
CLOCK = Breach(Reason.CLOCK_UNTRUSTED, "the clock jumped")
PROBED = Refusal((Breach(Reason.KILL_SWITCH_ACTIVE, "the KILL file is there"),))


def latch(mode: KillSwitchMode = KillSwitchMode.HALT_ONLY) -> Latch:
    return Latch("l1", mode, "why", "who", LatchSource.CLI, MOMENT)


def marked(*equities: object) -> NavState:
    state = NavState()
    for equity in equities:
        mark = Mark("default", D(str(equity)), D(0), NOW, estimated=False, received_ms=NOW)
        moved = apply_mark(state, mark, NavConfig())
        assert isinstance(moved, NavState)
        state = moved
    return state


def order(side: Side = BUY, amount: object = 1, symbol: str = PERP, **changes: Any) -> CheckedOrder:
    fields: dict[str, Any] = {
        "symbol": parse_symbol(symbol),
        "side": side,
        "amount": D(str(amount)),
        "type": OrderType.MARKET,
        "price": None,
        "client_order_id": "c1",
        "reduce_only": False,
        "decision_id": "d1",
        "agent_id": "a1",
        "venue": "paper",
        "account": "default",
        **changes,
    }
    return CheckedOrder(**fields)


def attempts(count: int, outcome: Outcome = Outcome.OK) -> tuple[Execution, ...]:
    return tuple(
        Execution(n, ExecutionKind.ORDER, NOW - 1_000, outcome) for n in range(1, count + 1)
    )


def view_of(
    *parts: Position | Hold | Latch | Trip,
    orders: int = 0,
    trading: TradingState = TradingState.RUNNING,
    equities: tuple[object, ...] = (10_000,),
    existing: Hold | None = None,
    spent: bool = False,
) -> DecisionView:
    head = replace(HEAD, trading=trading)
    book = Book(head)
    holds = [part for part in parts if isinstance(part, Hold)]
    if existing is not None and existing.state.open:
        holds.append(existing)
    document = NavPoint(1, NOW, marked(*equities)).to_text()
    book.apply(
        Changes(
            head,
            latches=tuple(part for part in parts if isinstance(part, Latch)),
            trip=tuple(part for part in parts if isinstance(part, Trip)),
            holds=tuple(holds),
            positions=tuple(part for part in parts if isinstance(part, Position)),
            prices=tuple(ReferencePrice(name, D(100), NOW) for name in (BTC, PERP)),
            executions=attempts(orders),
            documents=((NAV, document),),
        )
    )
    return DecisionView(book, existing, spent)


def long(amount: object = 5, symbol: str = PERP, read_ms: int | None = NOW) -> Position:
    return Position(PositionKey("paper", "default", symbol), D(str(amount)), D(1), NOW, read_ms)


def asked(one: CheckedOrder | None = None, **changes: Any) -> AdmissionRequest:
    fields: dict[str, Any] = {
        "order": one or order(),
        "now": MOMENT,
        "now_ms": NOW,
        "limits": LIMITS,
        "equity_of": lambda _: EquityView(D(10_000), known=True),
        "price_source": None,
        "stop_probe": lambda: None,
        "stops_beside": lambda: (),
        "ids": ("row", "trip", "third"),
        "actor": "gate",
        "breaker": BREAKER,
        "with_intent": True,
        **changes,
    }
    return AdmissionRequest(**fields)


def codes(draft: Draft[Admission]) -> list[str]:
    return [one.code.value for one in draft.result.breaches] if isinstance(
        draft.result, Refusal
    ) else []  # fmt: skip


def held(one: CheckedOrder, **changes: Any) -> Hold:
    """The hold that an earlier decision about the order left, without an intent."""
    draft = admit(asked(one, with_intent=False, breaker=None), view_of(long()))
    assert draft.hold is not None
    return replace(draft.hold, **changes)
