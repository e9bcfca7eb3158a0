"""The door through which untrusted text enters a prompt.

`sanitize` makes the structure safe completely: nothing hidden, no envelope closed, no turn
forged, bounded in size and time. `inspect` recognises some instructions and misses others; it is
a signal. What keeps an instruction from doing harm is neither, but that every order passes the
gate.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from tinywindow.safety.domain.prompts import (
    FieldKind,
    Inspection,
    inline_envelope,
    inspected,
    is_boundary,
    json_envelope,
    sanitized,
)
from tinywindow.safety.errors import ConfigurationError

__all__ = ["PromptSanitizer"]

CHARS_MAX_DEFAULT: Final = 20_000
CHARS_MAX_CEILING: Final = 1_000_000
BOUNDARY_BYTES: Final = 16
BOUNDARY_TRIES_MAX: Final = 4


def _secret_token() -> str:
    """Sixteen random bytes in hexadecimal: nobody guesses them."""
    return secrets.token_hex(BOUNDARY_BYTES)


class PromptSanitizer:
    """Makes untrusted text safe to place in a prompt, and says what looks like an instruction.

    Args:
        max_chars: the cap in characters, on what is read and on what is returned.
        token: where boundaries of inline envelopes come from; the default cannot be guessed.
            Give another only in tests.

    Raises:
        ConfigurationError: when `max_chars` is not a whole number from 1 to 1,000,000.
    """

    def __init__(
        self,
        *,
        max_chars: int = CHARS_MAX_DEFAULT,
        token: Callable[[], str] | None = None,
    ) -> None:
        if type(max_chars) is not int or not 1 <= max_chars <= CHARS_MAX_CEILING:
            raise ConfigurationError(
                f"max_chars must be a whole number from 1 to {CHARS_MAX_CEILING}"
            )
        self._max_chars = max_chars
        self._token = _secret_token if token is None else token

    def sanitize(self, text: object, kind: FieldKind | str = FieldKind.BODY) -> str:
        """Return text that cannot act in a prompt; any input, never an exception for it.

        Hidden characters go, tags, template tokens and role turns are escaped, every word stays.
        Sanitizing the result again changes nothing.

        Args:
            text: anything; bytes are read as UTF-8, nothing is the empty text.
            kind: `headline`, `body`, `token_name` or `note`: sets the cap and the one-line form.
        """
        return sanitized(text, kind=FieldKind(kind), chars_max=self._max_chars)

    def inspect(self, text: object) -> Inspection:
        """Say how much in `text` looks like an instruction to a model; true where flagged.

        A signal, to be logged and to lower the text's weight; the text is never changed by it.
        """
        return inspected(text, chars_max=self._max_chars)

    def wrap(
        self,
        text: object,
        source: object,
        inline: bool = False,  # noqa: FBT001, FBT002 - the interface says so
        kind: FieldKind | str = FieldKind.BODY,
    ) -> str:
        """Return sanitized text in an envelope that says where it came from.

        The default is a JSON object with `source`, `trust` and `text`, meant for a `tool_result`
        block. With `inline` it stands between two marks with a boundary nobody can guess.

        Raises:
            ConfigurationError: when the source of boundaries gives none that can be used.
        """
        body = self.sanitize(text, kind)
        origin = sanitized(source, kind=FieldKind.HEADLINE, chars_max=self._max_chars)
        if not inline:
            return json_envelope(body, origin)
        for _ in range(BOUNDARY_TRIES_MAX):
            boundary = self._token()
            if is_boundary(boundary, body, origin):
                return inline_envelope(body, origin, boundary)
        raise ConfigurationError(
            "token gave no usable boundary: 16 to 64 letters, digits, '-' or '_', not in the text"
        )
