"""Names in stores, reports, pages and tables: preserved literally, or refused in a single message."""

from __future__ import annotations

import csv
import io
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from ablations.analysis.study import StudyAnalysis
from ablations.common.errors import UsageError
from ablations.common.names import visible
from ablations.reporting.page.page import write_page
from ablations.reporting.report import make_report
from ablations.reporting.tables.export import write_tables
from ablations.storage.study import StudyStore
from ablations.tracking import destination_of
from ablations.tracking.tracker import Tracker
from tests.builders.latex import compile_tables, printed
from tests.builders.markdown import cells_of, parsed, text_of
from tests.builders.named import Names, configured, stored
from tests.builders.pages import Texts

# Special characters of mathtext, Markdown, HTML, LaTeX, URLs, SQL, Hydra, file systems and terminals; other scripts.
SIGNS = "a1 _-+=.$^\\|*`#[]()<>&\"'%{}~?!,:;/@é研ש😀\u0301\u200d"
PRINTABLE = st.text(st.characters().filter(str.isprintable), min_size=1, max_size=60)
ANY = st.one_of(st.text(SIGNS, min_size=1, max_size=60), PRINTABLE, st.text(min_size=1, max_size=60))
FOLDERS = st.text("aZ09_.+=-ü研ש", min_size=1, max_size=60)
MANY = st.builds(
    Names,
    study=st.one_of(FOLDERS, FOLDERS, FOLDERS, ANY),
    question=ANY,
    variants=st.tuples(ANY, ANY).filter(lambda pair: pair[0] != pair[1]),
    # Folder names, which are shown as read.
    classes=st.tuples(ANY, ANY).map(lambda pair: (visible(pair[0]), visible(pair[1]))),
)
WORST = Names(
    "研究.+=-é",
    "Does $x_1^2$ | **help** by 50 % [a](b) <b>&amp;</b> \\alpha ${seed} #1 `code`?",
    ("[bold]_a_[/] $x$ :x: | \\", "שלום <script>alert('1')</script> \"q\" {}, 研究 👩‍🔬"),
    ("# 1. |", "C:\\dir\\${x}"),
)


# An example takes half a second, so shrinking would take minutes.
SLOW = partial(settings, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck))


def words(text: str) -> str:
    """Returns a text with single spaces, as in LaTeX and figure captions."""
    return " ".join(text.split())


def is_plain(names: Names) -> bool:
    """Whether all names are unproblematic."""
    texts = (names.question, *names.variants)
    is_folder = re.fullmatch(r"\w[\w.+=-]*", names.study) and len(names.study.encode()) <= 200
    return bool(
        all(text.isprintable() and text == text.strip() for text in texts)
        and is_folder
        and not names.study.endswith(".")
    )


def study_of(names: Names, folder: Path) -> tuple[StudyStore, StudyAnalysis] | None:
    """Creates the study; returns None if a name is refused, in one line with its option."""
    try:
        return stored(names, configured(names, folder))
    except UsageError as error:
        message = str(error)
    assert not is_plain(names), message
    assert message.isprintable()
    assert message.startswith(("study=", "sweep.question: ", "sweep.variants: "))
    return None


@SLOW(max_examples=8)
@example(names=WORST)
@given(names=MANY)
def test_names_are_preserved_in_store_report_page_and_tables(names: Names) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = study_of(names, Path(folder))
        if found is None:
            return
        store, analysis = found
        report = make_report(analysis, ("forest",))
        tables = {path.name: path.read_text(encoding="utf-8") for path in write_tables(analysis)}
        page = Texts(write_page(report, [report.folder / "tables" / name for name in tables]))
    variants, question = list(names.variants), analysis.design.question
    asked = " ".join(names.question.split("\n")).strip()
    assert question == asked or not asked

    assert store.name == normalize("NFC", names.study)
    assert (store.attributes["question"], store.attributes["baseline"]) == (question, variants[0])
    assert [cell.variant for cell in store.cells()] == list(store.networks) == variants

    assert [page.of("title"), page.of("p", class_="study")] == [[store.name]] * 2
    assert page.of("h1") == [question]
    assert [name for name in page.of("bdi") if name in variants][:2] == [variants[1], variants[0]]  # of the contrast
    assert set(variants) <= set(page.of("th", scope="row"))
    assert ", ".join(names.classes) in page.of("td")

    heading, paragraph = [token for token in parsed(report.text) if token.type == "inline"][:2]
    assert (text_of(heading), text_of(paragraph)) == (store.name, question)
    for text in (report.text, tables["variants.md"]):
        assert [row[0] for row in cells_of(text)[1:3]] == variants
    spoken = [text_of(token) for token in parsed(report.text) if token.type == "inline" and "Data: " in token.content]
    assert any(text.endswith(f"of 2 classes: {', '.join(names.classes)}.") for text in spoken)

    latex = tables["variants.tex"]
    rows = latex.partition("\\midrule\n")[2].partition("    \\bottomrule")[0].splitlines()
    assert [printed(row.strip().removeprefix("\\raggedright ").partition(" & ")[0]) for row in rows] == [
        words(name) for name in variants
    ]
    (caption,) = re.findall(r"^  \\caption\{(.*)\}$", latex, re.MULTILINE)
    assert printed(caption).startswith(words(question))

    frame = list(csv.DictReader(io.StringIO(tables["variants.csv"], newline="")))
    assert [row["variant"] for row in frame] == variants


@pytest.mark.skipif(shutil.which("xelatex") is None, reason="xelatex is not installed")
@SLOW(max_examples=3)
@example(names=WORST)
@given(names=MANY)
def test_xelatex_compiles_tables_with_any_names(names: Names) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = study_of(names, Path(folder))
        if found is not None:
            write_tables(found[1])
            compile_tables(found[1].folder / "tables", engine="xelatex")


@SLOW(max_examples=2)
@example(names=WORST)
@given(names=MANY.filter(is_plain))
def test_names_are_preserved_in_mlflow(names: Names) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = study_of(names, Path(folder))
        assert found is not None
        store, analysis = found
        design, destination = analysis.design, destination_of(analysis.config, analysis.design.study)
        tracker = Tracker(destination, design, store.id)
        tracker.sync(store.outcomes(design), "f00d")
        tracker.end("FINISHED", note=make_report(analysis, ()).opening)
        assert tracker.lost is None
        client = MlflowClient(destination.uri)
        experiment = client.get_experiment_by_name(design.study)
        assert experiment is not None
        parent, *children = sorted(
            client.search_runs([experiment.experiment_id]), key=lambda run: "cell" in run.data.tags
        )
        assert (parent.info.run_name, parent.data.tags["question"]) == (store.name, design.question)
        assert parent.data.tags["baseline"] == names.variants[0]
        assert {run.data.params["variant"] for run in children} == set(names.variants)
        assert {run.info.run_name for run in children} == {f"{name} r0" for name in names.variants}
