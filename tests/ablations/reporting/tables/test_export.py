from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from ablations.analysis.results import collect
from ablations.analysis.study import Findings
from ablations.common.errors import UsageError
from ablations.common.metrics import CELL_METRICS, EPOCH_METRICS
from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.reporting.tables.export import latex_text, macro_word, macro_words, numbers, write_tables
from ablations.storage.study import StoredCell

GROUPS = ("sweep.factors.attention.groups=[2,4]",)
NASTY = ("w/o GN", "norm=group:4", "a_b", "100 %", "R&D #1 $x$", "back\\slash {~^}", "[x]", "*", "a--b", "<i> | `q`")


def spread_top1(variant: int, replicate: int) -> float:
    """An accuracy that differs between variants and replicates, and whose differences do too."""
    return 60 + variant + (0.5 if replicate % 2 else -0.5) * (1 + variant)


def study_findings(
    folder: Path,
    overrides: Sequence[str] = GROUPS,
    replicates: int = 2,
    finished: int | None = None,
    top1: Callable[[int, int], float] = spread_top1,
    names: Sequence[str] = (),
    failure: str | None = None,
    **changes: Any,
) -> Findings:
    """A study with fabricated cells, the first `finished` of them with a result, the others failed or waiting.

    `names` are other names of its variants, `changes` are those of its design.
    """
    config = compose_config(["device=cpu", f"replicates={replicates}", *overrides])
    design = make_design(config)
    renamed = dict(zip((variant.name for variant in design.variants), names, strict=False))
    variants = tuple(replace(variant, name=renamed.get(variant.name, variant.name)) for variant in design.variants)
    baseline = renamed.get(design.baseline, design.baseline)
    design = replace(design, variants=variants, baseline=baseline, **changes)
    order = [variant.name for variant in design.variants]
    cells = []
    for number, cell in enumerate(design.cells()):
        index = order.index(cell.variant.name)
        result: dict[str, Any] = dict.fromkeys(CELL_METRICS, 1.0 + index)
        result |= {"top1": top1(index, cell.replicate), "parameters": 75000 + 100 * index, "attention_by": "kernels"}
        result |= {"train_time_ratio": 1 + 0.1 * index + 0.01 * cell.replicate, "peak_memory_mib": 11.5 + index}
        result["epochs"] = [{"epoch": 0, **dict.fromkeys(EPOCH_METRICS, 1.0)}]
        is_done = finished is None or number < finished
        left = TrialState.FAIL if failure else TrialState.WAITING
        cells.append(
            StoredCell(
                cell.key,
                cell.variant.name,
                cell.variant.network,
                cell.variant.levels,
                cell.replicate,
                TrialState.COMPLETE if is_done else left,
                number,
                {"result": result, "environment": {"cpu": "Machine & Co", "gpu": "none"}} if is_done else None,
                None if is_done else failure,
            )
        )
    attributes = {
        "command": "python -m ablations.run sweep=groups",
        "data_fingerprint": "f00d",
        "data": {"classes": [str(digit) for digit in range(10)], "train": 2048, "test": 1000},
    }
    return Findings(config, design, collect(design, cells), attributes, folder)


def tables_of(findings: Findings) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in write_tables(findings)}


def macros(text: str) -> dict[str, str]:
    pairs = re.findall(r"^\\newcommand\{\\([^}]*)\}\{(.*)\}$", text, re.MULTILINE)
    assert len(pairs) == text.count("newcommand")
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def printed(latex: str) -> str:
    """What LaTeX prints of a text that has no formulas; raises where it would not print it."""
    named = {
        "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">",
        "textbar": "|", "textasciigrave": "`", "char34": '"', "texttimes": "×", "textendash": "–",
    }  # fmt: skip
    shown, at, depth, last = "", 0, 0, ""
    while at < len(latex):
        token = latex[at]
        if command := re.match(r"\\([a-z]+[0-9]*)\{\}", latex[at:]):
            shown, token = shown + named[command[1]], command[0]
        elif escaped := re.match(r"\\([{}#$%&_])", latex[at:]):
            shown, token = shown + escaped[1], escaped[0]
        elif token in "{}":
            depth += 1 if token == "{" else -1
            assert depth >= 0
        else:
            assert token not in "\\#$%&_~^", token
            assert not (token == last and token in "-',`"), "a ligature"
            assert not (token == " " and last == " ")
            shown += token
        last, at = token, at + len(token)
    assert depth == 0
    return shown


