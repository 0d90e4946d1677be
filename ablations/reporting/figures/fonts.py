"""Fallback fonts for characters without a glyph in the default font: Chinese, Japanese, Korean, other scripts, symbols.

matplotlib falls back to further families of a text, glyph by glyph. They are looked up only if a figure has such a
character, among all fonts installed at that time.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from contextlib import suppress
from functools import cache, cached_property

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

USUAL = "DejaVu Sans"
# Preferred families: sans-serif fonts with many characters.
_PREFERRED = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans CJK TC", "Source Han Sans SC",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans",
    "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans", "Symbola",
)  # fmt: skip
# Colour emoji and placeholder fonts, which matplotlib draws as blanks, and fonts for formulas.
_UNSUITABLE = re.compile("Color Emoji|Last ?Resort|^cm[a-z]+10$|^STIX(Size|NonUnicode)")
_UPRIGHT = (400, "normal", "normal")  # weight, style, stretch
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")
_NAMED = 8  # characters in the warning


class MissingGlyphWarning(UserWarning):
    """Figures have characters that no installed font has."""


class Fallback:
    """The installed fallback fonts, looked up on first use."""

    def __init__(self) -> None:
        self._known: dict[frozenset[str], tuple[list[str], frozenset[str]]] = {}
        self._warned: set[str] = set()  # packages

    def complete(self, drawn: Figure) -> None:
        """Sets the fonts that each text of a figure needs; warns once of characters that no font has."""
        for axes in drawn.axes:  # creates the tick labels, which otherwise do not exist before drawing
            axes.get_xticklabels()
            axes.get_yticklabels()
        missing: set[str] = set()
        for text in drawn.findobj(Text):
            if isinstance(text, Text) and (lacking := _lacking_in_usual(text.get_text())):
                families, without = self.families_with(lacking)
                text.set_fontfamily([USUAL, *families])
                missing |= without
        for package in sorted({_package(sign) for sign in missing} - self._warned):
            self._warned.add(package)
            characters = " ".join(sorted(sign for sign in missing if _package(sign) == package)[:_NAMED])
            reason = f"no font on this machine has {characters}; figures show boxes instead"
            advice = f"On Debian and Ubuntu, the package {package} has a font"
            # No line of code is the cause.
            warnings.warn_explicit(f"{reason}. {advice}", MissingGlyphWarning, "figures", 1)

    def families_with(self, characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
        """Returns families with these characters, preferred ones first, and the characters that none has."""
        if characters not in self._known:
            families: list[str] = []
            missing = characters
            for family, file in self._files.items():
                lacking = frozenset(sign for sign in missing if not _has(file, sign))
                if len(lacking) < len(missing):
                    families.append(family)
                    missing = lacking
                if not missing:
                    break
            self._known[characters] = families, missing
        return self._known[characters]

    @cached_property
    def _files(self) -> dict[str, str]:
        """The file of every other family, preferred ones first, including fonts installed since the start."""
        manager = font_manager.fontManager
        known = {entry.fname for entry in manager.ttflist}
        for path in font_manager.findSystemFonts():
            if path not in known:
                with suppress(Exception):  # a damaged font, or one without outlines
                    manager.addfont(path)
        upright = (entry for entry in manager.ttflist if (entry.weight, entry.style, entry.stretch) == _UPRIGHT)
        files = {entry.name: entry.fname for entry in upright if not _UNSUITABLE.search(entry.name)}
        order = [*(family for family in _PREFERRED if family in files), *sorted(files)]
        return {family: files[family] for family in order if family != USUAL}


FALLBACK = Fallback()


def _has(file: str, sign: str) -> bool:
    try:
        return font_manager.get_font(file).get_char_index(ord(sign)) > 0
    except (OSError, RuntimeError):  # removed or damaged
        return False


@cache
def _usual_glyphs() -> frozenset[str]:
    path = font_manager.findfont(font_manager.FontProperties(family=[USUAL]))  # included in matplotlib
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))


def _lacking_in_usual(text: str) -> frozenset[str]:
    """Returns the characters of a text that the default font lacks, except those without a glyph."""
    if text.isascii():
        return frozenset()
    signs = set(text) - _usual_glyphs()
    return frozenset(sign for sign in signs if not sign.isspace() and not _only_changes_others(sign))


def _only_changes_others(sign: str) -> bool:
    """Whether a character has no glyph: a joiner or a variation selector."""
    return unicodedata.category(sign) == "Cf" or unicodedata.name(sign, "").startswith("VARIATION SELECTOR")


def _package(sign: str) -> str:
    """Returns the Debian package of a font with a character."""
    if any(word in unicodedata.name(sign, "") for word in _CJK):
        return "fonts-noto-cjk"
    return "fonts-symbola" if unicodedata.category(sign).startswith("S") else "fonts-noto-core"
