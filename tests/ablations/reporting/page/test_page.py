from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import pytest
from rich.console import Console

from ablations.analysis.study import StudyAnalysis
from ablations.reporting.page.page import write_page
from ablations.reporting.publish import report_study
from ablations.reporting.report import Report, make_report
from ablations.reporting.tables.export import write_tables
from ablations.reporting.text.scope import missing_sentence
from ablations.stats import Verdict
from tests import shortcuts
from tests.builders.analyses import search_analysis, study_analysis
from tests.wording import worded

FIGURES = ("forest", "variants", "effects")
FIVE = ("sweep.factors.attention.groups=[1,2,4,8]", "sweep.margin=0.5")
VOID = {"meta", "link", "img", "br", "hr", "input"}


@dataclass
class Node:
    tag: str
    attributes: dict[str, str]
    children: list[Node] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in the node."""
        return " ".join("".join(self.pieces).split())

    def all(self, tag: str = "", kind: str = "") -> list[Node]:
        """All descendants with a tag and a class."""
        found = []
        for child in self.children:
            if tag in ("", child.tag) and (not kind or kind in child.attributes.get("class", "").split()):
                found.append(child)
            found += child.all(tag, kind)
        return found

    def by_id(self, name: str) -> Node:
        """The only element with this id."""
        (found,) = (node for node in self.all() if node.attributes.get("id") == name)
        return found


class Page(HTMLParser):
    """Parses a page, and fails if tags are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Node("", {})
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root], f"not closed: {self.open[-1].tag}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {attrs}"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for node in self.open:
            node.pieces.append(data)


def written(analysis: StudyAnalysis, figures: Sequence[str] = ()) -> tuple[Node, Report, Path]:
    report = make_report(analysis, figures)
    report.write()
    path = write_page(report, write_tables(analysis))
    return Page(path.read_text(encoding="utf-8")).root, report, path


def decided_top1(variant: int, replicate: int) -> float:
    """Top-1 of none and four variants that help, hurt, are equivalent and unstable, over twelve replicates."""
    sign = 1 if replicate % 2 else -1
    wobble = 0.01 * replicate
    shifts = (0.0, 3 + wobble, -2 - wobble, 0.02 * sign, 0.4 + (2 + wobble) * sign)
    return 60 + 0.1 * replicate + shifts[variant]


@pytest.fixture(scope="module")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Node, Report, Path]:
    folder = tmp_path_factory.mktemp("studies") / "a study"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(shortcuts.UNDRAWN)
        return written(study_analysis(folder, FIVE, 12, top1=decided_top1), FIGURES)


def test_the_page_has_its_sections_in_order(full_page: tuple[Node, Report, Path]) -> None:
    page, report, _ = full_page
    analysis = report.analysis
    assert page.all("html")[0].attributes["lang"] == "en"
    assert [heading.text for heading in page.all("h1")] == [analysis.design.question]
    assert page.all("p", "state")[0].text == worded("page.finished", cells="60 cells")
    assert [heading.text for heading in page.all("h2")] == [
        "Verdicts", "Conclusions", "Variants", "Costs", "Figures", "Files", "How to run it again",
        "Protocol, machine and data",
    ]  # fmt: skip
    assert page.by_id("again").all("pre")[0].text == "python -m ablations.run sweep=groups"
    rows = [" ".join(cell.text for cell in row.children) for row in page.by_id("protocol").all("tr")]
    for row in ("train.epochs 4", "data fingerprint f00d", "cpu Machine & Co", "training images 2,048"):
        assert row in rows
    assert "10 classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in rows


def test_every_sentence_of_the_report_is_on_the_page_once(full_page: tuple[Node, Report, Path]) -> None:
    page, report, _ = full_page
    shown = [node.text for node in page.all("p", "sentence") + page.by_id("said").all("li")]
    assert sorted(shown) == sorted(report.sentences)


def test_each_contrast_has_its_verdict_as_word_and_colour(full_page: tuple[Node, Report, Path]) -> None:
    page, report, _ = full_page
    chips = page.by_id("verdicts").all("span", "chip")
    assert [chip.text for chip in chips] == [contrast.verdict.value for contrast in report.analysis.contrasts]
    assert [chip.text for chip in chips] == ["helps", "hurts", "equivalent", "unstable"]
    assert [chip.attributes["class"] for chip in chips] == [f"chip {chip.text}" for chip in chips]
    assert (
        worded("conclusions.tally", number=4, verdicts="1 helps, 1 hurts, 1 equivalent, 1 unstable")
        in page.by_id("verdicts").text
    )
    points = [node.text for node in page.by_id("verdicts").all("p", "points")]
    assert points[1].startswith("+3.0")
    assert points[2].startswith("-2.0")


