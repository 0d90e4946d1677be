"""User-given names and sentences: valid characters, and conversion to file names and aliases.

A name appears in terminals, tables, figures, HTML, Markdown, LaTeX and databases. Each of them escapes its own special
characters. Characters that none of them can display faithfully are refused: control characters, invisible characters,
and those that reorder the text around them (Boucher and Anderson 2021, "Trojan Source").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from ablations.common.errors import UsageError, shown

LONGEST_NAME = 200  # characters; together with the replicate it fits into MLflow's limit of 250
# Soft hyphen, zero-width space, byte order mark, marks and overrides of direction, and other invisible characters. The
# joiners U+200C and U+200D are allowed: words and emoji are written with them.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
_REFUSED = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, line and paragraph separators

# Reserved by MLflow: not valid as an alias of a model.
_NO_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)
_LONGEST_PLAIN = 50  # letters of up to four bytes each; file names are limited to 255 bytes


def check_name(option: str, name: str) -> None:
    """Raises UsageError if a name has an invalid character, is too long, or begins or ends with a space."""
    if name != name.strip():
        raise UsageError(option, None, f"the name {name!a} must not begin or end with a space")
    if len(name) > LONGEST_NAME:
        raise UsageError(option, None, f"the name {shown(name[:20])}... is longer than {LONGEST_NAME} characters")
    _check_characters(option, f"the name {name!a} has", name)


def check_sentence(option: str, text: str) -> None:
    """Raises UsageError if a text has a character that cannot be displayed."""
    _check_characters(option, "has", text)


def _check_characters(option: str, clause: str, text: str) -> None:
    for sign in text:
        if _is_refused(sign):
            named = unicodedata.name(sign, "a control character").lower()
            reason = f"{clause} U+{ord(sign):04X} ({named}), which cannot be displayed; remove it"
            raise UsageError(option, None, reason)


def visible(text: str) -> str:
    r"""Returns a text with escapes such as `\x1b` and `\u202e` in place of characters that cannot be displayed.

    For names that the suite cannot refuse, such as those of folders.
    """
    return "".join(sign.encode("unicode_escape").decode() if _is_refused(sign) else sign for sign in text)


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Maps each name to one of letters, digits, '_' and '-', for files and aliases: `groups-4` for `groups=4`.

    Names that would become equal are numbered.
    """
    plain: dict[str, str] = {}
    for name in names:
        start = re.sub(r"[^\w-]+", "-", name).strip("-")[:_LONGEST_PLAIN] or "variant"
        start = f"variant-{start}" if _NO_ALIAS.fullmatch(start) else start
        used, chosen, number = set(plain.values()) - {plain.get(name)}, start, 1
        while chosen in used:
            number += 1
            chosen = f"{start}-{number}"
        plain[name] = chosen
    return plain


def _is_refused(sign: str) -> bool:
    return unicodedata.category(sign) in _REFUSED or bool(_INVISIBLE.match(sign))