def test_the_csv_has_numbers_as_numbers_and_one_row_a_variant(tmp_path: Path) -> None:
    findings = study_findings(tmp_path)
    write_tables(findings)
    frame = pd.read_csv(tmp_path / "tables" / "variants.csv")
    assert frame["variant"].tolist() == ["none", "groups=2", "groups=4"]
    assert frame["attention"].tolist() == ["none", "sa", "sa"]
    assert frame["model"].unique().tolist() == ["resnet8"]
    assert frame["top1"].tolist() == [60, 61, 62]
    assert frame["difference"].tolist()[1:] == [1, 2]
    assert frame["difference"].isna().tolist() == [True, False, False]
    assert frame["parameters"].tolist() == [75000, 75100, 75200]
    assert frame["multiply_adds"].tolist() == [int(findings.multiply_adds[name]) for name in frame["variant"]]
    assert frame["n"].tolist() == [2, 2, 2]
    assert frame["step_time_ratio"].tolist() == [1.005, 1.105, 1.205]
    assert frame["step_time_ratio_low"].tolist() == [1.0, 1.1, 1.2]
    assert frame["step_time_ratio_high"].tolist() == [1.01, 1.11, 1.21]
    assert frame["peak_memory_mib"].tolist() == [11.5, 12.5, 13.5]
    assert frame["verdict"].fillna("").tolist() == ["", "undecided", "undecided"]
    assert frame["baseline"].tolist() == ["none"] * 3
    half = 12.7062 * 0.5  # of Student's t with one degree of freedom: 0.975 quantile times the error of +-0.5
    assert frame["difference_low"].iloc[1] == pytest.approx(1 - half, abs=1e-3)
    assert frame["difference_high"].iloc[1] == pytest.approx(1 + half, abs=1e-3)


def test_what_is_printed_is_what_the_study_has(tmp_path: Path) -> None:
    tables = tables_of(study_findings(tmp_path))
    row = "| groups=2 | 2 | 75,100 | 0.01248 | 61.0 [48.3, 73.7] | +1.00 [-5.35, +7.35] | undecided |"
    assert f"{row} 1.10 (1.10 to 1.11) | 12.5 |" in tables["variants.md"]
    assert (
        "groups=2 & 75,100 & 0.01248 & 61.0 [48.3, 73.7] & +1.00 [\\ensuremath{-}5.35, +7.35]"
        in (tables["variants.tex"])
    )
    assert "\\ensuremath{}" not in tables["variants.tex"]


@pytest.mark.parametrize("name", ["variants.md", "variants.tex"])
def test_the_note_says_question_replicates_protocol_and_machine(tmp_path: Path, name: str) -> None:
    findings = study_findings(tmp_path)
    text = tables_of(findings)[name]
    machine = "Machine \\& Co" if name.endswith("tex") else "Machine & Co"
    for part in (findings.design.question, "(n = 2)", "margin of 0.2 points", "digits, resnet8, 6 epochs", machine):
        assert part in text


def test_variants_of_which_not_all_have_as_many_replicates_have_them_in_a_column(tmp_path: Path) -> None:
    tables = tables_of(study_findings(tmp_path, finished=4))
    assert "Variant & n & Param." in tables["variants.tex"]
    assert "(n = 1 to 2)" in tables["variants.tex"]
    assert "Not finished: 2 of 6 cells" in tables["variants.tex"]
    assert macros(tables["numbers.tex"])["GroupsDigitsResnetEightReplicates"] == "1 to 2"


def test_the_latex_is_a_complete_table_with_as_many_cells_in_each_row(tmp_path: Path) -> None:
    text = tables_of(study_findings(tmp_path, names=NASTY[:3]))["variants.tex"]
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


def test_long_names_are_folded(tmp_path: Path) -> None:
    text = tables_of(study_findings(tmp_path, names=["a name of many words that goes on and on"]))["variants.tex"]
    assert r"\begin{tabular}{@{}p{0.26\linewidth}rrr" in text
    assert r"\raggedright a name of many words" in text


def test_one_replicate_has_no_interval_anywhere(tmp_path: Path) -> None:
    tables = tables_of(study_findings(tmp_path, replicates=1))
    assert "one replicate, hence no intervals (n = 1)" in tables["variants.md"]
    assert "CI" not in "".join(macros(tables["numbers.tex"]))
    for name in ("variants.md", "variants.tex", "numbers.tex"):
        assert not re.search(r"\[[^a-z]*\d", tables[name].partition("95")[0]), name
        assert "nan" not in tables[name]
    frame = pd.read_csv(tmp_path / "tables" / "variants.csv")
    assert frame[["top1_low", "top1_high", "difference_low", "difference_high"]].isna().all(axis=None)
    assert macros(tables["numbers.tex"])["GroupsDigitsResnetEightGroupsTwoVerdict"] == "no verdict"