def percent(node: Node, name: str) -> float:
    return float(node.attributes[name].removesuffix("%"))


def test_intervals_have_a_common_scale_with_the_margin(full_page: tuple[Node, Report, Path]) -> None:
    page, report, _ = full_page
    drawings = [svg for svg in page.by_id("verdicts").all("svg", "interval") if "role" in svg.attributes]
    axis = page.by_id("verdicts").all("li", "axis")[0]
    assert [label.text for label in axis.all("text")][1] == "0"
    limit = float(axis.all("text")[2].text)
    assert len(drawings) == len(report.analysis.contrasts)
    for drawing, contrast in zip(drawings, report.analysis.contrasts, strict=True):
        difference = contrast.difference
        assert difference is not None
        (dot,), (bar,), (band,) = (drawing.all(kind=kind) for kind in ("dot", "bar", "band"))
        assert percent(dot, "cx") == pytest.approx(50 + 48 * difference.mean / limit, abs=0.3)
        assert percent(bar, "x1") == pytest.approx(50 + 48 * difference.low / limit, abs=0.3)
        assert percent(bar, "x2") == pytest.approx(50 + 48 * difference.high / limit, abs=0.3)
        assert percent(band, "x") == pytest.approx(50 - 48 * 0.5 / limit, abs=0.3)
        assert percent(band, "width") == pytest.approx(96 * 0.5 / limit, abs=0.3)
        assert not drawing.all(kind="more")
        assert f"{difference.mean:+.2f} points" in drawing.attributes["aria-label"]


def test_a_very_wide_interval_is_cut_off_with_arrows(tmp_path: Path) -> None:
    def top1(variant: int, replicate: int) -> float:
        return 60 + (0, 1 + 40 * replicate, 2 + replicate)[variant]

    page, _, _ = written(study_analysis(tmp_path, top1=top1))
    wild, tame = (svg for svg in page.by_id("verdicts").all("svg", "interval") if "role" in svg.attributes)
    assert len(wild.all(kind="more")) == 2
    assert (percent(wild.all(kind="bar")[0], "x1"), percent(wild.all(kind="bar")[0], "x2")) == (2, 98)
    assert not tame.all(kind="more")
    assert percent(tame.all(kind="bar")[0], "x2") - percent(tame.all(kind="bar")[0], "x1") > 10


def test_the_narrowest_interval_is_never_cut_off(tmp_path: Path) -> None:
    def top1(variant: int, replicate: int) -> float:
        return 60 + (0, 10 * replicate - 5, 40 * replicate - 20)[variant]

    page, report, _ = written(study_analysis(tmp_path, top1=top1))
    narrow, wide = (svg for svg in page.by_id("verdicts").all("svg", "interval") if "role" in svg.attributes)
    assert not narrow.all(kind="more")
    assert len(wide.all(kind="more")) == 2
    difference = report.analysis.contrasts[0].difference
    assert difference is not None
    limit = float(page.by_id("verdicts").all("li", "axis")[0].all("text")[2].text)
    assert limit == pytest.approx(1.08 * difference.high, rel=0.01)


def test_one_replicate_is_a_dot_without_a_line_or_a_verdict(tmp_path: Path) -> None:
    page, _, _ = written(study_analysis(tmp_path, replicates=1))
    verdicts = page.by_id("verdicts")
    assert not verdicts.all(kind="bar")
    assert len(verdicts.all(kind="dot")) == 2
    assert [chip.text for chip in verdicts.all("span", "chip")] == ["no verdict"] * 2
    assert [chip.attributes["class"] for chip in verdicts.all("span", "chip")] == ["chip none"] * 2
    assert "±" not in page.text


def test_the_table_of_variants_is_that_of_the_tables(full_page: tuple[Node, Report, Path]) -> None:
    page, _, path = full_page
    rows = [[cell.text for cell in row.children] for row in page.by_id("variants").all("tr")]
    lines = (path.parent / "tables" / "variants.md").read_text(encoding="utf-8").splitlines()
    printed = [line.strip("| ").split(" | ") for line in [lines[0], *lines[2:7]]]
    assert [" | ".join(row) for row in rows] == [" | ".join(row) for row in printed]


