"""What the store machine asks of a store: orders, scripts, and all that can be seen of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tinywindow.safety.domain.admission import AdmissionRequest
from tinywindow.safety.domain.audit import AuditDraft, AuditRow, EventType
from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.breaker import BreakerLimits
from tinywindow.safety.domain.breaker_documents import NavPoint
from tinywindow.safety.domain.kill import KillSwitchMode, Latch, LatchSource
from tinywindow.safety.domain.limits import EquityView, LimitSet, default_quotes
from tinywindow.safety.domain.money import ZERO
from tinywindow.safety.domain.nav import apply_mark
from tinywindow.safety.domain.nav_state import Mark, NavConfig, NavState
from tinywindow.safety.domain.order import CheckedOrder, OrderType, PositionKey, Side
from tinywindow.safety.domain.records import MarkRecord, Position, Trip
from tinywindow.safety.domain.symbols import parse_symbol
from tinywindow.safety.domain.windows import Outcome
from tinywindow.safety.ports import Tx

BTC, PERP, ETH = "BTC/USDT", "BTC/USDT:USDT", "ETH/USDT"
SYMBOLS = (BTC, PERP, ETH)
START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
# So small that a few orders of a few units at a price of 100 are refused.
LIMITS = LimitSet(
    max_position_size=Decimal(600),
    max_total_exposure=Decimal(1_000),
    max_leverage=Decimal(20),
    max_sector_exposure_pct=Decimal(100),
    allowed_symbols=frozenset(SYMBOLS),
    price_max_age_ms=10**12,
    equity_max_age_ms=60_000,
    price_collar_pct=Decimal(5),
    reservation_ttl_ms=60_000,
    position_max_age_ms=5_000,
    quote_usd=default_quotes(),
)
BREAKER = BreakerLimits()


@dataclass(frozen=True)
class Asked:
    """One order as the machine draws it; `measured` is whether the breaker measures."""

    name: str
    symbol: str
    side: Side
    amount: Decimal
    price: Decimal | None
    decision: str | None
    reduce_only: bool
    with_intent: bool
    measured: bool


def moment(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def row(name: str, ms: int) -> AuditDraft:
    return AuditDraft(name, moment(ms), EventType.KILL_STEP, "alice", {"n": Decimal("1.50")})


def latch(name: str, ms: int, mode: KillSwitchMode) -> Latch:
    return Latch(name, mode, "a reason", "alice", LatchSource.PYTHON, moment(ms))


def trip(name: str, ms: int) -> Trip:
    return Trip(name, "drawdown", "-16", "-15", "DRAWDOWN: -16 % is beyond -15 %", ms)


def mark(ms: int, equity: int) -> MarkRecord:
    return MarkRecord(0, "default", Decimal(equity), ZERO, ms, ms, trusted=True, nav=None)


def nav_text(mark_id: int, ms: int, *equities: int) -> str:
    """The NAV document after these marks."""
    state = NavState()
    for equity in equities:
        made = Mark("default", Decimal(equity), ZERO, ms, estimated=False, received_ms=ms)
        moved = apply_mark(state, made, NavConfig())
        assert isinstance(moved, NavState)
        state = moved
    return NavPoint(mark_id, ms, state).to_text()


def found(symbol: str, amount: Decimal, ms: int) -> Position:
    return Position(PositionKey("paper", "default", symbol), amount, Decimal(100), ms, ms)


def request(asked: Asked, now_ms: int, ids: tuple[str, str, str]) -> AdmissionRequest:
    return AdmissionRequest(
        order=CheckedOrder(
            symbol=parse_symbol(asked.symbol),
            side=asked.side,
            amount=asked.amount,
            type=OrderType.MARKET if asked.price is None else OrderType.LIMIT,
            price=asked.price,
            client_order_id=asked.name,
            reduce_only=asked.reduce_only,
            decision_id=asked.decision,
            agent_id="agent",
            venue="paper",
            account="default",
        ),
        now=moment(now_ms),
        now_ms=now_ms,
        limits=LIMITS,
        equity_of=lambda _: EquityView(Decimal(10_000), known=True),
        price_source=None,
        stop_probe=lambda: None,
        stops_beside=lambda: (),
        ids=ids,
        actor="gate",
        breaker=BREAKER if asked.measured else None,
        with_intent=asked.with_intent,
    )


def attempt(
    tx: Tx, name: str | None, kind: str, outcome: Outcome, *, at_ms: int, now_ms: int
) -> object:
    resolved = None if outcome is Outcome.PENDING else now_ms
    return tx.put_execution(
        kind=kind, at_ms=at_ms, outcome=outcome, resolved_ms=resolved, client_order_id=name
    )


def seen(book: Book, now_ms: int) -> dict[str, object]:
    """Everything that a book knows, in a form in which two books can be compared."""
    return {
        "head": book.head,
        "latches": book.latches,
        "trip": book.trip,
        "holds": dict(book.holds),
        "by_key": {key: dict(holds) for key, holds in book.by_key.items()},
        "sums": dict(book.sums),
        "positions": dict(book.positions),
        "prices": dict(book.prices),
        "documents": dict(book.documents),
        "velocity": book.executions.velocity(now_ms),
        "errors": book.executions.errors(now_ms),
        "streak": book.executions.streak(now_ms),
        "attempts": (book.executions.last_id, book.executions.cleared_id),
    }


def beside_the_book(tx: Tx) -> dict[str, object]:
    """All that a transaction can see but its book and the orders that have ended."""
    return {
        "head": tx.head(),
        "latches": tx.standing_latches(),
        "released": tx.last_release_ms(),
        "trips": (tx.standing_trip(), tx.last_trip()),
        "marks": tx.marks(since_ms=0, limit=10_000),
        "newest": tx.newest_mark_ms(),
        "lease": tx.lease("flattener"),
        "closes": tx.close_records(),
    }


def chain(tx: Tx) -> tuple[AuditRow, ...]:
    return tx.audit_rows(limit=1_000_000)


def worst_at_reference(book: Book) -> dict[str, Decimal]:
    """By symbol, the largest value that positions and open orders can reach, in USD.

    Counted hold by hold, at the reference price: nothing of the sums under test is used.
    """
    worst: dict[str, Decimal] = {}
    for key in {*book.positions, *(hold.key for hold in book.holds.values())}:
        low = high = book.position_amount(key)
        for hold in book.holds.values():
            if hold.key == key and hold.side is Side.BUY:
                high += hold.amount - hold.filled
            elif hold.key == key:
                low -= hold.amount - hold.filled
        size = max(abs(low), abs(high)) * book.prices[key.symbol].price
        worst[key.symbol] = worst.get(key.symbol, ZERO) + size
    return worst
