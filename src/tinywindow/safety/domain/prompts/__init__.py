"""Untrusted text on its way into a prompt: pure, total, bounded, and deterministic."""

from tinywindow.safety.domain.prompts.envelope import (
    inline_envelope,
    is_boundary,
    json_envelope,
)
from tinywindow.safety.domain.prompts.finding import Finding
from tinywindow.safety.domain.prompts.inspection import (
    FLAGGED_SCORE_MIN,
    Inspection,
    inspected,
)
from tinywindow.safety.domain.prompts.kinds import FieldKind
from tinywindow.safety.domain.prompts.sanitizing import UNNAMED_TOKEN, sanitized
from tinywindow.safety.domain.prompts.signal import FindingKind

__all__ = [
    "FLAGGED_SCORE_MIN",
    "UNNAMED_TOKEN",
    "FieldKind",
    "Finding",
    "FindingKind",
    "Inspection",
    "inline_envelope",
    "inspected",
    "is_boundary",
    "json_envelope",
    "sanitized",
]