def test_equal_replicates_have_no_interval_of_no_width(tmp_path: Path) -> None:
    tables = tables_of(study_findings(tmp_path, top1=lambda variant, _: 60.0 + variant))
    assert "| +1.00 (no spread) |" in tables["variants.md"]
    assert "CI" not in "".join(macros(tables["numbers.tex"]))


@pytest.mark.parametrize("replicates", [1, 3])
def test_plus_minus_is_never_printed(tmp_path: Path, replicates: int) -> None:
    assert not any(sign in text for text in tables_of(study_findings(tmp_path, replicates=replicates)).values()
                   for sign in ("±", r"\pm", "+-", "textpm"))  # fmt: skip


def test_crossed_factors_have_a_table_of_effects(tmp_path: Path) -> None:
    overrides = ["sweep.factors.attention.groups=[2,4]", "sweep.factors.attention.shuffle=[true,false]"]
    tables = tables_of(study_findings(tmp_path, overrides))
    frame = pd.read_csv(tmp_path / "tables" / "effects.csv")
    assert frame[["effect", "reference", "order", "n"]].to_numpy().tolist() == [
        ["groups=4", "groups=2", 1, 2],
        ["shuffle=off", "shuffle=on", 1, 2],
        ["groups=4 x shuffle=off", "groups=2 x shuffle=on", 2, 2],
    ]
    assert frame["points"].tolist() == [2, 1, 0]
    assert "groups=4 & groups=2 & +2.00 [\\ensuremath{-}10.71, +14.71]" in tables["effects.tex"]
    assert "tab:groups-digits-resnet8-effects}" in tables["effects.tex"]
    assert "Main effects and interactions." in tables["effects.md"]


def test_a_search_has_its_front_and_no_verdicts(tmp_path: Path) -> None:
    findings = study_findings(tmp_path, is_search=True, objectives=("top1", "parameters"))
    tables = tables_of(findings)
    frame = pd.read_csv(tmp_path / "tables" / "front.csv", keep_default_na=False)
    assert frame["variant"].tolist() == ["none", "groups=2", "groups=4"]
    assert frame["label"].tolist() == ["C", "B", "A"]
    assert "| A | groups=4 | 2 | 62.0 | 75,200 |" in tables["front.md"]
    assert "A & groups=4 & 2 & 62.0 & 75,200" in tables["front.tex"]
    for name in ("variants.md", "variants.tex", "numbers.tex", "variants.csv"):
        assert "undecided" not in tables[name]
    assert "picked by a search for being good" in tables["variants.tex"]
    assert set(pd.read_csv(tmp_path / "tables" / "variants.csv")["reason"].dropna()) == {
        "picked by a search, which flatters it"
    }


def test_what_was_not_measured_is_a_dash_and_has_no_macro(tmp_path: Path) -> None:
    findings = study_findings(tmp_path)
    findings.results.cells["train_time_ratio"] = float("nan")
    tables = tables_of(findings)
    assert "| undecided | – | 12.5 |" in tables["variants.md"]
    assert "A dash: not measured." in tables["variants.md"]
    assert "\\textendash{}" in tables["variants.tex"]
    assert "StepTime" not in tables["numbers.tex"]


def test_where_no_cell_is_finished_there_are_no_tables(tmp_path: Path) -> None:
    assert write_tables(study_findings(tmp_path, finished=0, failure="ValueError: planted")) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"results_dir=.*: cannot be written: "):
        write_tables(study_findings(tmp_path / "file"))


@given(st.text(st.characters(codec="utf-8")) | st.text("\\{}#$%&_~^<>|`'\"-,[]* ab×–") | st.text("-',a"))
def test_latex_prints_what_went_in(text: str) -> None:
    letters = "".join(letter if letter.isprintable() else " " for letter in text)
    assert printed(latex_text(text)) == " ".join(letters.split())


@given(st.sampled_from(["[", "*"]), st.text("ab]*[ "))
def test_a_row_never_begins_with_what_the_end_of_the_row_before_takes_for_its_own(first: str, text: str) -> None:
    assert latex_text(first + text)[0] == "{"


