from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from ablations.analysis.study import ENDS, StudyAnalysis
from ablations.reporting.figures.registry import draw_figures
from ablations.reporting.publish import report_study
from ablations.reporting.tables.export import write_tables
from ablations.reporting.tables.latex import number_macros
from ablations.reporting.text.scope import shown_sentence
from ablations.reporting.text.verdicts import assumptions_sentence
from tests.builders.analyses import macros, search_analysis, study_analysis
from tests.builders.latex import compile_tables
from tests.wording import worded

NASTY = ("w/o GN", "norm=group:4", "a_b", "100 %", "R&D #1 $x$", "back\\slash {~^}", "[x]", "*", "a--b", "<i> | `q`")


def tables_of(analysis: StudyAnalysis) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in write_tables(analysis)}


def test_the_csv_has_plain_numbers_and_one_row_per_variant(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    write_tables(analysis)
    frame = pd.read_csv(tmp_path / "tables" / "variants.csv")
    assert frame["variant"].tolist() == ["none", "groups=2", "groups=4"]
    assert frame["attention"].tolist() == ["none", "sa", "sa"]
    assert frame["model"].unique().tolist() == ["resnet8"]
    assert frame["top1"].tolist() == [60, 61, 62]
    assert frame["difference"].tolist()[1:] == [1, 2]
    assert frame["difference"].isna().tolist() == [True, False, False]
    assert frame["parameters"].tolist() == [75000, 75100, 75200]
    assert frame["multiply_adds"].tolist() == [int(analysis.multiply_adds[name]) for name in frame["variant"]]
    assert frame["n"].tolist() == [2, 2, 2]
    assert frame["step_time_ratio"].tolist() == pytest.approx([1.0, 1.1, 1.2])
    assert (frame["step_time_ratio_low"] < frame["step_time_ratio"]).all()
    assert (frame["step_time_ratio"] < frame["step_time_ratio_high"]).all()
    assert frame["peak_memory_mib"].tolist() == [11.5, 12.5, 13.5]
    assert frame["verdict"].fillna("").tolist() == ["", "undecided", "undecided"]
    assert frame["baseline"].tolist() == ["none"] * 3
    seen = analysis.contrasts[0].difference
    assert seen is not None
    assert frame.loc[1, ["difference_low", "difference_high"]].tolist() == pytest.approx([seen.low, seen.high])
    assert frame["assumes_normal"].tolist()[1:] == [True, True]
    assert set(frame["metric"]) == {"top1"}


def test_printed_tables_have_the_numbers_of_the_study(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    tables, seen = tables_of(analysis), analysis.contrasts[0].difference
    assert seen is not None
    low, high = f"{-seen.low:.2f}", f"{seen.high:+.2f}"
    row = f"| groups=2 | 2 | 75,100 | 0.004875 | 61.0 [48.3, 73.7] | +1.00 [-{low}, {high}] | undecided † |"
    assert f"{row} 1.10 [1.10, 1.10] | 12.5 |" in tables["variants.md"]
    latex = f"groups=2 & 75,100 & 0.004875 & 61.0 [48.3, 73.7] & +1.00 [\\ensuremath{{-}}{low}, {high}]"
    assert latex in tables["variants.tex"]
    assert assumptions_sentence(analysis.contrasts) in tables["variants.md"]
    assert "\\ensuremath{}" not in tables["variants.tex"]


@pytest.mark.parametrize("name", ["variants.md", "variants.tex"])
def test_the_note_has_question_replicates_protocol_and_machine(tmp_path: Path, name: str) -> None:
    analysis = study_analysis(tmp_path)
    text = tables_of(analysis)[name]
    machine = "Machine \\& Co" if name.endswith("tex") else "Machine & Co"
    protocol = f"digits (20x20 pixels), {worded('scope.one_scenes')}, resnet8, 4 epochs"
    for part in (analysis.design.question, "(n = 2)", "margin 1 point", protocol, machine):
        assert part in text


def test_different_numbers_of_replicates_have_a_column(tmp_path: Path) -> None:
    tables = tables_of(study_analysis(tmp_path, finished=4))
    assert "Variant & n & Param." in tables["variants.tex"]
    assert "(n = 1 to 2)" in tables["variants.tex"]
    assert "Not finished: 2 of 6 cells" in tables["variants.tex"]
    assert macros(tables["numbers.tex"])["GroupsDigitsResnetEightReplicates"] == "1 to 2"


def test_the_latex_is_a_complete_table_with_equally_many_cells_per_row(tmp_path: Path) -> None:
    text = tables_of(study_analysis(tmp_path, names=NASTY[:3]))["variants.tex"]
    order = (
        r"\begin{table}", r"\caption{", r"\label{tab:", r"\begin{tabular}", r"\toprule", r"\midrule", r"\bottomrule",
        r"\end{tabular}", r"\end{table}",
    )  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert len(rows) == 4
    columns = re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", text)
    assert columns is not None
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns[1])}
    assert text.count("{") == text.count("}")


