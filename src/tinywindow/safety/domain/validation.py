"""Validation: from whatever was handed in to a checked order, or to every reason why not.

Nothing is corrected, rounded or resized. Every violation is listed as a sentence that begins
with the field, quotes the value, and says what is wanted; sentences are one line of printable
ASCII, however hostile the value. No method of the value's own class is run, but for the reading
of a mapping that is no `dict`; whatever that raises is a violation too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from decimal import Decimal
from itertools import islice
from typing import Final, TypeVar, cast

from tinywindow.safety.domain.money import EXACT, ZERO, NotANumber, plain, to_decimal
from tinywindow.safety.domain.order import (
    DEFAULT_ACCOUNT,
    CheckedOrder,
    Order,
    OrderType,
    Side,
)
from tinywindow.safety.domain.symbols import BadSymbol, Symbol, parse_symbol
from tinywindow.safety.domain.text import exact_text, is_kind, shown, type_name
from tinywindow.safety.domain.venue import MarketRules
from tinywindow.safety.errors import InvariantBroken

__all__ = [
    "KEYS_MAX",
    "ValidationResult",
    "checked_label",
    "checked_name",
    "is_order_id",
    "is_venue_name",
    "validate_order",
]

KEYS_MAX: Final = 32
"""Keys of a mapping that are read; an order has eleven."""

_DEFAULTS: Final[dict[str, object]] = {field.name: field.default for field in fields(Order)}
_REQUIRED: Final = tuple(name for name, value in _DEFAULTS.items() if value is MISSING)
_OPTIONAL: Final = {name: value for name, value in _DEFAULTS.items() if value is not MISSING}
_KEYS_WANTED: Final = "only " + ", ".join(_DEFAULTS)
_ORDER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}")
_LABEL: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,62}[\x21-\x7e])?")
"""No blank at its ends: two ids that look the same are the same."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_SIDES: Final = {side.value: side for side in Side}
_TYPES: Final = {kind.value: kind for kind in (OrderType.MARKET, OrderType.LIMIT)}

_Choice = TypeVar("_Choice", Side, OrderType)

_NUMBER_WANTED: Final = "a finite number above zero"
_LABEL_WANTED: Final = "nothing, or 1 to 64 printable ASCII characters without blanks at the ends"
_NAME_WANTED: Final = "nothing, or 1 to 32 of the characters A-Z a-z 0-9 _ . -"
_WANTED: Final = {
    "symbol": "a unified symbol such as BTC/USDT",
    "side": "BUY or SELL",
    "amount": _NUMBER_WANTED,
    "type": "MARKET or LIMIT",
    "price": _NUMBER_WANTED,
    "client_order_id": "nothing, or 1 to 36 of the characters A-Z a-z 0-9 _ -",
    "reduce_only": "True or False",
    "decision_id": _LABEL_WANTED,
    "agent_id": _LABEL_WANTED,
    "venue": _NAME_WANTED,
    "account": _NAME_WANTED,
}


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """What validation made of an order; true exactly when the order is valid.

    Attributes:
        errors: every violation, a sentence each; empty when the order is valid.
        order: the order with its fields normalised and its id, venue and account filled in;
            validating it again changes nothing. None when it is not valid.
        checked: the same as a `CheckedOrder`, which is what the gate works with.
    """

    errors: tuple[str, ...]
    order: Order | None = None
    checked: CheckedOrder | None = None

    @property
    def is_valid(self) -> bool:
        """Whether the order may go on to the gate."""
        return self.checked is not None and not self.errors

    def __bool__(self) -> bool:
        return self.is_valid


def is_order_id(text: str) -> bool:
    """Say whether `text` can be a client order id at every venue that is supported."""
    return _ORDER_ID.fullmatch(text) is not None


def is_venue_name(text: str) -> bool:
    """Say whether `text` can name a venue or an account."""
    return _NAME.fullmatch(text) is not None


def checked_name(field: str, value: object) -> str:
    """The name of a venue or an account, as orders may carry it.

    Raises:
        ValueError: it is none; an order could never name it.
    """
    return _checked(field, value, _NAME, _NAME_WANTED)


def checked_label(field: str, value: object) -> str:
    """An id that somebody else made, such as a venue's.

    Raises:
        ValueError: it is none.
    """
    return _checked(field, value, _LABEL, _LABEL_WANTED)