def test_figures_are_in_the_file_with_their_captions_and_links(full_page: tuple[Node, Report, Path]) -> None:
    page, report, path = full_page
    shown = page.by_id("figures").all("figure")
    assert len(shown) == len(report.gallery.drawn) == 2
    for figure, drawn in zip(shown, report.gallery.drawn, strict=True):
        (image,) = figure.all("img")
        kind, _, content = image.attributes["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content, validate=True) == drawn.png.read_bytes()
        assert image.attributes["alt"] == drawn.caption
        assert int(image.attributes["width"]) > int(image.attributes["height"]) > 100
        assert figure.all("h3")[0].text == drawn.title
        links = {link.text: link.attributes["href"] for link in figure.all("a") if link.text}
        assert list(links) == ["PNG", "PDF", "CSV"]
        assert [path.parent / unquote(link) for link in links.values()] == drawn.files
    size = sum(drawn.png.stat().st_size for drawn in report.gallery.drawn)
    assert path.stat().st_size < 1.4 * size + 60_000


def test_figures_that_were_left_out_are_listed_collapsed_with_the_reason(full_page: tuple[Node, Report, Path]) -> None:
    page, report, _ = full_page
    (folded,) = page.by_id("figures").all("details")
    assert list(report.gallery.left_out) == ["effects"]
    assert f"effects: {report.gallery.left_out['effects']}" in folded.text


def test_the_page_is_self_contained(full_page: tuple[Node, Report, Path]) -> None:
    page, _, path = full_page
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>\n")  # otherwise browsers use quirks mode
    assert not re.search(r"https?:|@import|<script|\bsrcset|url\(", text, re.IGNORECASE)
    for node in page.all():
        assert node.tag not in ("script", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in node.attributes)
        for name in ("src", "href"):
            target = node.attributes.get(name, "data:")
            if not target.startswith(("data:", "#")):
                assert node.tag == "a"
                assert (path.parent / unquote(target)).is_file(), target
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in text


def test_ids_are_unique_and_every_link_within_the_page_has_its_target(full_page: tuple[Node, Report, Path]) -> None:
    page, _, _ = full_page
    ids = [node.attributes["id"] for node in page.all() if "id" in node.attributes]
    assert len(set(ids)) == len(ids)
    links = [node.attributes["href"][1:] for node in page.all("a") if node.attributes["href"].startswith("#")]
    assert set(links) <= set(ids)
    sections = [node.attributes["id"] for node in page.all("section")]
    assert [link for link in links if link in sections] == sections


def test_images_have_alternative_texts_and_scrollable_regions_keyboard_focus(
    full_page: tuple[Node, Report, Path],
) -> None:
    page, _, _ = full_page
    assert all(image.attributes.get("alt", "").strip() for image in page.all("img"))
    for box in page.all("div", "scroll"):
        assert (box.attributes["tabindex"], box.attributes["role"]) == ("0", "region")
        assert box.attributes["aria-label"]
    assert all(page.all("table")[0].all("th")[column].attributes["scope"] == "col" for column in range(5))


def test_texts_of_a_study_are_escaped(tmp_path: Path) -> None:
    question = "Is <script>alert('x')</script> & <b>this</b> safe?"
    names = ["a<img src=x>", '"quoted" onload="1"', "</table>"]
    analysis = study_analysis(tmp_path, names=names, question=question)
    analysis.attributes["command"] = "run </code><script>1</script>"  # type: ignore[index]
    page, _, path = written(analysis)
    assert page.all("h1")[0].text == question
    assert not page.all("script")
    assert not page.all("img")
    assert [row.all("th")[0].text for row in page.by_id("variants").all("tbody")[0].all("tr")] == names
    assert "<script" not in path.read_text(encoding="utf-8")


def test_an_unfinished_study_lists_missing_cells_with_reasons(tmp_path: Path) -> None:
    failure = "Traceback\n  File\nValueError: <planted>\n"
    analysis = study_analysis(tmp_path, finished=4, failure=failure)
    page, _, _ = written(analysis)
    state = page.all("p", "state")[0]
    assert state.text == missing_sentence(analysis.results)
    assert state.text.startswith("Not finished: 2 of 6 cells")
    assert "unfinished" in state.attributes["class"].split()
    rows = [[cell.text for cell in row.children] for row in page.by_id("unfinished").all("tr")]
    assert rows == [
        ["variant", "replicate", "state", "reason"],
        ["groups=2", "1", "failed", "ValueError: <planted>"],
        ["groups=4", "1", "failed", "ValueError: <planted>"],
    ]
    assert "open" in page.by_id("unfinished").all("details")[0].attributes
    assert worded("conclusions.tally", number=2, verdicts="2 without a verdict") in page.by_id("verdicts").text


def test_many_unfinished_cells_are_collapsed(tmp_path: Path) -> None:
    page, _, _ = written(study_analysis(tmp_path, replicates=6, finished=3))
    assert "open" not in page.by_id("unfinished").all("details")[0].attributes
    assert len(page.by_id("unfinished").all("tr")) == 16


def test_a_study_with_only_failed_cells_has_a_page_with_the_reasons(tmp_path: Path) -> None:
    page, report, _ = written(study_analysis(tmp_path, finished=0, failure="ValueError: planted"), ("forest",))
    assert page.by_id("said").all("li")[0].text == report.sentences[0]
    assert page.by_id("unfinished").text.count("ValueError: planted") == 6
    assert [link.text for link in page.by_id("files").all("a")] == ["report.md"]
    assert "forest: no cell is finished" in page.by_id("figures").text
    assert not page.all("img")


def test_a_search_shows_verdicts_of_confirmed_variants_and_its_selection(tmp_path: Path) -> None:
    page, report, _ = written(search_analysis(tmp_path, given_up=1))
    assert len(page.all("span", "chip")) == 3
    assert [section.title for section in report.sections] == [
        page.by_id(f"section-{number}").all("h2")[0].text for number in (1, 2, 3)
    ]
    selection = [[cell.text for cell in row.children] for row in page.by_id("section-1").all("tr")]
    assert selection == [list(report.sections[0].headers), *report.sections[0].rows]
    assert report.sections[1].note in page.by_id("section-2").text
    assert page.all("p", "state")[0].text == worded("page.finished", cells="8 cells")


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_colours_have_enough_contrast_in_every_theme(theme: int) -> None:
    style = (files("ablations.reporting.page") / "page.html").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    assert len(themes) == 3
    colours = themes[0] | themes[theme]
    kinds = {"none": "undecided"}
    pairs = [(kind, f"{kind}-back") for kind in (kinds.get(v.name.lower(), v.name.lower()) for v in Verdict)]
    pairs += [(text, back) for text in ("text", "soft", "link") for back in ("page", "card")]
    for text, back in pairs:
        light, dark = sorted((luminance(colours[text]), luminance(colours[back])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, back)


def test_every_verdict_has_a_style() -> None:
    style = (files("ablations.reporting.page") / "page.html").read_text(encoding="utf-8")
    for verdict in Verdict:
        assert re.search(rf"^\.(\w+, \.)?{verdict.name.lower()}\b", style, re.MULTILINE)


def test_without_write_permission_only_the_page_is_missing(tmp_path: Path) -> None:
    (tmp_path / "index.html").mkdir()
    report = report_study(study_analysis(tmp_path), Console(quiet=True), ())
    assert [missing.name for missing in report.parts.missing] == ["page"]
    text = report.path.read_text(encoding="utf-8")
    assert worded("not_made.part", name="page", reason="IsADirectoryError: ") in text
    assert (tmp_path / "tables" / "variants.csv").exists()


def test_a_report_comes_with_its_tables_and_its_page(tmp_path: Path) -> None:
    console = Console(width=300, record=True, file=(tmp_path / "out").open("w"))
    report_study(study_analysis(tmp_path / "study"), console, ("forest",))
    assert f"Page:       {tmp_path / 'study' / 'index.html'}" in console.export_text()
    page = Page((tmp_path / "study" / "index.html").read_text(encoding="utf-8")).root
    links = [link.attributes["href"] for link in page.by_id("files").all("a")]
    assert links == [
        "tables/variants.csv", "tables/costs.csv", "tables/variants.md", "tables/variants.tex", "tables/numbers.tex",
        "report.md",
    ]  # fmt: skip


CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["whole", "long names"])
def test_a_browser_shows_the_page_without_horizontal_scrolling(
    full_page: tuple[Node, Report, Path], tmp_path: Path, width: int, kind: str
) -> None:
    path = full_page[2]
    if kind == "long names":
        names = ["groups=1, branches=spatial, transform=conv1x1, gate=sigmoid, shuffle=on", "x" * 90]
        path = written(study_analysis(tmp_path, FIVE, names=names, question="Why " + "w" * 80 + "?"))[2]
    # A frame can have any width, whereas a browser window has a minimum.
    probe = (
        "<script>addEventListener('load', () => { const seen = document.getElementById('page').contentDocument;"
        "const root = seen.documentElement, images = [...seen.images];"
        "document.title = [root.scrollWidth, root.clientWidth, images.every(image => image.naturalWidth > 100),"
        "images.length, seen.querySelectorAll('.scroll').length].join(' '); })</script>"
    )
    frame = f'<iframe id="page" src="index.html" width="{width}" height="800" style="border:0"></iframe>'
    outer = path.parent / f"frame-{width}.html"
    outer.write_text(f"<!DOCTYPE html><title>not loaded</title>{probe}{frame}")
    made = subprocess.run(
        [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", outer.as_uri()],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    title = re.search("<title>(.*?)</title>", made.stdout)
    assert title is not None
    scrolled, inner, loaded, images, boxes = title[1].split(" ")
    assert int(scrolled) <= int(inner)
    assert int(inner) >= width - 20  # minus a scroll bar
    assert loaded == "true"
    assert int(images) == (2 if kind == "whole" else 0)
    assert int(boxes) >= 3
