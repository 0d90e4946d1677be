"""Fonts for what the usual one has no glyphs of: Chinese, Japanese, Korean, other scripts, symbols.

matplotlib falls back to further families of a text, glyph by glyph. They are looked up only when a figure has such a
character, and among all fonts that the machine has by then.
"""

from __future__ import annotations

import unicodedata
import warnings
from contextlib import suppress
from functools import cache

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

USUAL = "DejaVu Sans"
# Families that are taken before others that have a character, too: without serifs, and for many characters.
_PREFERRED = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans CJK TC", "Source Han Sans SC",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans",
    "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Noto Sans", "Symbola",
)  # fmt: skip
# Fonts whose glyphs are pictures in colour, or boxes that stand for characters: matplotlib would draw them as blanks.
_NO_OUTLINES = ("Color Emoji", "Last Resort", "LastResort")
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")
_NAMED = 8  # characters in the warning


class MissingGlyphWarning(UserWarning):
    """Figures have characters that no font of this machine can draw."""


def complete_fonts(drawn: Figure) -> None:
    """Gives each text of a figure the fonts that it needs; warns once of what no font of this machine has."""
    for axes in drawn.axes:  # makes the labels of ticks, which are otherwise made when the figure is drawn
        axes.get_xticklabels()
        axes.get_yticklabels()
    missing: set[str] = set()
    for text in drawn.findobj(Text):
        if isinstance(text, Text) and (lacking := _lacking_in_usual(text.get_text())):
            families, without = families_with(lacking)
            text.set_fontfamily([USUAL, *families])
            missing |= without
    for package in sorted({_package(sign) for sign in missing}):
        _warn(package, " ".join(sorted(sign for sign in missing if _package(sign) == package)[:_NAMED]))


@cache
def families_with(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Returns families that have these characters, the preferred ones first, and the characters that none has."""
    families: list[str] = []
    missing = characters
    for family in _families():
        lacking = frozenset(sign for sign in missing if not _has(family, sign))
        if len(lacking) < len(missing):
            families.append(family)
            missing = lacking
        if not missing:
            break
    return families, missing


@cache
def _families() -> list[str]:
    """Returns all other families of this machine, those installed since matplotlib made its list included."""
    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            with suppress(Exception):  # what FreeType makes of a damaged font, or of one without outlines
                manager.addfont(path)
    found = {entry.name for entry in manager.ttflist if not any(name in entry.name for name in _NO_OUTLINES)}
    preferred = [family for family in _PREFERRED if family in found]
    return [*preferred, *sorted(found.difference(preferred, [USUAL]))]


def _font(family: str) -> font_manager.FT2Font:
    properties = font_manager.FontProperties(family=[family])
    return font_manager.get_font(font_manager.findfont(properties, fallback_to_default=False))


def _has(family: str, sign: str) -> bool:
    try:
        return _font(family).get_char_index(ord(sign)) > 0
    except (ValueError, OSError, RuntimeError):  # it is not there any more, or damaged
        return False


@cache
def _usual_glyphs() -> frozenset[str]:
    return frozenset(map(chr, _font(USUAL).get_charmap()))


def _lacking_in_usual(text: str) -> frozenset[str]:
    """Returns the characters of a text that the usual font has no glyphs of, without those that have none."""
    if text.isascii():
        return frozenset()
    signs = set(text) - _usual_glyphs()
    return frozenset(sign for sign in signs if not sign.isspace() and not _only_changes_others(sign))


def _only_changes_others(sign: str) -> bool:
    """Whether a character has no shape: a joiner, or a selector of a variant."""
    return unicodedata.category(sign) == "Cf" or unicodedata.name(sign, "").startswith("VARIATION SELECTOR")


_warned: set[str] = set()  # packages


def _warn(package: str, characters: str) -> None:
    if package not in _warned:
        _warned.add(package)
        warnings.warn(
            f"no font on this machine has {characters}; figures show boxes instead. On Debian and Ubuntu, the package "
            f"{package} has a font",
            MissingGlyphWarning,
            stacklevel=2,
        )


def _package(sign: str) -> str:
    """Returns the package of Debian that has a font with a character."""
    if any(word in unicodedata.name(sign, "") for word in _CJK):
        return "fonts-noto-cjk"
    return "fonts-symbola" if unicodedata.category(sign).startswith("S") else "fonts-noto-core"
