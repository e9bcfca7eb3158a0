"""The override and the password question in some other languages.

A handful of stems for each; whoever writes in another tongue or another way is not found. These
are matched on the text as it is, since folding look-alikes would spoil Cyrillic and Greek.
"""
# ruff: noqa: RUF001 - the letters are meant.

from __future__ import annotations

from typing import Final

from tinywindow.safety.domain.prompts.signal import FindingKind, Signal, signal

__all__ = ["FOREIGN"]

FOREIGN: Final[tuple[Signal, ...]] = (
    signal(
        FindingKind.OVERRIDE,
        60,
        # Spanish, French, German, Italian, Portuguese, Dutch, Polish, Turkish
        r"\b(?:ignor(?:a|ad|en|ez|er|iere|ieren|i|ate)|olvid\w{1,4}|oubli\w{1,4}|vergiss"
        r"|vergessen\s+sie|missacht\w{1,4}|dimentic\w{1,4}|desconsider\w{1,4}|esque[cç]\w{1,4}"
        r"|negeer|zignoruj|yoksay)\b[^.\n]{0,40}?\b(?:instrucc?\w{2,9}|istruzion\w|instruç\w{2,5}"
        r"|anweisung\w{0,2}|regeln|consignes?|reglas|regras|regole|instrukcj\w{1,3}|talimat\w{0,5})",
        # Russian
        r"(?:игнориру\w{0,4}|игнорировать|забудь\w{0,2}|не\s+обращай\w{0,2})[^.\n]{0,40}?"
        r"(?:инструкц|указани|правил)\w{0,3}",
        # Chinese
        r"(?:忽略|无视|無視|忘记|忘記|不要理会)[^。\n]{0,20}?(?:指令|指示|提示|说明|規則|规则|命令|设定)",
        # Japanese
        r"(?:指示|命令|指令|ルール|プロンプト)[^。\n]{0,12}?(?:無視|忘れ)",
        # Korean
        r"(?:지시|명령|규칙|프롬프트)[^.\n]{0,12}?(?:무시|잊)",
        # Hindi
        r"(?:निर्देश|नियम)[^।\n]{0,20}?(?:अनदेख|भूल|उपेक्षा)",
        # Arabic
        r"(?:تجاهل|انس)[^.\n]{0,30}?(?:تعليمات|الأوامر|القواعد)",
    ),
    signal(
        FindingKind.LEAK,
        50,
        # The word for password, and a question
        r"(?:contrase[nñ]a|mot\s+de\s+passe|passwort|senha|пароль|密码|密碼|パスワード|비밀번호"
        r"|पासवर्ड)[^.\n?]{0,20}?[?？か]",
        # A question, and the word for password
        r"\b(?:cu[aá]l|quel|wie|was|qual)\s[^.\n?]{0,30}?"
        r"(?:contrase[nñ]a|mot\s+de\s+passe|passwort|senha|password)\b",
        r"как(?:ой|ая)[^.\n?]{0,20}?пароль",
    ),
)