def test_long_names_are_wrapped(tmp_path: Path) -> None:
    text = tables_of(study_analysis(tmp_path, names=["a name of many words that goes on and on"]))["variants.tex"]
    assert r"\begin{tabular}{@{}p{0.26\linewidth}rrr" in text
    assert r"\raggedright a name of many words" in text


def test_one_replicate_has_no_interval_anywhere(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path, replicates=1)
    tables = tables_of(replace(analysis, attributes={**analysis.attributes, "costs": []}))
    assert worded("tables.once", n=1) in tables["variants.md"]
    assert "CI" not in "".join(macros(tables["numbers.tex"]))
    for name in ("variants.md", "variants.tex", "numbers.tex"):
        assert not re.search(r"\[[^a-z]*\d", tables[name].partition("95")[0]), name
        assert "nan" not in tables[name]
    frame = pd.read_csv(tmp_path / "tables" / "variants.csv")
    assert frame[["top1_low", "top1_high", "difference_low", "difference_high"]].isna().all(axis=None)
    assert macros(tables["numbers.tex"])["GroupsDigitsResnetEightGroupsTwoVerdict"] == "no verdict"


def test_equal_replicates_have_no_interval(tmp_path: Path) -> None:
    tables = tables_of(study_analysis(tmp_path, top1=lambda *_: 60.0))
    assert "| +0.00 (no spread) |" in tables["variants.md"]
    assert "CI" not in "".join(macros(tables["numbers.tex"]))


def test_equal_replicates_of_different_variants_have_the_interval_of_rounding(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path, top1=lambda variant, _: 60.0 + variant, replicates=3)
    seen = analysis.contrasts[0].difference
    assert seen is not None
    # With steps of one point, rounding has the standard deviation 1 / sqrt(12).
    assert 0 < seen.high - 1 == pytest.approx(1 - seen.low)


@pytest.mark.parametrize("replicates", [1, 3])
def test_plus_minus_is_never_printed(tmp_path: Path, replicates: int) -> None:
    assert not any(sign in text for text in tables_of(study_analysis(tmp_path, replicates=replicates)).values()
                   for sign in ("±", r"\pm", "+-", "textpm"))  # fmt: skip


def test_crossed_factors_have_a_table_of_effects(tmp_path: Path) -> None:
    overrides = ["sweep.factors.attention.groups=[2,4]", "sweep.factors.attention.shuffle=[true,false]"]
    tables = tables_of(study_analysis(tmp_path, overrides))
    frame = pd.read_csv(tmp_path / "tables" / "effects.csv")
    assert frame[["effect", "reference", "order", "n"]].to_numpy().tolist() == [
        ["groups=4", "groups=2", 1, 2],
        ["shuffle=off", "shuffle=on", 1, 2],
        ["groups=4 x shuffle=off", "groups=2 x shuffle=on", 2, 2],
    ]
    assert frame["points"].tolist() == [2, 1, 0]
    assert "groups=4 & groups=2 & +2.00 [" in tables["effects.tex"]
    assert set(frame["verdict"]) == {"undecided"}
    assert frame["assumes_normal"].all()
    assert "tab:groups-digits-resnet8-effects}" in tables["effects.tex"]
    assert "Main effects and interactions." in tables["effects.md"]


