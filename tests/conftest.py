"""What every test stands on: hypothesis profiles, and an environment without settings of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# `./tw test` runs the short profile, `./tw soak` the long one. Deadlines are off: the machine is
# shared, and a slow example is no wrong one.
settings.register_profile(
    "short", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "soak", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("TW_TEST_PROFILE", "short"))


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the machine's settings, configuration file and data directory from every test."""
    for name in tuple(os.environ):
        if name.startswith("TINYWINDOW_"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
