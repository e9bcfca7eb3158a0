"""Audit rows: one canonical text, one link, and no change that goes unseen."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal as D
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinywindow.safety.domain.audit import (
    GENESIS_HASH,
    AuditDraft,
    AuditRow,
    EventType,
    canonical_json,
    link,
    seal,
    utc_text,
    verify_rows,
)

START = datetime(2024, 8, 5, 1, 2, 3, 4, tzinfo=UTC)
DRAFT = AuditDraft(
    id="row-1",
    time=START,
    event_type=EventType.ORDER_APPROVED,
    actor="gate",
    data={"b": D("1.50"), "a": "x\ny", "at": START, "none": None},
    agent_id="agent",
    order_id="order",
    decision_id="decision",
)


def appended(rows: Sequence[AuditRow], draft: AuditDraft) -> AuditRow:
    """The row that a store appends."""
    sealed = seal(draft)
    seq, prev = (rows[-1].seq, rows[-1].hash) if rows else (0, GENESIS_HASH)
    return AuditRow(
        seq + 1,
        sealed.id,
        sealed.time,
        sealed.event_type,
        sealed.actor,
        sealed.agent_id,
        sealed.order_id,
        sealed.decision_id,
        sealed.data,
        prev,
        link(prev, seq + 1, sealed.body),
    )


def chain(length: int) -> list[AuditRow]:
    rows: list[AuditRow] = []
    kinds = list(EventType)
    for n in range(length):
        draft = AuditDraft(
            id=f"row-{n}",
            time=START + timedelta(milliseconds=n),
            event_type=kinds[n % len(kinds)],
            actor=f"actor-{n % 3}",
            data={"n": n, "amount": D(n) / 8},
            agent_id=f"agent-{n}" if n % 2 else None,
            order_id=f"order-{n}" if n % 3 else None,
            decision_id=f"decision-{n}" if n % 5 else None,
        )
        rows.append(appended(rows, draft))
    return rows


ROWS = chain(40)
ANCHOR = (ROWS[-1].seq, ROWS[-1].hash)
"""The head, as it is kept outside the database."""


def detected(rows: Sequence[AuditRow]) -> bool:
    """Whether the walk or the anchored head tells that the chain is not what was written."""
    seq, head, faults = verify_rows(rows)
    return bool(faults) or (seq, head) != ANCHOR


def rewritten(rows: Sequence[AuditRow], start: int) -> list[AuditRow]:
    """Every row from `start` on numbered, linked and hashed anew: what a thorough forger does."""
    made = list(rows[:start])
    for row in rows[start:]:
        seq, prev = (made[-1].seq, made[-1].hash) if made else (0, GENESIS_HASH)
        moved = replace(row, seq=seq + 1, prev_hash=prev)
        made.append(replace(moved, hash=link(prev, seq + 1, moved.body())))
    return made


def with_row(n: int, row: AuditRow) -> list[AuditRow]:
    return [*ROWS[:n], row, *ROWS[n + 1 :]]


def flips(value: object) -> Iterator[object]:
    """Other values of a field, most of them one character away."""
    if isinstance(value, int):
        yield from (value + 1, value - 1, -value, 0, value + 1_000)
    elif value is None:
        yield from ("", "null", "None")
    elif isinstance(value, str):
        yield from (None, "", value + " ", value + "\n", value[1:], value.swapcase() + "x")
        for place in range(len(value)):
            other = "0" if value[place] != "0" else "1"
            yield value[:place] + other + value[place + 1 :]


def field_mutations() -> Iterator[list[AuditRow]]:
    for n, row in enumerate(ROWS):
        for field in fields(AuditRow):
            known = getattr(row, field.name)
            for value in flips(known):
                if value != known:
                    changed = replace(row, **{field.name: value})  # type: ignore[arg-type]
                    yield with_row(n, changed)


def row_mutations() -> Iterator[list[AuditRow]]:
    for n, row in enumerate(ROWS):
        yield [*ROWS[:n], *ROWS[n + 1 :]]  # deleted
        yield ROWS[:n]  # truncated
        yield ROWS[n + 1 :]  # the beginning cut off
        yield [*ROWS[: n + 1], *ROWS[n:]]  # twice
        yield [*ROWS[:n], replace(row, id="forged"), *ROWS[n:]]  # inserted
        for other in range(n + 1, len(ROWS)):
            swapped = list(ROWS)
            swapped[n], swapped[other] = swapped[other], swapped[n]
            yield swapped


def forgeries() -> Iterator[list[AuditRow]]:
    """Changes after which the whole tail is linked anew, so that the walk alone finds nothing."""
    texts = [field.name for field in fields(AuditRow)[1:9]]
    for n, row in enumerate(ROWS):
        for name in texts:
            for value in ("forged", "", getattr(ROWS[n - 1], name)):
                if value != getattr(row, name):
                    yield rewritten(with_row(n, replace(row, **{name: value})), n)
        yield rewritten([*ROWS[:n], *ROWS[n + 1 :]], n)
        yield rewritten([*ROWS[:n], replace(row, id="forged"), *ROWS[n:]], n)
        if n:
            yield rewritten([*ROWS[: n - 1], row, ROWS[n - 1], *ROWS[n + 1 :]], n - 1)


def test_every_one_of_ten_thousand_mutations_is_found_with_the_anchored_head() -> None:
    counts = dict.fromkeys(("field", "row", "rewrite"), 0)
    for kind, mutations in (
        ("field", field_mutations()),
        ("row", row_mutations()),
        ("rewrite", forgeries()),
    ):
        for rows in mutations:
            assert detected(rows), (kind, counts[kind])
            counts[kind] += 1

    assert sum(counts.values()) >= 10_000
    assert counts["row"] >= 900
    assert counts["rewrite"] >= 900


def test_a_rewritten_tail_is_found_by_the_anchor_alone() -> None:
    forged = rewritten(with_row(30, replace(ROWS[30], actor="nobody")), 30)

    assert verify_rows(forged)[2] == ()
    assert detected(forged)
    assert not detected(rewritten(ROWS, 0))


def test_several_mutations_at_once_are_found_too() -> None:
    chance = random.Random(7)
    for _ in range(300):
        rows = list(ROWS)
        for _ in range(chance.randint(1, 4)):
            chance.choice([rows.pop, partial(chance.shuffle, rows), rows.reverse])()
        assert rows == ROWS or detected(rows)


def test_an_untouched_chain_has_no_fault_and_ends_at_its_head() -> None:
    assert verify_rows(ROWS) == (*ANCHOR, ())
    assert verify_rows([]) == (0, GENESIS_HASH, ())


@pytest.mark.parametrize("cut", [0, 1, 20, 40])
def test_a_chain_may_be_walked_in_parts(cut: int) -> None:
    seq, head, faults = verify_rows(ROWS[:cut])
    assert not faults

    assert verify_rows(ROWS[cut:], after_seq=seq, after_hash=head) == (*ANCHOR, ())


def test_each_fault_names_its_row_and_what_is_wrong() -> None:
    _, _, gap = verify_rows([*ROWS[:2], *ROWS[3:]])
    assert [(one.seq, one.message) for one in gap] == [
        (4, "the sequence jumps from 2 to 4"),
        (4, "the link to the row before is broken"),
    ]
    _, _, changed = verify_rows(with_row(4, replace(ROWS[4], actor="nobody")))
    assert [(one.seq, one.message) for one in changed] == [
        (5, "the content is not what was hashed")
    ]
    _, _, cut = verify_rows(ROWS, after_seq=0, after_hash="1" * 64)
    assert [one.seq for one in cut] == [1]


def test_a_link_is_sha256_of_the_previous_hash_the_sequence_and_the_body() -> None:
    text = f"{GENESIS_HASH}\n1\nbody"

    assert link(GENESIS_HASH, 1, "body") == hashlib.sha256(text.encode()).hexdigest()
    assert link(GENESIS_HASH, 1, "body") != link(GENESIS_HASH, 2, "body")


def test_the_text_that_is_stored_is_the_text_that_was_hashed() -> None:
    sealed, row = seal(DRAFT), appended([], DRAFT)

    assert row.body() == sealed.body
    assert row.data == '{"a":"x\\ny","at":"2024-08-05T01:02:03.000004Z","b":"1.5","none":null}'
    assert row.time == "2024-08-05T01:02:03.000004Z"
    assert json.loads(sealed.body) == [
        "row-1", row.time, "ORDER_APPROVED", "gate", "agent", "order", "decision", row.data,
    ]  # fmt: skip


def test_fields_cannot_be_moved_into_one_another() -> None:
    one = replace(DRAFT, actor='gate","agent', agent_id=None)
    assert len({seal(DRAFT).body, seal(one).body, seal(replace(DRAFT, agent_id=None)).body}) == 3
    assert seal(replace(DRAFT, agent_id="null")).body != seal(replace(DRAFT, agent_id=None)).body


def test_canonical_text_is_sorted_ascii_and_without_blanks() -> None:
    assert canonical_json({"b": 1, "a": [D("2.0"), "é\n"]}) == '{"a":["2","\\u00e9\\n"],"b":1}'
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), 1j])
def test_what_has_no_canonical_text_is_an_error(value: object) -> None:
    with pytest.raises(TypeError, match="has no canonical form"):
        canonical_json({"x": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_float_that_is_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)


def test_a_time_is_utc_with_microseconds_whatever_its_zone() -> None:
    there = datetime(2024, 8, 5, 3, 2, 3, 4, tzinfo=timezone(timedelta(hours=2)))

    assert utc_text(there) == utc_text(START) == "2024-08-05T01:02:03.000004Z"


@pytest.mark.parametrize(
    "name",
    [
        "CIRCUIT_BREAKER_TRIP",
        "CIRCUIT_BREAKER_RESET",
        "KILL_SWITCH_ACTIVATE",
        "KILL_SWITCH_DEACTIVATE",
        "ORDER_REJECTED_LIMITS",
        "ORDER_VALIDATION_FAILED",
    ],
)
def test_the_requirements_event_types_are_there_byte_for_byte(name: str) -> None:
    assert EventType(name).value == name


plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.decimals(allow_nan=False,
    allow_infinity=False, places=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(), plain_data, max_size=4), st.text(), st.none() | st.text())
def test_whatever_is_written_verifies_and_is_one_line(
    data: dict[str, object], actor: str, agent: str | None
) -> None:
    row = appended(ROWS, replace(DRAFT, data=data, actor=actor, agent_id=agent))

    assert verify_rows([*ROWS, row])[2] == ()
    assert "\n" not in row.data
    assert row.data.isascii()
    assert row.body().isascii()
