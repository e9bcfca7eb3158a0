"""The SQLite store against the store in memory, over any history of orders, stops and restarts.

Two stores are open on one file and take turns; what either sees and answers is what the model
sees and answers.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pytest
import store_model as made
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_model import BTC, ETH, HOUR_MS, LIMITS, PERP, START_MS, SYMBOLS, Asked

from tinywindow.safety.domain.admission import Admitted, admit
from tinywindow.safety.domain.audit import verify_rows
from tinywindow.safety.domain.book import DecisionIds, DecisionView, Draft
from tinywindow.safety.domain.breaker_documents import NAV, RESET_MARK, ResetMark, nav_point
from tinywindow.safety.domain.kill import KillSwitchMode
from tinywindow.safety.domain.order import Side
from tinywindow.safety.domain.records import CloseRecord, Lease, ReferencePrice, TradingState
from tinywindow.safety.domain.windows import Outcome
from tinywindow.safety.errors import InvariantBroken
from tinywindow.safety.ports import Store, Tx
from tinywindow.safety.services import settlement
from tinywindow.safety.services.settlement import FillReport
from tinywindow.safety.stores.memory import MemoryDatabase, MemoryStore
from tinywindow.safety.stores.migrate import upgrade_sqlite
from tinywindow.safety.stores.sqlite import SqliteStore

SOAK = os.environ.get("TW_TEST_PROFILE") == "soak"
# Every commit waits for the disk; a file in memory keeps the same promises for less.
MEMORY = Path("/dev/shm")

WRITERS = st.sampled_from(["first", "second"])
NOBODY = 5
FEW = st.integers(0, NOBODY)
AMOUNTS = st.sampled_from([D("0.5"), D(1), D("2.25"), D(4)])
ORDERS = st.builds(
    Asked,
    name=st.just("new") | st.just("new") | FEW.map("again-{}".format),
    symbol=st.sampled_from([PERP, BTC, ETH]),
    side=st.sampled_from([Side.BUY, Side.BUY, Side.BUY, Side.SELL]),
    amount=AMOUNTS,
    price=st.none() | st.sampled_from([D(96), D(100), D("104.5"), D(120)]),
    decision=st.none() | st.just("new") | FEW.map("d{}".format),
    reduce_only=st.sampled_from([False] * 7 + [True]),
    with_intent=st.booleans(),
    measured=st.booleans(),
)
# Each order with the share of it that is filled at once, if any.
SESSIONS = st.lists(
    st.tuples(ORDERS, st.sampled_from([None, D("0.5"), D(1)])), min_size=2, max_size=4
)
# So few that names come again after they were released or cleared.
STOPS = st.integers(0, 2)


class Failing(Exception):
    """What a script raises on purpose."""


class StoreMachine(RuleBasedStateMachine):
    """Rules do the same to the file and to the model; the invariants compare them."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        where = MEMORY if MEMORY.is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="tinywindow-", dir=where))
        self.file = self.folder / "world.db"
        shutil.copyfile(self.template, self.file)
        self.runner = asyncio.Runner()
        self.database = MemoryDatabase()
        self.model = MemoryStore(self.database)
        self.stores = {name: self.opened() for name in ("first", "second")}
        self.now_ms = START_MS
        self.serial = 0
        # What the rules have done, to hold the stores to it.
        self.ordered: list[str] = []
        self.ended: set[str] = set()
        self.released: set[str] = set()
        self.sums_may_be_over = False

    def opened(self) -> SqliteStore:
        return self.runner.run(SqliteStore.open(self.file, inline=True))

    def teardown(self) -> None:
        for store in self.stores.values():
            self.runner.run(store.close())
        left = sorted(path.name for path in self.folder.iterdir())
        self.runner.close()
        shutil.rmtree(self.folder)
        assert left == ["world.db", "world.db.ticket"]

    # How a rule does the same twice.

    def answer(self, call: Callable[[Store], Any], store: Store) -> tuple[object, ...]:
        """What a store answers, or the kind of error that it raises."""
        try:
            return ("answered", self.runner.run(call(store)))
        except (Failing, InvariantBroken, KeyError) as error:
            return ("raised", type(error))

    def both(self, writer: str, call: Callable[[Store], Any]) -> Any:
        """The answer of the model, once the file has given the same."""
        expected = self.answer(call, self.model)
        assert self.answer(call, self.stores[writer]) == expected
        return expected[1]

    def transact(self, writer: str, script: Callable[[Tx], object], *, stop: bool = False) -> Any:
        """Run a script on both; each must be shown the same book first."""

        def whole(tx: Tx) -> tuple[object, object]:
            shown = made.seen(tx.book(), self.now_ms)
            return shown, script(tx)

        answer = self.both(writer, lambda store: store.transact(whole, stop=stop))
        return answer[1] if isinstance(answer, tuple) else answer

    def new(self, kind: str) -> str:
        self.serial += 1
        return f"{kind}-{self.serial}"

    def row(self) -> Any:
        return made.row(self.new("row"), self.now_ms)

    def known(self, number: int) -> str:
        """One of the orders so far, or an id that nobody knows."""
        if not self.ordered or number == NOBODY:
            return "nobody"
        return self.ordered[-1 - number % len(self.ordered)]

    # Orders, and what becomes of them.

    @initialize(orders=SESSIONS)
    def begin(self, orders: list[tuple[Asked, D | None]]) -> None:
        def script(tx: Tx) -> None:
            for symbol in SYMBOLS:
                tx.put_price(ReferencePrice(symbol, D(100), self.now_ms))
            tx.put_document(NAV, made.nav_text(1, self.now_ms, 10_000))

        self.transact("first", script)
        self.trade("first", orders)

    @rule(writer=WRITERS, orders=SESSIONS)
    def session(self, writer: str, orders: list[tuple[Asked, D | None]]) -> None:
        """Orders while nothing stops them: with many rules about stops something mostly does."""
        self.all_clear(writer)
        self.trade(writer, orders)

    def trade(self, writer: str, orders: list[tuple[Asked, D | None]]) -> None:
        for asked, share in orders:
            before = len(self.ordered)
            self.order(writer, asked)
            if share is not None and len(self.ordered) > before:
                self.fill(writer, 0, share, D(99), False)

    @rule(writer=WRITERS, asked=ORDERS)
    def order(self, writer: str, asked: Asked) -> None:
        if asked.name == "new":
            asked = replace(asked, name=self.new("order"))
        if asked.decision == "new":
            asked = replace(asked, decision=self.new("decision"))
        ids = (self.new("row"), self.new("trip"), self.new("row"))
        ask = made.request(asked, self.now_ms, ids)

        def propose(view: DecisionView) -> Draft[tuple[object, object]]:
            draft = admit(ask, view)
            shown = made.seen(view.book, self.now_ms), view.existing, view.decision_spent
            return replace(draft, result=(draft.result, shown))  # type: ignore[arg-type]

        identity = DecisionIds(asked.name, asked.decision)
        answer, _ = self.both(writer, lambda store: store.decide(identity, propose))
        if isinstance(answer, Admitted) and asked.name not in self.ordered:
            self.ordered.append(asked.name)

    @precondition(lambda self: self.database.book.positions)
    @rule(
        writer=WRITERS,
        number=FEW,
        share=st.sampled_from([D("0.5"), D(1), D("1.5")]),
        asked=ORDERS,
    )
    def against(self, writer: str, number: int, share: D, asked: Asked) -> None:
        """An order against a position: a reduction, unless it would go beyond zero."""
        positions = sorted(self.database.book.positions.values(), key=lambda one: one.key)
        position = positions[number % len(positions)]
        side = Side.SELL if position.amount > 0 else Side.BUY
        amount = abs(position.amount) * share
        self.order(
            writer,
            replace(asked, symbol=position.key.symbol, side=side, amount=amount, price=None),
        )

    @precondition(lambda self: self.ordered)
    @rule(
        writer=WRITERS,
        number=FEW,
        share=st.sampled_from([D(0), D("0.25"), D("0.5"), D(1), D("1.5")]),
        price=st.sampled_from([D(99), D("100.25")]),
        final=st.booleans(),
    )
    def fill(self, writer: str, number: int, share: D, price: D, final: bool) -> None:
        """Cumulative: a share below the last one is an old report, above one a fill too many."""
        name = self.known(number)
        hold = self.database.tables.holds.rows.get(name)
        report = FillReport(
            name, hold.amount * share if hold else D(0), price, D("0.1"), final, self.now_ms
        )
        if hold is not None and (not hold.state.open or share > 1):
            # It is booked all the same: the position is real.
            self.sums_may_be_over = True
        row = self.row()
        self.transact(writer, lambda tx: settlement.book_fill(tx, report, row))

    @rule(writer=WRITERS, number=FEW)
    def release(self, writer: str, number: int) -> None:
        name, row = self.known(number), self.row()
        self.transact(writer, lambda tx: settlement.release(tx, name, row))

    @rule(writer=WRITERS, wait_ms=st.sampled_from([0, 30_000, 61_000]))
    def lapse(self, writer: str, wait_ms: int) -> None:
        self.now_ms += wait_ms
        ttl_ms = LIMITS.reservation_ttl_ms
        rows = {
            hold.client_order_id: self.row()
            for hold in settlement.lapsing(self.database.book, self.now_ms, ttl_ms)
        }
        self.transact(
            writer, lambda tx: settlement.lapse(tx, rows, now_ms=self.now_ms, ttl_ms=ttl_ms)
        )

    @rule(writer=WRITERS, symbol=st.sampled_from(SYMBOLS), amount=AMOUNTS | st.just(D(0)))
    def position(self, writer: str, symbol: str, amount: D) -> None:
        self.sums_may_be_over = True
        self.transact(writer, lambda tx: tx.put_position(made.found(symbol, amount, self.now_ms)))

    @rule(
        writer=WRITERS,
        symbol=st.sampled_from(SYMBOLS),
        price=st.sampled_from([D(100), D(100), D("99.5"), D(130), D(0)]),
    )
    def price(self, writer: str, symbol: str, price: D) -> None:
        known = self.database.book.prices[symbol].price
        self.sums_may_be_over |= price > known
        self.transact(writer, lambda tx: tx.put_price(ReferencePrice(symbol, price, self.now_ms)))

    # Stops, and what takes them back.

    @rule(writer=WRITERS, name=STOPS, mode=st.sampled_from(KillSwitchMode))
    def latch(self, writer: str, name: int, mode: KillSwitchMode) -> None:
        """A name that was released stays released."""
        latch = made.latch(f"latch-{name}", self.now_ms, mode)
        added = self.transact(writer, lambda tx: tx.add_latch(latch), stop=True)
        assert not (added and latch.id in self.released)

    @rule(writer=WRITERS, name=STOPS)
    def release_latch(self, writer: str, name: int) -> None:
        latch_id = f"latch-{name}"
        done = self.transact(
            writer,
            lambda tx: tx.release_latch(latch_id, at_ms=self.now_ms, by="bob", reason="clear"),
        )
        if done:
            self.released.add(latch_id)

    @rule(writer=WRITERS, name=STOPS)
    def trip(self, writer: str, name: int) -> None:
        """A trip's name is used once; the second time is an error, not another trip."""
        self.transact(writer, lambda tx: tx.add_trip(made.trip(f"trip-{name}", self.now_ms)))

    @rule(writer=WRITERS, name=STOPS, standing=st.booleans())
    def clear_trip(self, writer: str, name: int, standing: bool) -> None:
        def script(tx: Tx) -> bool:
            trip = tx.standing_trip()
            trip_id = trip.id if trip is not None and standing else f"trip-{name}"
            return tx.clear_trip(trip_id, at_ms=self.now_ms, by="bob")

        self.transact(writer, script)

    @rule(writer=WRITERS, state=st.sampled_from([*TradingState, TradingState.RUNNING]))
    def trading(self, writer: str, state: TradingState) -> None:
        self.transact(writer, lambda tx: tx.set_trading(state))

    @rule(writer=WRITERS)
    def all_clear(self, writer: str) -> None:
        """An operator's whole way back, so that orders get through again."""

        def script(tx: Tx) -> tuple[str, ...]:
            standing = tuple(latch.id for latch in tx.standing_latches())
            for latch_id in standing:
                tx.release_latch(latch_id, at_ms=self.now_ms, by="bob", reason="clear")
            trip = tx.standing_trip()
            if trip is not None:
                tx.clear_trip(trip.id, at_ms=self.now_ms, by="bob")
            mark = ResetMark(tx.book().executions.last_id, nav_point(tx.book().documents))
            tx.put_document(RESET_MARK, mark.to_text())
            tx.set_trading(TradingState.RUNNING)
            return standing

        self.released.update(self.transact(writer, script))

    # What the breaker measures.

    @rule(writer=WRITERS, equity=st.sampled_from([10_000, 9_900, 8_000]), thin=st.booleans())
    def mark(self, writer: str, equity: int, thin: bool) -> None:
        def script(tx: Tx) -> tuple[int, int]:
            mark_id = tx.add_mark(made.mark(self.now_ms, equity))
            tx.put_document(NAV, made.nav_text(mark_id, self.now_ms, 10_000, equity))
            dropped = 0
            if thin:
                dropped = tx.thin_marks(
                    before_ms=self.now_ms, keep_every_ms=50_000, keep_ids=[mark_id]
                )
            return mark_id, dropped

        self.transact(writer, script)

    @rule(
        writer=WRITERS,
        name=FEW | st.none(),
        kind=st.sampled_from(["order", "order", "cancel", "decision"]),
        outcome=st.sampled_from([*Outcome, Outcome.FAILED]),
        ago_ms=st.sampled_from([0, 1_000, HOUR_MS]),
        wait_ms=st.sampled_from([0, 0, 20 * HOUR_MS]),
    )
    def attempt(
        self, writer: str, name: int | None, kind: str, outcome: Outcome, ago_ms: int, wait_ms: int
    ) -> None:
        """Of an order: one attempt, revised. Some hours later, so that streaks span days."""
        self.now_ms += wait_ms
        order = None if name is None else self.known(name)
        at_ms = self.now_ms - ago_ms
        self.transact(
            writer,
            lambda tx: made.attempt(tx, order, kind, outcome, at_ms=at_ms, now_ms=self.now_ms),
        )

    # Rows, and what is beside the book.

    @rule(writer=WRITERS, name=FEW, follows=st.booleans())
    def audit(self, writer: str, name: int, follows: bool) -> None:
        """A row at once or by the outbox; a name that stands already is an error or nothing."""
        row = made.row(f"named-{name}", self.now_ms)
        self.transact(writer, lambda tx: tx.outbox(row) if follows else tx.audit(row))

    @rule(writer=WRITERS)
    def drain(self, writer: str) -> None:
        self.transact(writer, lambda tx: tx.drain_outbox())

    @rule(writer=WRITERS, key=st.sampled_from(["limits", "other"]), text=FEW.map(str))
    def document(self, writer: str, key: str, text: str) -> None:
        def script(tx: Tx) -> tuple[str | None, str | None]:
            before = tx.document(key)
            tx.put_document(key, text)
            return before, tx.document(key)

        self.transact(writer, script)

    @rule(writer=WRITERS, fence=FEW)
    def closing(self, writer: str, fence: int) -> None:
        def script(tx: Tx) -> None:
            tx.put_lease(Lease("flattener", writer, fence, self.now_ms))
            tx.put_close_record(CloseRecord(f"venue-{fence}", writer, "{}", self.now_ms))

        self.transact(writer, script)

    # Failures and restarts.

    @rule(writer=WRITERS, after=st.integers(0, 9), number=FEW)
    def fail(self, writer: str, after: int, number: int) -> None:
        """A script that raises, however far it came: nothing of it is there."""
        name, row = self.known(number), self.row()

        def script(tx: Tx) -> None:
            hold = tx.hold(name)
            writes: tuple[Callable[[], object], ...] = (
                lambda: tx.add_latch(made.latch("never", 1, KillSwitchMode.HALT_ONLY)),
                lambda: tx.add_trip(made.trip("never", 1)),
                lambda: tx.put_price(ReferencePrice(BTC, D(7), 1)),
                lambda: tx.put_position(made.found(BTC, D(77), 1)),
                lambda: hold and settlement.release(tx, name, row),
                lambda: tx.put_document("limits", "never"),
                lambda: made.attempt(tx, name, "order", Outcome.FAILED, at_ms=1, now_ms=1),
                lambda: tx.add_mark(made.mark(1, 1)),
                lambda: tx.audit(made.row("never", 1)),
                tx.drain_outbox,
            )
            for write in writes[: after + 1]:
                write()
            raise Failing

        assert self.transact(writer, script) is Failing

    @rule(writer=WRITERS, above=st.sampled_from(["symbol_micros", "exposure_micros"]), asked=ORDERS)
    def break_a_cap(self, writer: str, above: str, asked: Asked) -> None:
        """A draft beyond its caps is refused by the store itself, whoever drafted it."""
        asked = replace(asked, name="never", decision=None, with_intent=False, measured=False)
        ask = made.request(asked, self.now_ms, ("never", "never-trip", "never-2"))

        def propose(view: DecisionView) -> Draft[Any]:
            draft = admit(ask, view)
            if not draft.entry:
                raise Failing
            return replace(draft, **{above: 10**12})

        answer = self.both(writer, lambda store: store.decide(DecisionIds("never"), propose))
        assert answer in {Failing, InvariantBroken}

    @rule(which=st.sampled_from(["first", "second", "both"]))
    def reopen(self, which: str) -> None:
        names = tuple(self.stores) if which == "both" else (which,)
        for name in names:
            self.runner.run(self.stores[name].close())
        if which == "both":
            assert sorted(path.name for path in self.folder.iterdir()) == [
                "world.db",
                "world.db.ticket",
            ]
        for name in names:
            self.stores[name] = self.opened()

    @rule(reader=WRITERS)
    def look(self, reader: str) -> None:
        """The second's reader has not looked for a while, and catches up over many versions."""
        self.compare(reader)

    # What holds after every step.

    def compare(self, name: str) -> tuple[Any, ...]:
        """Compare one store with the model in all that a reader sees, and give it."""

        def script(tx: Tx) -> tuple[object, ...]:
            orders = [(tx.hold(one), tx.execution(one)) for one in self.ordered]
            book = made.seen(tx.book(), self.now_ms)
            return book, made.beside_the_book(tx), orders, made.chain(tx)

        store = self.stores[name]
        shown: tuple[Any, ...] = self.runner.run(store.read(script))
        assert shown == self.runner.run(self.model.read(script))
        assert store.peek(lambda book: book is not None and book.head) == self.database.book.head
        return shown

    @invariant()
    def file_and_model_are_equal_and_ends_are_final(self) -> None:
        _, beside, orders, rows = self.compare("first")
        head = beside["head"]
        assert verify_rows(rows) == (head.audit_seq, head.audit_hash, ())
        ended = {hold.client_order_id for hold, _ in orders if not hold.state.open}
        assert self.ended <= ended
        self.ended = ended
        assert self.released.isdisjoint(latch.id for latch in beside["latches"])

    @invariant()
    def the_model_is_what_its_tables_say(self) -> None:
        made_anew = made.seen(self.database.rebuilt(), self.now_ms)
        assert made.seen(self.database.book, self.now_ms) == made_anew

    @invariant()
    def sums_are_within_the_caps(self) -> None:
        """Unless a price rose, or a position moved by what no open order could have brought."""
        worst = made.worst_at_reference(self.database.book)
        within = sum(worst.values()) <= LIMITS.max_total_exposure and all(
            value <= LIMITS.max_position_size for value in worst.values()
        )
        assert within or self.sums_may_be_over
        # Once they are within again, only the next such move takes them out.
        self.sums_may_be_over = not within


@pytest.mark.timeout(0 if SOAK else 120)
def test_the_file_does_what_the_model_does(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path_factory.mktemp("template") / "world.db"
    upgrade_sqlite(template)
    monkeypatch.setattr(StoreMachine, "template", template, raising=False)
    profile = settings(max_examples=2_000 if SOAK else 40, stateful_step_count=60 if SOAK else 30)
    run_state_machine_as_test(StoreMachine, settings=profile)
