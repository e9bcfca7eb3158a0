"""Letters of other scripts that look like Latin ones, and the fold that sees through them.

The folded form is a shadow: it is matched against, and never shown or returned. Folding goes
character by character, so that no sequence of marks can make it slow.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

__all__ = ["fold_char"]

_LOOK_ALIKES: Final = (
    # Cyrillic small
    ("\u0430\u0441\u0435\u0456\u0458\u043e\u0440\u0455\u0445\u0443\u04bb", "aceijopsxyh"),
    (  # Cyrillic capitals
        "\u0410\u0412\u0421\u0415\u041d\u0406\u041a\u041c\u041e\u0420\u0422\u0425",
        "ABCEHIKMOPTX",
    ),
    ("\u0501\u0433\u0578\u057d\u03bd\u04cf\u0261\u0196\u217c", "drnuvlgll"),  # mixed small letters
    (  # small capitals
        "\u1d00\u0299\u1d04\u1d05\u1d07\ua730\u0262\u029c\u026a\u1d0a\u1d0b\u029f\u1d0d"
        "\u0274\u1d0f\u1d18\u01eb\u0280\ua731\u1d1b\u1d1c\u1d20\u1d21\u028f\u1d22",
        "abcdefghijklmnopqrstuvwyz",
    ),
    ("\u2236\u0589", "::"),  # colons
    (  # more Cyrillic
        "\u0405\u0408\u0474\u051a\u051c\u050c\u04ae\u0417\u043a\u043c\u0442\u0432\u043d"
        "\u0475\u051b\u051d\u0450\u0269",
        "SJVQWGYZkmtbhvqwei",
    ),
    (  # Greek capitals
        "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7",
        "ABEZHIKMNOPTYX",
    ),
    ("\u03b1\u03b5\u03b9\u03ba\u03bf\u03c1\u03c4\u03c5\u03c7", "aeikoptux"),  # Greek small
    ("\u0131\u0142\u00f8\u0111\u0127\u0167", "ilodht"),  # Latin with strokes
    (  # Lisu capitals
        "\ua4ee\ua4d0\ua4da\ua4d3\ua4f0\ua4d6\ua4e7\ua4f2\ua4d9\ua4d7\ua4e1\ua4df\ua4e0"
        "\ua4f3\ua4d1\ua4e3\ua4e2\ua4d4\ua4f4\ua4e6\ua4ea\ua4eb\ua4ec\ua4dc",
        "ABCDEGHIJKLMNOPRSTUVWXYZ",
    ),
    ("\u0585\u0570\u0581\u0565\u0575\u0566", "ohgejq"),  # Armenian small
    (  # Cherokee
        "\u13f4\u13df\u13a0\u13ac\u13bb\u13a5\u13ab\u13e6\u13de\u13b7\u13e2\u13da\u13a2"
        "\u13d9\u13b3\u13aa",
        "BCDEHiJKLMPSTVWA",
    ),
)
_LATIN_OF: Final = {
    ord(there): here
    for theirs, ours in _LOOK_ALIKES
    for there, here in zip(theirs, ours, strict=True)
}

OPENED_CHARS_MAX: Final = 4
"""What opens to more (one Arabic phrase has eighteen letters) stays closed."""
_FORMATS: Final = frozenset(("Mn", "Me", "Cf", "Cc"))


@lru_cache(maxsize=8_192)
def fold_char(char: str) -> str:
    """What a careless reader takes the character for: plain letters, or nothing for a mark.

    Compatibility forms are opened (full-width, mathematical, ligatures), marks and what cannot
    be seen are dropped, look-alikes become Latin, and every line break becomes a line feed.
    """
    if char in "\t\n":
        return char
    if char in "\u2800\u3164\uffa0":
        return " "
    if char in "\r\x0b\x0c\x85\u2028\u2029":
        return "\n"
    opened = unicodedata.normalize("NFKC", char)
    if len(opened) > OPENED_CHARS_MAX:
        return char
    opened = unicodedata.normalize("NFD", opened)
    return "".join(
        piece for piece in opened if unicodedata.category(piece) not in _FORMATS
    ).translate(_LATIN_OF)
