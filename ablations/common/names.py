"""Names and sentences that people give: which characters they may have, and how those of a file system are shown.

A name reaches terminals, tables, figures, HTML, Markdown, LaTeX and databases. Each of these escapes what has a meaning
there; what none of them can show faithfully is refused: control characters, and characters that are invisible or change
the order of those around them (Boucher and Anderson 2021, "Trojan Source").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from ablations.common.errors import UsageError, shown

LONGEST_NAME = 200  # characters; with the replicate it fits into MLflow's 250
# Soft hyphen, zero-width space, byte order mark, marks and overrides of direction, and others without a shape. The
# joiners U+200C and U+200D are part of how words and emoji are written.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
_REFUSED = ("Cc", "Cs", "Zl", "Zp")  # control characters, surrogates, line and paragraph separators

# What MLflow refuses as an alias of a model.
_NO_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)
_LONGEST_PLAIN = 50  # letters, of up to four bytes each, as names of files have 255


def check_name(option: str, name: str) -> None:
    """Checks the name of something that is shown and stored; raises UsageError, as `check_sentence` does."""
    if name != name.strip():
        raise UsageError(option, None, f"the name {name!a} must not begin or end with a space")
    if len(name) > LONGEST_NAME:
        raise UsageError(option, None, f"the name {shown(name[:20])}... is longer than {LONGEST_NAME} characters")
    _check_characters(option, f"the name {name!a} has", name)


def check_sentence(option: str, text: str) -> None:
    """Checks a text that is shown and stored; raises UsageError if a character of it has no place in any text."""
    _check_characters(option, "has", text)


def _check_characters(option: str, clause: str, text: str) -> None:
    for sign in text:
        if _is_refused(sign):
            named = unicodedata.name(sign, "a control character").lower()
            reason = f"{clause} U+{ord(sign):04X} ({named}), which cannot be displayed; remove it"
            raise UsageError(option, None, reason)


def visible(text: str) -> str:
    r"""Returns a text in which every character can be seen: `\x1b`, `\u202e` stand for what cannot.

    For names that nobody can be asked to change here, such as those of folders.
    """
    return "".join(sign.encode("unicode_escape").decode() if _is_refused(sign) else sign for sign in text)


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Returns for each name one of letters, digits, '_' and '-', for files and for aliases: `groups-4` for `groups=4`.

    Names that become equal get a number.
    """
    plain: dict[str, str] = {}
    for name in names:
        start = re.sub(r"[^\w-]+", "-", name).strip("-")[:_LONGEST_PLAIN] or "variant"
        start = f"variant-{start}" if _NO_ALIAS.fullmatch(start) else start
        taken, chosen, number = set(plain.values()) - {plain.get(name)}, start, 1
        while chosen in taken:
            number += 1
            chosen = f"{start}-{number}"
        plain[name] = chosen
    return plain


def _is_refused(sign: str) -> bool:
    return unicodedata.category(sign) in _REFUSED or bool(_INVISIBLE.match(sign))
