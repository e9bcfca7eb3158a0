"""The limit rules: what an order may do to positions, exposure, leverage and sectors.

Exposure sums absolute worst cases and nets nothing across venues, accounts or legs. Exactly at
a limit is allowed. Refuse, never resize, never enlarge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_UP, Decimal, localcontext
from typing import Final

from tinywindow.safety.domain.audit import canonical_json
from tinywindow.safety.domain.book import Book, OpenSums
from tinywindow.safety.domain.decision import Breach, Reason
from tinywindow.safety.domain.money import EXACT, HUNDRED, ONE, ZERO, plain
from tinywindow.safety.domain.order import CheckedOrder, PositionKey, Side
from tinywindow.safety.domain.positions import reducible, worst_amount
from tinywindow.safety.domain.records import ReferencePrice
from tinywindow.safety.domain.sectors import sector_of
from tinywindow.safety.domain.symbols import Symbol, parse_symbol

__all__ = [
    "EquityView",
    "Exposure",
    "LimitSet",
    "PriceOf",
    "check_limits",
    "exposure_of",
    "newest_price",
]

PriceOf = Callable[[str], ReferencePrice | None]
"""Gives the newest reference price of a symbol, without I/O."""

FUTURE_TOLERANCE_MS: Final = 2_000
"""A price or mark further in the future than this is not believed."""


@dataclass(frozen=True, slots=True)
class LimitSet:
    """The limits in force. Sizes are USD, ages milliseconds, percentages percent."""

    max_position_size: Decimal
    max_total_exposure: Decimal
    max_leverage: Decimal
    max_sector_exposure_pct: Decimal
    allowed_symbols: frozenset[str]
    price_max_age_ms: int
    equity_max_age_ms: int
    price_collar_pct: Decimal
    reservation_ttl_ms: int
    position_max_age_ms: int
    sectors: Mapping[str, str] = field(default_factory=dict)
    quote_usd: Mapping[str, Decimal] = field(default_factory=dict)

    @property
    def max_sector_exposure(self) -> Decimal:
        """The sector cap in USD: a share of the maximum total exposure."""
        share = EXACT.divide(self.max_sector_exposure_pct, HUNDRED)
        return EXACT.multiply(self.max_total_exposure, share)

    def to_text(self) -> str:
        """The canonical text under which the store keeps the limits."""
        return canonical_json(
            {
                "max_position_size": self.max_position_size,
                "max_total_exposure": self.max_total_exposure,
                "max_leverage": self.max_leverage,
                "max_sector_exposure_pct": self.max_sector_exposure_pct,
                "allowed_symbols": sorted(self.allowed_symbols),
                "price_max_age_ms": self.price_max_age_ms,
                "equity_max_age_ms": self.equity_max_age_ms,
                "price_collar_pct": self.price_collar_pct,
                "reservation_ttl_ms": self.reservation_ttl_ms,
                "position_max_age_ms": self.position_max_age_ms,
                "sectors": dict(self.sectors),
                "quote_usd": {name: plain(rate) for name, rate in self.quote_usd.items()},
            }
        )

    @classmethod
    def from_text(cls, text: str) -> LimitSet:
        """Read the limits back from the store."""
        data = json.loads(text)
        return cls(
            max_position_size=Decimal(data["max_position_size"]),
            max_total_exposure=Decimal(data["max_total_exposure"]),
            max_leverage=Decimal(data["max_leverage"]),
            max_sector_exposure_pct=Decimal(data["max_sector_exposure_pct"]),
            allowed_symbols=frozenset(data["allowed_symbols"]),
            price_max_age_ms=int(data["price_max_age_ms"]),
            equity_max_age_ms=int(data["equity_max_age_ms"]),
            price_collar_pct=Decimal(data["price_collar_pct"]),
            reservation_ttl_ms=int(data["reservation_ttl_ms"]),
            position_max_age_ms=int(data["position_max_age_ms"]),
            sectors=dict(data["sectors"]),
            quote_usd={name: Decimal(rate) for name, rate in data["quote_usd"].items()},
        )


@dataclass(frozen=True, slots=True)
class EquityView:
    """Portfolio equity in USD as the last marks tell it; `known` when it may be relied on."""

    equity: Decimal | None
    known: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Exposure:
    """Worst-case exposure in USD: in all, by symbol and by sector, and what has no price."""

    total: Decimal
    symbols: Mapping[str, Decimal]
    sectors: Mapping[str, Decimal]
    unpriced: tuple[str, ...]


def newest_price(book: Book, source: PriceOf | None) -> PriceOf:
    """Look prices up in the book and in a source; the newer one counts."""
    if source is None:
        return book.prices.get

    def look(symbol: str) -> ReferencePrice | None:
        stored, seen = book.prices.get(symbol), source(symbol)
        if stored is None or seen is None:
            return seen if stored is None else stored
        return seen if seen.at_ms >= stored.at_ms else stored

    return look


def fresh_price(price_of: PriceOf, limits: LimitSet, symbol: Symbol, now_ms: int) -> Decimal | None:
    """The reference price of a symbol in USD, or None when it is absent, stale or not in USD."""
    price = price_of(symbol.text)
    rate = limits.quote_usd.get(symbol.quote)
    if price is None or rate is None:
        return None
    age_ms = now_ms - price.at_ms
    if age_ms > limits.price_max_age_ms or age_ms < -FUTURE_TOLERANCE_MS:
        return None
    return EXACT.multiply(price.price, rate)


def exposure_of(
    book: Book,
    limits: LimitSet,
    price_of: PriceOf,
    now_ms: int,
    *,
    extra: CheckedOrder | None = None,
) -> Exposure:
    """Add up the worst case of every position and open order, `extra` included."""
    keys = book.keys()
    if extra is not None:
        keys.add(extra.key)
    prices: dict[str, Decimal | None] = {}
    symbols: dict[str, Decimal] = {}
    sectors: dict[str, Decimal] = {}
    unpriced: list[str] = []
    total = ZERO
    for text in sorted({key.symbol for key in keys}):
        symbol = parse_symbol(text)
        price = fresh_price(price_of, limits, symbol, now_ms)
        prices[text] = price
        if price is None:
            unpriced.append(text)
            continue
        same = [key for key in keys if key.symbol == text]
        worst = _worst_of_symbol(book, same, limits, symbol, price, extra)
        symbols[text] = worst
        sector = sector_of(symbol.base, limits.sectors)
        sectors[sector] = EXACT.add(sectors.get(sector, ZERO), worst)
        total = EXACT.add(total, worst)
    return Exposure(total, symbols, sectors, tuple(unpriced))


def _worst_of_symbol(
    book: Book,
    keys: Iterable[PositionKey],
    limits: LimitSet,
    symbol: Symbol,
    price: Decimal,
    extra: CheckedOrder | None,
) -> Decimal:
    rate = limits.quote_usd[symbol.quote]
    valuation, worst = price, ZERO
    for key in keys:
        sums = book.sums.get(key, OpenSums())
        buys, sells = sums.buys, sums.sells
        if extra is not None and extra.key == key:
            if extra.side is Side.BUY:
                buys = EXACT.add(buys, extra.amount)
            else:
                sells = EXACT.add(sells, extra.amount)
            if extra.price is not None:
                valuation = max(valuation, EXACT.multiply(extra.price, rate))
        if sums.price_max is not None:
            valuation = max(valuation, EXACT.multiply(sums.price_max, rate))
        worst = EXACT.add(worst, worst_amount(book.position_amount(key), buys, sells))
    return EXACT.multiply(worst, valuation)


def check_limits(
    order: CheckedOrder,
    book: Book,
    limits: LimitSet,
    equity: EquityView,
    price_of: PriceOf,
    now_ms: int,
) -> tuple[tuple[Breach, ...], Exposure]:
    """Check an entry against every limit rule; give all that it breaks, and the exposure after.

    The caller has found that the order does not strictly reduce; those that do are not checked.
    """
    with localcontext(EXACT):
        exposure = exposure_of(book, limits, price_of, now_ms, extra=order)
        breaches = [
            *_symbol_rule(order, limits),
            *_price_rules(order, limits, price_of, now_ms, exposure),
            *_reduce_rules(order, book),
            *_size_rules(order, limits, equity, exposure),
        ]
        if breaches and not any(one.code in _REDUCTIONS for one in breaches):
            breaches[0] = _with_what_would_pass(breaches[0], order, book)
    return tuple(breaches), exposure


_REDUCTIONS: Final = frozenset({Reason.REDUCE_ONLY, Reason.INSUFFICIENT_POSITION})
"""The rules that name the amount that would pass themselves."""


def _with_what_would_pass(breach: Breach, order: CheckedOrder, book: Book) -> Breach:
    """Name what would pass of an order that is refused for its part beyond zero."""
    may_pass = reducible(book, order.key, order.side)
    if may_pass.is_zero():
        return breach
    message = f"{breach.message}; {plain(may_pass)} {order.symbol.base} would pass as a reduction"
    return replace(breach, message=message)


def _symbol_rule(order: CheckedOrder, limits: LimitSet) -> list[Breach]:
    if order.symbol.text in limits.allowed_symbols:
        return []
    allowed = ", ".join(sorted(limits.allowed_symbols))
    return [
        Breach(
            Reason.SYMBOL_NOT_ALLOWED,
            f"{order.symbol.text} is not on the whitelist ({allowed})",
        )
    ]


def _price_rules(
    order: CheckedOrder, limits: LimitSet, price_of: PriceOf, now_ms: int, exposure: Exposure
) -> list[Breach]:
    breaches: list[Breach] = []
    if exposure.unpriced:
        names = ", ".join(exposure.unpriced)
        age_s = Decimal(limits.price_max_age_ms) / 1000
        breaches.append(
            Breach(
                Reason.PRICE_UNAVAILABLE,
                f"no reference price in USD younger than {plain(age_s)} s for {names}",
                limit=age_s,
                unit="s",
            )
        )
    reference = fresh_price(price_of, limits, order.symbol, now_ms)
    if reference is None or order.price is None:
        return breaches
    limit_price = order.price * limits.quote_usd[order.symbol.quote]
    worse = (limit_price - reference) * order.side.sign * HUNDRED
    if worse > limits.price_collar_pct * reference:
        breaches.append(
            Breach(
                Reason.PRICE_COLLAR,
                f"the limit price {plain(order.price)} is more than "
                f"{plain(limits.price_collar_pct)} % worse than the reference {plain(reference)}",
                limit=limits.price_collar_pct,
                observed=_shown(worse / reference),
                unit="%",
            )
        )
    return breaches


def _reduce_rules(order: CheckedOrder, book: Book) -> list[Breach]:
    may_pass = reducible(book, order.key, order.side)
    if order.reduce_only:
        return [
            Breach(
                Reason.REDUCE_ONLY,
                f"a reduce-only order may reduce by {plain(may_pass)} at most, "
                f"not {plain(order.amount)}",
                limit=may_pass,
                observed=order.amount,
                unit=order.symbol.base,
            )
        ]
    if order.symbol.is_spot and order.side is Side.SELL:
        return [
            Breach(
                Reason.INSUFFICIENT_POSITION,
                f"a spot sell of {plain(order.amount)} {order.symbol.base} is more than the "
                f"{plain(may_pass)} held and not yet offered; {plain(may_pass)} would pass",
                limit=may_pass,
                observed=order.amount,
                unit=order.symbol.base,
            )
        ]
    return []


def _size_rules(
    order: CheckedOrder, limits: LimitSet, equity: EquityView, exposure: Exposure
) -> list[Breach]:
    breaches: list[Breach] = []
    own = exposure.symbols.get(order.symbol.text)
    if own is not None and own > limits.max_position_size:
        breaches.append(
            _above(Reason.POSITION_SIZE, f"position in {order.symbol.text}", own,
                   limits.max_position_size, "USD")
        )  # fmt: skip
    if exposure.total > limits.max_total_exposure:
        breaches.append(
            _above(Reason.TOTAL_EXPOSURE, "total exposure", exposure.total,
                   limits.max_total_exposure, "USD")
        )  # fmt: skip
    breaches.extend(_leverage_rule(limits, equity, exposure))
    sector = sector_of(order.symbol.base, limits.sectors)
    share = exposure.sectors.get(sector, ZERO)
    if share > limits.max_sector_exposure:
        breaches.append(
            _above(Reason.SECTOR_EXPOSURE, f"exposure in sector {sector}",
                   share * HUNDRED / limits.max_total_exposure,
                   limits.max_sector_exposure_pct, "%")
        )  # fmt: skip
    return breaches


def _leverage_rule(limits: LimitSet, equity: EquityView, exposure: Exposure) -> list[Breach]:
    if not equity.known or equity.equity is None:
        return [
            Breach(
                Reason.LEVERAGE,
                f"leverage cannot be measured: {equity.note or 'equity is unknown'}",
                limit=limits.max_leverage,
                unit="x",
            )
        ]
    if equity.equity <= 0:
        return [
            Breach(
                Reason.LEVERAGE,
                f"leverage cannot be measured on an equity of {plain(equity.equity)} USD",
                limit=limits.max_leverage,
                unit="x",
            )
        ]
    # Multiplied out, so that a boundary is exact.
    if exposure.total > limits.max_leverage * equity.equity:
        observed = exposure.total / equity.equity
        return [_above(Reason.LEVERAGE, "leverage", observed, limits.max_leverage, "x")]
    return []


def _above(code: Reason, what: str, observed: Decimal, limit: Decimal, unit: str) -> Breach:
    shown = observed.quantize(Decimal("0.00000001"), rounding=ROUND_UP, context=EXACT)
    return Breach(
        code,
        f"{what} would be {plain(shown)} {unit}, above the limit of {plain(limit)} {unit}",
        limit=limit,
        observed=_shown(observed),
        unit=unit,
    )


def _shown(observed: Decimal) -> Decimal:
    # Rounded up, so that the limit itself is never shown as being above the limit.
    return observed.quantize(Decimal(1).scaleb(-18), rounding=ROUND_UP, context=EXACT)


def default_quotes() -> dict[str, Decimal]:
    """The quote currencies that count as one USD unless configured otherwise."""
    return {"USD": ONE, "USDT": ONE, "USDC": ONE}
