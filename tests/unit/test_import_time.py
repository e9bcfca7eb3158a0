"""What the front door costs whoever only imports it."""

from __future__ import annotations

import resource
import subprocess
import sys

IMPORT_S_MAX = 0.15


def processor_s(program: str) -> float:
    """How much processor time a Python process takes that runs a program, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_importing_the_safety_layer_takes_150_ms_at_most() -> None:
    """Beyond a bare start of Python, each the best of five in the same run."""
    bare = min(processor_s("pass") for _ in range(5))
    loaded = min(processor_s("import tinywindow.safety") for _ in range(5))
    print(f"import tinywindow.safety: {(loaded - bare) * 1000:.0f} ms beyond {bare * 1000:.0f} ms")
    assert loaded - bare <= IMPORT_S_MAX
