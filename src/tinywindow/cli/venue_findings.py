"""What `doctor` says of the paper venue."""

from __future__ import annotations

from collections.abc import Iterator

from tinywindow.cli.findings import Finding, Level
from tinywindow.safety.errors import VenueUnavailable
from tinywindow.settings import Settings

__all__ = ["venue"]

SUBJECT = "venue"
RESTORE = "stop every process, keep a copy, and restore the newest backup of {}"


def venue(settings: Settings) -> Iterator[Finding]:
    """The paper venue's book, if there is one: whether it can be read, and adds up."""
    # The venue and the whole graph: no other command pays for them.
    from tinywindow.exchanges.paper.verify import discrepancies  # noqa: PLC0415
    from tinywindow.runtime import PAPER_BOOK  # noqa: PLC0415

    name, book = settings.run.venue, settings.data_dir / PAPER_BOOK
    if not book.exists():
        what = f"{name} has no book yet: {book}"
        yield Finding(SUBJECT, Level.NOTE, what, "the first run makes it")
        return
    try:
        found = discrepancies(book)
    except VenueUnavailable as error:
        yield Finding(SUBJECT, Level.WRONG, f"{name}: {book}: {error}", RESTORE.format(book))
        return
    if not found:
        yield Finding(SUBJECT, Level.OK, f"{name}: its book adds up: {book}")
    for sentence in found:
        what = f"{name}: its book does not add up: {sentence}"
        yield Finding(SUBJECT, Level.WRONG, what, RESTORE.format(book))
