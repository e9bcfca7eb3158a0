"""A release that was refused because the database was slow: it is not carried out behind that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from kill_worlds import QUICK, view_of

from tinywindow.safety import KillSwitch, ReleaseRefused
from tinywindow.safety.errors import StoreUnavailable
from tinywindow.safety.ports import Store


@pytest.fixture
async def switch(tmp_path: Path) -> AsyncIterator[KillSwitch]:
    async with KillSwitch(None, None, tmp_path / "t.db", config=QUICK) as made:
        await made.activate(reason="a reason")
        yield made


class Slow:
    """Holds up the next write, before its turn or after its commit, until it is let go."""

    def __init__(self, switch: KillSwitch, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        context = switch._register.store.handle.glance()
        assert context is not None
        self.go_on = asyncio.Event()
        self.done = asyncio.Event()
        store: Store = context.store
        transact = store.transact

        async def slowly(script: Callable[..., Any], *, stop: bool = False) -> Any:
            monkeypatch.setattr(store, "transact", transact)
            try:
                if after:
                    result = await transact(script, stop=stop)
                    await self.go_on.wait()
                    return result
                await self.go_on.wait()
                return await transact(script, stop=stop)
            finally:
                self.done.set()

        monkeypatch.setattr(store, "transact", slowly)
        monkeypatch.setattr(switch._register.store, "timeout_s", 0.1)

    async def end(self) -> None:
        self.go_on.set()
        await self.done.wait()


async def test_a_release_that_was_given_up_is_not_carried_out_later(
    switch: KillSwitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = (await view_of(switch)).standing
    slow = Slow(switch, monkeypatch, after=False)
    with pytest.raises(ReleaseRefused, match="did not answer"):
        await switch.deactivate(reason="x", actor="ann", force=True)
    await slow.end()
    assert (await view_of(switch)).standing == (before,)
    assert await switch.is_active()


async def test_a_release_that_was_committed_and_refused_leaves_a_stop(
    switch: KillSwitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was told that the release failed finds a stop, whatever became of it."""
    slow = Slow(switch, monkeypatch, after=True)
    with pytest.raises(ReleaseRefused, match="did not answer"):
        await switch.deactivate(reason="x", actor="ann", force=True)
    await slow.end()
    (latch,) = (await view_of(switch)).standing
    assert "could not be completed" in latch.reason
    assert await switch.is_active()


async def test_a_release_that_is_known_to_have_failed_adds_no_stop(
    switch: KillSwitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = (await view_of(switch)).standing
    context = switch._register.store.handle.glance()
    assert context is not None
    transact = context.store.transact

    async def breaks(script: Callable[..., Any], *, stop: bool = False) -> Any:
        def broken(tx: Any) -> None:
            script(tx)
            raise StoreUnavailable("the disk is full")

        return await transact(broken, stop=stop)

    with monkeypatch.context() as broken:
        broken.setattr(context.store, "transact", breaks)
        with pytest.raises(ReleaseRefused, match="the disk is full"):
            await switch.deactivate(reason="x", actor="ann", force=True)
    assert (await view_of(switch)).standing == (before,)
