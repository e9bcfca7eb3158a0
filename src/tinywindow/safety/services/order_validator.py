"""The order validator: `domain.validation` with an id source, a venue and market rules."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping
from typing import Final

from tinywindow.safety.domain.text import exact_text, shown
from tinywindow.safety.domain.validation import ValidationResult, is_venue_name, validate_order
from tinywindow.safety.domain.venue import MarketRules
from tinywindow.safety.errors import ConfigurationError

__all__ = ["OrderValidator", "new_order_id"]

DEFAULT_VENUE: Final = "default"
ID_PREFIX: Final = "TW"
ID_RANDOM_CHARS: Final = 16
_ID_ALPHABET: Final = string.digits + string.ascii_uppercase


def new_order_id() -> str:
    """Make a client order id: `TW` and 16 random characters, 82 bits that nobody can guess."""
    rest = secrets.randbelow(len(_ID_ALPHABET) ** ID_RANDOM_CHARS)
    chars: list[str] = []
    for _ in range(ID_RANDOM_CHARS):
        rest, digit = divmod(rest, len(_ID_ALPHABET))
        chars.append(_ID_ALPHABET[digit])
    return ID_PREFIX + "".join(chars)


class OrderValidator:
    """Says whether an order is well formed, and if not, everything that is wrong with it.

    Args:
        markets: the venue's rules by canonical symbol. Where they are given, an order must name
            one of these markets and fit its steps and bounds; None checks the form only.
        default_venue: the venue of an order that names none.
        new_id: makes client order ids; random ones by default.

    Raises:
        ConfigurationError: when `default_venue` cannot be the name of a venue.
    """

    __slots__ = ("_default_venue", "_markets", "_new_id")

    def __init__(
        self,
        *,
        markets: Mapping[str, MarketRules] | None = None,
        default_venue: str = DEFAULT_VENUE,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        name = exact_text(default_venue)
        if name is None or not is_venue_name(name):
            raise ConfigurationError(
                f"default_venue {shown(default_venue)} is not a name; "
                "wanted 1 to 32 of the characters A-Z a-z 0-9 _ . -"
            )
        self._markets = markets
        self._default_venue = name
        self._new_id = new_order_id if new_id is None else new_id

    def validate_order(
        self, order: object, *, default_venue: str | None = None
    ) -> ValidationResult:
        """Check an `Order`, or a mapping with the same keys. Never raises, whatever comes.

        Args:
            order: what was handed in; anything at all.
            default_venue: the venue of this order if it names none, where the caller knows it
                better than this validator; already known to be a good name.
        """
        return validate_order(
            order,
            default_venue=default_venue or self._default_venue,
            new_id=self._new_id,
            markets=self._markets,
        )
