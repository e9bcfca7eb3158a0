"""A log that cannot be written stops nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from tinywindow.safety import KillSwitch, KillSwitchMode
from tinywindow.safety.services.logs import get_logger


def broken(*_: object) -> dict[str, object]:
    raise OSError(28, "No space left on device")


@pytest.fixture
def _broken_log() -> object:
    before = structlog.get_config()
    structlog.configure(processors=[broken], cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("_broken_log")
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical", "exception"])
def test_no_level_raises(level: str) -> None:
    getattr(get_logger("x"), level)("event", field=1)
    with pytest.raises(OSError, match="No space"):
        getattr(structlog.get_logger("x"), level)("event", field=1)


@pytest.mark.usefixtures("_broken_log")
async def test_a_stop_goes_through_with_a_log_that_fails(tmp_path: Path) -> None:
    async with KillSwitch(None, (), tmp_path / "tinywindow.db") as switch:
        report = await switch.activate(KillSwitchMode.HALT_ONLY, "no log")

        assert report.durable
        assert await switch.is_active()
