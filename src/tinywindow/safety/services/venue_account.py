"""The account behind a venue's name: claimed at the first contact, and compared ever after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tinywindow.safety.domain.audit import AuditDraft, EventType
from tinywindow.safety.domain.book import Book
from tinywindow.safety.domain.decision import Breach, Reason, Refusal
from tinywindow.safety.domain.venue_account import (
    KnownAccount,
    account_differs,
    account_key,
    known_account,
)
from tinywindow.safety.errors import ConfigurationError, VenueUnavailable
from tinywindow.safety.ports import Clock, Exchange, Tx
from tinywindow.safety.services.context import SafetyContext

__all__ = ["VenueAccount"]

ACTOR: Final = "venue-account"
ASK_TIMEOUT_S: Final = 5.0
"""How long a venue may take to say whose account it is."""
ORDER_ASK_TIMEOUT_S: Final = 1.0
"""And how long where an order waits, which may be an exit and needs no answer."""


@dataclass(slots=True)
class VenueAccount:
    """One exchange's account, and whether it is the one that the store knows by the venue's name.

    `marked_as` is the account of the portfolio as which its equity is marked, where that is known.
    """

    exchange: Exchange
    clock: Clock
    new_id: Callable[[], str]
    marked_as: str | None = None
    _asked: bool = False
    _claimed: bool = False
    _account_id: str | None = None

    async def claim(self, context: SafetyContext, *, within_s: float = ASK_TIMEOUT_S) -> None:
        """Put the account on record where the store knows none under this name, or compare.

        Raises:
            ConfigurationError: the store knows another account under this name.
            VenueUnavailable: the venue did not say whose account it is.
            StoreUnavailable: the store cannot be read or written.
        """
        account_id = await self._own(within_s)
        venue = self.exchange.name
        mine = KnownAccount(account_id, self.marked_as)
        row = AuditDraft(
            self.new_id(),
            self.clock.now(),
            EventType.VENUE_ACCOUNT_SET,
            ACTOR,
            {"venue": venue, "account_id": account_id},
        )

        def script(tx: Tx) -> str:
            known = known_account(tx.document(account_key(venue)))
            if known.account_id is not None:
                fault = account_differs(venue, known, account_id)
                if not fault and mine.marked_as not in {None, known.marked_as}:
                    tx.put_document(account_key(venue), mine.to_text())
                return fault
            # Of two first contacts the write lock lets one be the first.
            if account_id is not None:
                tx.put_document(account_key(venue), mine.to_text())
                tx.audit(row)
            return ""

        if not self._same(await context.store.read(lambda tx: tx.document(account_key(venue)))):
            fault = await context.store.transact(script)
            if fault:
                raise ConfigurationError(fault)
        self._claimed = True

    async def found(self, context: SafetyContext) -> tuple[Breach, ...]:
        """What says against an entry: another account, or one that cannot be told.

        Without I/O once the account was claimed. An operator may have given the name to another
        account since, and so what the store knows is looked at each time; where it was not read,
        `differs` looks before the send.

        Raises:
            StoreUnavailable: the store cannot be read or written.
        """
        if self._claimed and context.store.peek(lambda book: book is None or self._known_in(book)):
            return ()
        try:
            await self.claim(context, within_s=ORDER_ASK_TIMEOUT_S)
        except (ConfigurationError, VenueUnavailable) as error:
            return (Breach(Reason.STATE_UNKNOWN, str(error)),)
        return ()

    def differs(self, book: Book) -> Refusal | None:
        """What came between the question and the send, by the book as it is now; for entries."""
        if self._known_in(book):
            return None
        message = f"venue {self.exchange.name}: its name was given to another account"
        return Refusal((Breach(Reason.STATE_UNKNOWN, message),))

    def _known_in(self, book: Book) -> bool:
        return self._same(book.documents.get(account_key(self.exchange.name)))

    def _same(self, text: str | None) -> bool:
        """Whether what the store keeps says all that a claim would."""
        known = known_account(text)
        if known.account_id != self._account_id:
            return False
        return self._account_id is None or self.marked_as in {None, known.marked_as}

    async def _own(self, within_s: float) -> str | None:
        """The account by the venue's word, asked once; it never changes under an instance."""
        if not self._asked:
            try:
                async with asyncio.timeout(within_s):
                    self._account_id = await self.exchange.account_id()
            except VenueUnavailable:
                raise
            except Exception as error:  # whatever broke there, the account is not known
                told = str(error) or type(error).__name__
                raise VenueUnavailable(f"the venue does not say whose account: {told}") from error
            self._asked = True
        return self._account_id