def _checked(field: str, value: object, pattern: re.Pattern[str], wanted: str) -> str:
    if isinstance(value, str) and pattern.fullmatch(value) is not None:
        return value
    raise ValueError(f"{field} is {shown(value)}; wanted {wanted.removeprefix('nothing, or ')}")


def validate_order(
    order: object,
    *,
    default_venue: str,
    new_id: Callable[[], str],
    markets: Mapping[str, MarketRules] | None = None,
) -> ValidationResult:
    """Check an `Order`, or a mapping with the same keys, and list everything wrong with it.

    Args:
        order: what was handed in; anything at all.
        default_venue: the venue of an order that names none.
        new_id: makes the client order id of a valid order that has none.
        markets: the venue's rules by canonical symbol; None where they are not known here.

    Never raises an `Exception`. A fault while the order is read is a violation of its own.
    """
    try:
        draft = _read(order)
        checked = draft.checked(default_venue, new_id, markets)
    except Exception as fault:  # noqa: BLE001 - validation is total, and what it cannot read it refuses
        return ValidationResult(
            (f"order {shown(order)} could not be read ({type_name(fault)}); wanted plain values",)
        )
    if checked is None:
        return ValidationResult(tuple(draft.errors))
    return ValidationResult((), _normalised(checked), checked)


class _Draft:
    """An order while it is read: the raw fields, and the violations found so far."""

    __slots__ = ("errors", "given")

    def __init__(self, given: dict[str, object], errors: list[str]) -> None:
        self.given = given
        self.errors = errors

    def checked(
        self,
        default_venue: str,
        new_id: Callable[[], str],
        markets: Mapping[str, MarketRules] | None,
    ) -> CheckedOrder | None:
        """Check every field, whatever the others say; None when there is any violation."""
        symbol = self._symbol()
        side = self._choice("side", _SIDES)
        amount = self._number("amount")
        kind = self._choice("type", _TYPES)
        price = self._price(kind)
        order_id = self._text("client_order_id", _ORDER_ID)
        reduce_only = self._flag("reduce_only")
        decision_id = self._text("decision_id", _LABEL)
        agent_id = self._text("agent_id", _LABEL)
        venue = self._text("venue", _NAME)
        account = self._text("account", _NAME)
        if symbol is not None and markets is not None:
            self.errors += _market_errors(symbol, markets, amount, price, reduce_only=reduce_only)
        if self.errors or symbol is None or side is None or amount is None or kind is None:
            return None
        return CheckedOrder(
            symbol=symbol,
            side=side,
            amount=amount,
            type=kind,
            price=price,
            client_order_id=order_id or _made(new_id),
            reduce_only=reduce_only,
            decision_id=decision_id,
            agent_id=agent_id,
            venue=venue or default_venue,
            account=account or DEFAULT_ACCOUNT,
        )

    def _wrong(self, field: str, problem: str) -> None:
        value = shown(self.given[field])
        self.errors.append(f"{field} {value} {problem}; wanted {_WANTED[field]}")

    def _symbol(self) -> Symbol | None:
        if "symbol" not in self.given:
            return None
        try:
            return parse_symbol(self.given["symbol"])
        except BadSymbol as fault:
            self.errors.append(f"symbol {fault}")
            return None

    def _choice(self, field: str, choices: Mapping[str, _Choice]) -> _Choice | None:
        if field not in self.given:
            return None
        text = exact_text(self.given[field])
        choice = None if text is None else choices.get(text)
        if choice is None:
            self._wrong(field, "is not one that is supported")
        return choice

    def _number(self, field: str) -> Decimal | None:
        if field not in self.given:
            return None
        try:
            number = to_decimal(self.given[field])
        except NotANumber as fault:
            self._wrong(field, str(fault))
            return None
        if number <= ZERO:
            self._wrong(field, "is not above zero")
            return None
        return number

    def _price(self, kind: OrderType | None) -> Decimal | None:
        """Read the price; where the type is wrong, one that is given must still be a number."""
        given = self.given["price"]
        if kind is OrderType.MARKET:
            if given is not None:
                value = shown(given)
                self.errors.append(f"price {value} is given for a MARKET order; wanted no price")
            return None
        if given is None:
            if kind is OrderType.LIMIT:
                self._wrong("price", "is missing from a LIMIT order")
            return None
        return self._number("price")

    def _flag(self, field: str) -> bool:
        value = self.given[field]
        if value is not True and value is not False:
            self._wrong(field, "is not a truth value")
        return value is True

    def _text(self, field: str, pattern: re.Pattern[str]) -> str | None:
        value = self.given[field]
        if value is None:
            return None
        text = exact_text(value)
        if text is None:
            self._wrong(field, "is not text")
        elif not pattern.fullmatch(text):
            self._wrong(field, "is empty, too long, or has other characters")
            return None
        return text


