"""A snapshot of the safety state, read and never written: what `status` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tinywindow.cli.closing import closing_of
from tinywindow.cli.session import Session
from tinywindow.safety.domain.audit import AuditRow
from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.breaker import Metric, MetricReading, evaluate
from tinywindow.safety.domain.kill import KillState, effective_mode
from tinywindow.safety.domain.limits import LimitSet, exposure_of, newest_price
from tinywindow.safety.domain.money import EXACT, HUNDRED
from tinywindow.safety.domain.nav_state import NavState
from tinywindow.safety.domain.records import TradingState
from tinywindow.safety.domain.watch import equity_view, watch_breaker
from tinywindow.safety.domain.windows import ExecutionBook
from tinywindow.safety.ports import Tx
from tinywindow.safety.services.context import SafetyContext
from tinywindow.safety.services.kill_file import KillFile
from tinywindow.safety.services.kill_report import KillSwitchStatus, venue_report_of
from tinywindow.safety.services.kill_switch import KillSwitch
from tinywindow.safety.services.limits_in_force import LIMITS_DOCUMENT
from tinywindow.safety.services.times import from_ms

__all__ = ["Snapshot", "snapshot_of", "snapshot_without_store"]

AUDIT_ROWS: Final = 8


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that `status` shows, as plain data; see docs/cli.md for the keys."""

    kill_switch: Mapping[str, object]
    circuit_breaker: Mapping[str, object]
    trading: str
    limits: Mapping[str, object]
    venues: Mapping[str, object]
    audit: list[Mapping[str, object]]


async def snapshot_of(session: Session, context: SafetyContext, now_ms: int) -> Snapshot:
    """Read the store. A replay's is read at its own newest moment, and by its latches alone."""
    settings = session.settings
    if session.replay:
        return await context.store.read(lambda tx: _read(session, tx, None, _newest_ms(tx, now_ms)))
    async with KillSwitch(settings.redis, (), context, config=settings.kill_switch) as switch:
        status = await switch.get_status()
    return await context.store.read(lambda tx: _read(session, tx, status, now_ms))


def snapshot_without_store(session: Session, now_ms: int) -> Snapshot:
    """What can be said where there is no database yet: the file `KILL` and the configuration."""
    limits = session.settings.position_limits.to_limit_set()
    breaker = session.settings.circuit_breaker.to_limits()
    latches = KillFile(session.settings.data_dir / "KILL").read()
    mode = effective_mode(latches)
    readings = evaluate(NavState(), ExecutionBook(), breaker, now_ms)
    status = KillSwitchStatus(active=False)
    if latches:
        latch = latches[-1]
        status = KillSwitchStatus(
            active=True,
            mode=mode,
            reason=latch.reason,
            activated_at=latch.activated_at,
            actor=latch.actor,
            source=latch.source,
            state=KillState.HALTED,
            latches=latches,
        )
    trading = TradingState.STOPPED if latches else TradingState.RUNNING
    return Snapshot(
        {**status.to_data(), "closing": None},
        _breaker(readings, None),
        trading.value,
        _caps(limits),
        {},
        [],
    )


def _newest_ms(tx: Tx, now_ms: int) -> int:
    newest = tx.newest_mark_ms()
    return now_ms if newest is None else newest


def _read(session: Session, tx: Tx, status: KillSwitchStatus | None, now_ms: int) -> Snapshot:
    book = tx.book()
    settings = session.settings
    watched = watch_breaker(book, settings.circuit_breaker.to_limits(), now_ms, asking=0)
    trip = tx.standing_trip()
    standing = tx.document(LIMITS_DOCUMENT)
    limits = (
        settings.position_limits.to_limit_set()
        if standing is None
        else LimitSet.from_text(standing)
    )
    if status is None:
        status = _by_latches(tx)
    closing = None if session.replay else closing_of(tx, status, now_ms=now_ms)
    return Snapshot(
        kill_switch={**status.to_data(), "closing": closing},
        circuit_breaker=_breaker(watched.readings, None if trip is None else trip.sentence),
        trading=tx.head().trading.value,
        limits={**_caps(limits), "used": _used(book, limits, now_ms)},
        venues=_venues(book, status, tx),
        audit=[_row(row) for row in tx.audit_tail(AUDIT_ROWS)],
    )


def _by_latches(tx: Tx) -> KillSwitchStatus:
    latches = tx.standing_latches()
    if not latches:
        return KillSwitchStatus(active=False)
    newest = latches[-1]
    return KillSwitchStatus(
        active=True,
        mode=effective_mode(latches),
        reason=newest.reason,
        activated_at=newest.activated_at,
        actor=newest.actor,
        source=newest.source,
        state=KillState.HALTED,
        latches=latches,
    )


def _breaker(
    readings: Mapping[Metric, MetricReading], halt_reason: str | None
) -> dict[str, object]:
    return {
        "is_halted": halt_reason is not None,
        "halt_reason": halt_reason,
        "metrics": {
            metric.value: {
                "value": reading.value,
                "limit": reading.limit,
                "state": reading.state,
                "fed_at": None if reading.fed_at_ms is None else from_ms(reading.fed_at_ms),
                "fed_at_ms": reading.fed_at_ms,
                "note": reading.note,
            }
            for metric, reading in readings.items()
        },
    }


def _caps(limits: LimitSet) -> dict[str, object]:
    return {
        "max_position_size": limits.max_position_size,
        "max_total_exposure": limits.max_total_exposure,
        "max_leverage": limits.max_leverage,
        "max_sector_exposure_pct": limits.max_sector_exposure_pct,
        "max_sector_exposure": limits.max_sector_exposure,
        "allowed_symbols": sorted(limits.allowed_symbols),
    }


def _used(book: Book, limits: LimitSet, now_ms: int) -> dict[str, object]:
    exposure = exposure_of(book, limits, newest_price(book, None), now_ms)
    equity = equity_view(book.documents, now_ms, limits.equity_max_age_ms)
    leverage = None
    if equity.known and equity.equity is not None and equity.equity > 0:
        leverage = EXACT.divide(exposure.total, equity.equity).quantize(Decimal("0.0001"))
    total_pct = EXACT.divide(HUNDRED * exposure.total, limits.max_total_exposure)
    return {
        "total_exposure": exposure.total,
        "total_exposure_pct": total_pct.quantize(Decimal("0.01")),
        "equity": equity.equity,
        "leverage": leverage,
        "symbols": exposure.symbols,
        "sectors": exposure.sectors,
        "unpriced": exposure.unpriced,
    }


def _venues(book: Book, status: KillSwitchStatus, tx: Tx) -> dict[str, object]:
    reports = {record.venue: venue_report_of(record) for record in tx.close_records()}
    reports.update(status.venues)
    names = {key.venue for key in book.keys()} | set(reports)  # noqa: SIM118 - a method of Book
    return {
        name: {
            "positions": [
                {
                    "account": key.account,
                    "symbol": key.symbol,
                    "leg": key.leg,
                    "amount": position.amount,
                    "price": position.price,
                }
                for key, position in sorted(book.positions.items(), key=lambda item: str(item[0]))
                if key.venue == name
            ],
            "open_orders": sum(1 for hold in book.holds.values() if hold.key.venue == name),
            "close": reports[name].to_data() if name in reports else None,
        }
        for name in sorted(names)
    }


def _row(row: AuditRow) -> dict[str, object]:
    return {
        "seq": row.seq,
        "time": row.time,
        "event_type": row.event_type,
        "actor": row.actor,
        "order_id": row.order_id,
        "data": row.data,
    }