def test_of_very_many_effects_the_ends_are_shown_and_the_csv_has_all(tmp_path: Path) -> None:
    biases = ",".join(str(number / 16) for number in range(62))
    overrides = [f"sweep.factors={{attention: {{shuffle: [true, false], gate_bias: [{biases}]}}}}"]
    analysis = study_analysis(tmp_path, overrides, replicates=1)
    tables = tables_of(analysis)
    frame = pd.read_csv(tmp_path / "tables" / "effects.csv")
    assert len(frame) == len(analysis.effects) == 62  # without interactions, which are too many to read
    ordered = frame.sort_values("points", kind="stable")["effect"].tolist()
    shown = {effect.name for effect in analysis.shown_effects}
    assert shown == {*ordered[:ENDS], *ordered[-ENDS:]}
    assert [effect.name for effect in analysis.shown_effects] == [name for name in frame["effect"] if name in shown]
    said = worded("scope.shown_effects", effects=62, ends=ENDS)
    (figure,) = draw_figures(analysis, ["effects"]).drawn
    assert said in tables["effects.md"]
    assert said in figure.caption
    assert shown_sentence(analysis) not in figure.caption  # effects are means over all variants
    assert set(pd.read_csv(tmp_path / "figures" / "effects.csv")["name"]) == shown


def test_a_search_has_results_of_confirmed_variants_and_the_selection(tmp_path: Path) -> None:
    analysis = search_analysis(tmp_path)
    tables = tables_of(analysis)
    results = pd.read_csv(tmp_path / "tables" / "variants.csv", keep_default_na=False)
    best = ["groups=4, gate=tanh1", "groups=4, gate=sigmoid", "groups=2, gate=tanh1"]
    assert results["variant"].tolist() == ["none", *best]
    assert results["n"].tolist() == [2] * 4
    assert set(results["verdict"]) == {"", "undecided"}
    selection = pd.read_csv(tmp_path / "tables" / "selection.csv", keep_default_na=False)
    assert len(selection) == 7
    assert selection.set_index("variant")["rank"].loc[best].tolist() == [1, 2, 3]
    assert "| groups=4, gate=tanh1 | pick 1 | 62.5 |" in tables["selection.md"]
    assert "| none | named | 59.5 |" in tables["selection.md"]
    assert "groups=1, gate=tanh1" not in tables["selection.md"]
    assert worded("tables.on_validation", share=20) in tables["selection.md"]


def test_a_search_with_several_objectives_shows_the_front_of_its_picks(tmp_path: Path) -> None:
    tables = tables_of(search_analysis(tmp_path, "sweep.objectives=[top1,parameters]", "sweep.confirm=2"))
    assert "| groups=4, gate=tanh1 | pick 1 | A |" in tables["selection.md"]
    assert "| groups=1, gate=sigmoid | pick 2 |" in tables["selection.md"]  # the fewest parameters
    assert "| groups=2, gate=sigmoid | no |" in tables["selection.md"]


def test_unmeasured_costs_are_a_dash_and_have_no_macro(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    analysis = replace(analysis, attributes={**analysis.attributes, "costs": []})
    tables = tables_of(analysis)
    assert "| undecided † | – | – |" in tables["variants.md"]
    assert "costs.csv" not in tables
    assert "A dash: not measured." in tables["variants.md"]
    assert "\\textendash{}" in tables["variants.tex"]
    assert "StepTime" not in tables["numbers.tex"]


def test_without_a_finished_cell_there_are_no_tables(tmp_path: Path) -> None:
    assert write_tables(study_analysis(tmp_path, finished=0, failure="ValueError: planted")) == []


def test_without_write_permission_only_the_tables_are_missing(tmp_path: Path) -> None:
    names = {path.name for path in write_tables(study_analysis(tmp_path / "whole"))}
    (tmp_path / "tables").write_text("")
    report = report_study(study_analysis(tmp_path), Console(quiet=True), ())
    assert {missing.name for missing in report.parts.missing} == {f"table {name}" for name in names}
    assert (tmp_path / "index.html").exists()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("chosen", [NASTY[:3], NASTY[3:6], NASTY[6:9], NASTY[9:]])
def test_latex_compiles_the_written_tables(tmp_path: Path, chosen: Sequence[str]) -> None:
    analysis = study_analysis(tmp_path, names=chosen, question="Does 100 % of \\R&D_1 #{help} ~ ^?")
    write_tables(analysis)
    name = next(iter(macros(number_macros(analysis))))
    assert "Overfull" not in compile_tables(tmp_path / "tables", f"n = \\{name}, $\\{name}$.")
