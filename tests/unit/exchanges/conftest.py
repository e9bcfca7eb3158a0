"""Fixtures of the venues' tests."""

from __future__ import annotations

from collections.abc import Iterator

import paper_desk
import pytest


@pytest.fixture(autouse=True)
def every_book_is_closed() -> Iterator[None]:
    """Close what a test opened; an open database is a warning, and a warning is an error."""
    yield
    paper_desk.close_all()