@cache
def any_design() -> Design:
    return make_design(compose_config(["device=cpu", *GROUPS]))


def design_of(names: Sequence[str]) -> Design:
    made = any_design()
    return replace(made, variants=tuple(replace(made.variants[0], name=name) for name in names))


@given(st.lists(st.text("aA1 =_é-", max_size=5) | st.sampled_from(["top", "TopOne", "N", "B", "C"]), unique=True))
def test_the_words_of_macros_are_letters_and_no_two_variants_share_a_macro(names: list[str]) -> None:
    words = macro_words(design_of(names), {"StudyMargin"}, "Study")
    assert list(words) == names
    assert all(re.fullmatch("[A-Za-z]+", word) for word in words.values())
    made = [f"Study{word}{quantity}" for word in words.values() for quantity in ("N", "TopOne", "TopOneCI", "Verdict")]
    assert len(set(made) | {"StudyMargin"}) == len(made) + 1


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("groups=8", "GroupsEight"),
        ("groups=10", "GroupsOneZero"),
        ("w/o GN", "WOGN"),
        ("1x1 conv", "OneXOneConv"),
        ("sigmoid_from_0_95", "SigmoidFromZeroNineFive"),
        ("naïve", "Naive"),
        ("%", ""),
    ],
)
def test_names_are_written_in_letters(name: str, word: str) -> None:
    assert macro_word(name) == word


def test_names_that_become_the_same_are_told_apart_in_the_order_of_the_study(tmp_path: Path) -> None:
    known = macros(numbers(study_findings(tmp_path, names=["a b", "a-b", "a_b"])))
    start = "GroupsDigitsResnetEightAB"
    assert [known[f"{start}{suffix}TopOne"] for suffix in ("", "B", "C")] == ["60.0", "61.0", "62.0"]


def test_macros_keep_their_names_while_the_study_is_running(tmp_path: Path) -> None:
    names = ["a b", "a-b", "a_b"]
    whole = macros(numbers(study_findings(tmp_path, names=names)))
    findings = study_findings(tmp_path, names=names)
    cells = findings.results.cells
    part = replace(findings, results=replace(findings.results, cells=cells[cells["variant"] != "a b"]))
    partial = macros(numbers(part))
    assert partial["GroupsDigitsResnetEightABBTopOne"] == whole["GroupsDigitsResnetEightABBTopOne"] == "61.0"
    assert "GroupsDigitsResnetEightABTopOne" not in partial


def test_macros_hold_the_numbers_of_the_study(tmp_path: Path) -> None:
    text = tables_of(study_findings(tmp_path, replicates=3))["numbers.tex"]
    known = macros(text)
    start = "GroupsDigitsResnetEight"
    expected = {
        "Replicates": "3",
        "Epochs": "6",
        "Margin": "0.2",
        "GroupsTwoN": "3",
        "GroupsTwoTopOne": "60.7",
        "GroupsTwoParameters": "75{,}100",
        "GroupsTwoGFLOPs": "0.01248",
        "GroupsTwoStepTime": "1.11",
        "GroupsTwoVerdict": "undecided",
        "GroupsTwoDifference": "+0.83",
        "GroupsTwoDifferenceCI": "{[}\\ensuremath{-}0.60, +2.27]",
        "GroupsTwoTopOneCI": "{[}57.8, 63.5]",
    }
    assert {name: known[start + name] for name in expected} == expected
    assert start + "NoneDifference" not in known
    assert text.startswith("%")
    assert "\\input{numbers}" in text
    example = re.search(r"The accuracy is \\([A-Za-z]+)", text)
    assert example is not None
    assert example[1] in known


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("chosen", [NASTY[:3], NASTY[3:6], NASTY[6:9], NASTY[9:]])
def test_latex_compiles_what_is_written(tmp_path: Path, chosen: Sequence[str]) -> None:
    findings = study_findings(tmp_path, names=chosen, question="Does 100 % of \\R&D_1 #{help} ~ ^?")
    write_tables(findings)
    name = next(iter(macros(numbers(findings))))
    document = (
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\input{numbers}\\begin{document}"
        f"n = \\{name}, $\\{name}$. \\input{{variants}}\\end{{document}}"
    )
    (tmp_path / "tables" / "document.tex").write_text(document)
    made = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"],
        cwd=tmp_path / "tables", capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-2000:]
    assert "Overfull" not in made.stdout
