"""Text in figures: shown literally, with an installed font that has its characters, if any."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from ablations.reporting.figures import fonts, style
from tests.wording import worded

SIGNS = "研究分组"  # characters of the test font
RARE = "\U0002b740"  # a character that hardly any font has


def make_font(path: Path, family: str, signs: str) -> None:
    """Writes a font whose glyphs are black squares."""
    pen = TTGlyphPen(None)
    for number, point in enumerate([(50, 0), (50, 800), (950, 800), (950, 0)]):
        (pen.lineTo if number else pen.moveTo)(point)
    pen.closePath()
    square, names = pen.glyph(), [".notdef", *(f"u{ord(sign):X}" for sign in signs)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(sign): f"u{ord(sign):X}" for sign in signs})
    font.setupGlyf(dict.fromkeys(names, square))
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 50)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200, usWeightClass=400)
    font.setupPost()
    font.save(path)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Resets the font lookup, and removes fonts that a test has added."""
    monkeypatch.setattr(fonts, "FALLBACK", fonts.Fallback())
    before = list(font_manager.fontManager.ttflist)
    yield
    font_manager.fontManager.ttflist[:] = before


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Installs a font after matplotlib has listed the fonts; returns its family."""
    make_font(tmp_path / "squares.ttf", "Squares", SIGNS)
    known = font_manager.findSystemFonts()
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [*known, str(tmp_path / "squares.ttf")])
    return "Squares"


def labelled(names: Sequence[str], caption: str = "A caption.") -> Figure:
    with style.figure(4.0, 2.0, caption) as drawn:
        axes = drawn.subplots()
        for place, name in enumerate(style.row_labels(names)):
            axes.plot([1.0], [place], "o", label=name)
        style.name_rows(axes, style.row_labels(names))
        drawn.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return drawn


def families_of(drawn: Figure, text: str) -> list[list[str]]:
    texts = [found for found in drawn.findobj(Text) if isinstance(found, Text)]
    return [found.get_fontfamily() for found in texts if found.get_text() == text]


def saved(drawn: Figure, path: Path) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return style.save(drawn, pd.DataFrame({"x": [1]}), path)[0].read_bytes()


def test_a_character_is_drawn_with_a_font_that_has_it(installed: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = labelled(["研究", "plain"])
    # Beside the axis, on either side, and in the legend.
    assert families_of(drawn, "研究") == [[fonts.USUAL, installed]] * 3
    assert families_of(drawn, "plain") == [[fonts.USUAL]] * 3
    with_glyphs = saved(drawn, tmp_path / "with")
    # All glyphs of the test font are squares.
    assert saved(labelled(["究研", "plain"]), tmp_path / "other") == with_glyphs
    assert (tmp_path / "with.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.usefixtures("installed")
def test_missing_characters_cause_one_warning_with_a_package_that_has_them(tmp_path: Path) -> None:
    expected = worded("figures.no_font", characters=RARE, package="fonts-noto-cjk")
    with pytest.warns(fonts.MissingGlyphWarning, match=f"^{expected}") as said:
        drawn = labelled([f"研{RARE}", "b"], f"{RARE} in a caption.")
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labelled([f"{RARE}a"])
    saved(drawn, tmp_path / "boxes")  # without a warning for each glyph


def test_fonts_are_not_looked_up_if_the_default_one_has_all_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: pytest.fail("looked for"))
    labelled(["größe λ", "نص عربي", "a‍b", "→ × – †"])


def test_dollars_and_underscores_are_drawn_literally(tmp_path: Path) -> None:
    names = ["$x_1^2$", "_hidden", "a $ b $ c", "\\frac{1}{2}$\\", "50 %"]
    drawn = labelled(names, "Does $E=mc^2$ hold?")
    shown = [text.get_text().strip("\u2060") for legend in drawn.legends for text in legend.get_texts()]
    assert shown == names
    saved(drawn, tmp_path / "x")
    assert not any(text.get_parse_math() for text in drawn.findobj(Text) if isinstance(text, Text))


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("分组数量如何影响精度", 8, ["分组数量", "如何影响", "精度"]),
        ("分组数量。如何", 8, ["分组数", "量。如何"]),  # no line starts with a full stop
        ("SA 分组 groups", 8, ["SA 分组", "groups"]),
        ("one two", 3, ["one", "two"]),
        ("unbroken", 3, ["unbroken"]),
        ("", 3, [""]),
    ],
)
def test_lines_are_wrapped_at_their_width(text: str, width: int, lines: list[str]) -> None:
    assert style.fold(text, width) == lines


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("abcdef", 4, "abc…"), ("abcd", 4, "abcd"), ("分组数量", 5, "分组…"), ("a分组", 5, "a分组")],
)
def test_text_is_truncated_at_its_width(text: str, width: int, shown: str) -> None:
    assert style.shorten(text, width) == shown