def _read(order: object) -> _Draft:
    if is_kind(order, Order):
        return _Draft({name: getattr(order, name) for name in _DEFAULTS}, [])
    if is_kind(order, dict) or issubclass(type(order), Mapping):
        return _read_mapping(cast("Mapping[object, object]", order))
    return _Draft(
        dict(_OPTIONAL), [f"order {shown(order)} is no order; wanted an Order or a mapping"]
    )


def _read_mapping(order: Mapping[object, object]) -> _Draft:
    errors: list[str] = []
    given: dict[str, object] = {}
    unknown: list[str] = []
    whole = True
    for count, (key, value) in enumerate(islice(order.items(), KEYS_MAX + 1)):
        name = exact_text(key)
        if count == KEYS_MAX:
            errors.append(f"order has more than {KEYS_MAX} keys; wanted {len(_DEFAULTS)} at most")
            whole = False
        elif name is None or name not in _DEFAULTS:
            unknown.append(shown(key))
        elif name in given:
            errors.append(f"order has the key {name} twice; wanted it once")
        else:
            given[name] = value
    if unknown:
        errors.append(f"order has the unknown keys {', '.join(unknown)}; wanted {_KEYS_WANTED}")
    if whole:
        errors += [
            f"{name} is missing; wanted {_WANTED[name]}" for name in _REQUIRED if name not in given
        ]
    return _Draft({**_OPTIONAL, **given}, errors)


def _made(new_id: Callable[[], str]) -> str:
    order_id = new_id()
    if not is_order_id(order_id):
        raise InvariantBroken("the id source made an id that no venue would take")
    return order_id


def _normalised(checked: CheckedOrder) -> Order:
    return Order(
        symbol=checked.symbol.text,
        side=checked.side,
        amount=checked.amount,
        type=checked.type,
        price=checked.price,
        client_order_id=checked.client_order_id,
        reduce_only=checked.reduce_only,
        decision_id=checked.decision_id,
        agent_id=checked.agent_id,
        venue=checked.venue,
        account=checked.account,
    )


def _market_errors(
    symbol: Symbol,
    markets: Mapping[str, MarketRules],
    amount: Decimal | None,
    price: Decimal | None,
    *,
    reduce_only: bool,
) -> Iterator[str]:
    """Compare with the market's rules: what is off is refused, never rounded onto them.

    The least notional is not asked of a reduce-only order: a rule of ours may not keep anybody
    in a position, and the venue can still say no.
    """
    rules = markets.get(symbol.text)
    if rules is None:
        yield f"symbol {shown(symbol.text)} is not listed; wanted a market of the venue"
        return
    if amount is not None:
        yield from _size_errors(amount, rules)
    if price is not None and _off_step(price, rules.price_step):
        yield _off("price", price, "is between two steps", "a multiple of", rules.price_step)
    if amount is not None and price is not None and not reduce_only:
        notional = EXACT.multiply(amount, price)
        if rules.notional_min is not None and notional < rules.notional_min:
            problem = f"makes a notional of {plain(notional)}"
            yield _off("amount", amount, problem, "a notional of at least", rules.notional_min)


def _size_errors(amount: Decimal, rules: MarketRules) -> Iterator[str]:
    if rules.amount_min is not None and amount < rules.amount_min:
        yield _off("amount", amount, "is too small", "at least", rules.amount_min)
    if rules.amount_max is not None and amount > rules.amount_max:
        yield _off("amount", amount, "is too large", "at most", rules.amount_max)
    if _off_step(amount, rules.amount_step):
        yield _off("amount", amount, "is between two steps", "a multiple of", rules.amount_step)


def _off_step(value: Decimal, step: Decimal | None) -> bool:
    return step is not None and not EXACT.remainder(value, step).is_zero()


def _off(field: str, value: Decimal, problem: str, wanted: str, bound: Decimal | None) -> str:
    return f"{field} {shown(value)} {problem}; wanted {wanted} {shown(bound)}"
