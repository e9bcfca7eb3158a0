"""Which account a venue's name stands for, as the store remembers it from the first contact on.

Positions are compared and closed by the venue's name. Two accounts under one name would each take
the other's positions for closed ones, so a name belongs to one account.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from tinywindow.safety.domain.audit import canonical_json

__all__ = ["KnownAccount", "account_differs", "account_key", "known_account"]


@dataclass(frozen=True, slots=True)
class KnownAccount:
    """What the store knows of the account behind a venue's name.

    Attributes:
        account_id: the account by the venue's own word; None once an operator gave the name
            free, until the next contact.
        marked_as: the account of the portfolio as which its equity is marked, where that was told.
    """

    account_id: str | None = None
    marked_as: str | None = None

    def to_text(self) -> str:
        """The small JSON text that the store keeps."""
        return canonical_json({"account_id": self.account_id, "marked_as": self.marked_as})


def account_key(venue: str) -> str:
    """The key under which the store keeps it."""
    return f"venue_account/{venue}"


@lru_cache(maxsize=64)
def known_account(text: str | None) -> KnownAccount:
    """Read what the store keeps; what cannot be read is an account that nobody has.

    Every order asks: the same text is read once.
    """
    if text is None:
        return KnownAccount()
    try:
        found = json.loads(text)
        account_id, marked_as = found["account_id"], found.get("marked_as")
    except (ValueError, TypeError, KeyError, AttributeError):
        return KnownAccount("")
    readable = all(one is None or isinstance(one, str) for one in (account_id, marked_as))
    return KnownAccount(account_id, marked_as) if readable else KnownAccount("")


def account_differs(venue: str, known: KnownAccount, account_id: str | None) -> str:
    """What an operator is told where a name stands for another account; empty where it does not."""
    if known.account_id is None or known.account_id == account_id:
        return ""
    return (
        f"venue {venue}: the database knows another account under this name, and each would take "
        "the other's positions for closed ones; give this account a name of its own (run.venue), "
        f"or, where the other one is lost for good: tinywindow db adopt-venue {venue}"
    )
