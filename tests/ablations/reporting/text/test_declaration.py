from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

from ablations.analysis.study import StudyAnalysis
from ablations.design.declaration import Change, Declaration, History
from ablations.reporting.tables.variants import variants_frame
from ablations.reporting.text.declaration import (
    changes_sentence,
    declaration_rows,
    declaration_sentences,
    exploratory_clause,
    verdicts_tag,
)
from tests.builders.analyses import study_analysis
from tests.wording import worded

LATER = "2026-11-30T09:05:00+00:00"
DECLARED = worded("declaration.declared", time="2026-11-29 14:02", code="commit 0123456")


def declared_of(analysis: StudyAnalysis) -> Declaration:
    assert analysis.declared is not None
    return analysis.declared.first


def with_history(analysis: StudyAnalysis, history: History) -> StudyAnalysis:
    return replace(analysis, attributes={**analysis.attributes, "declared": history.as_stored()})


def test_an_unchanged_declaration_is_reported(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    assert declaration_sentences(analysis) == [f"{DECLARED}; unchanged since."]
    assert (exploratory_clause(analysis), verdicts_tag(analysis)) == ("", "declared")


@pytest.mark.parametrize(
    ("commit", "shown"),
    [
        ("0123456789+changes", "commit 0123456, with uncommitted changes"),
        ("version 1.2", "version 1.2"),
    ],
)
def test_the_code_is_a_commit_or_a_version(commit: str, shown: str, tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    history = History.begun(replace(declared_of(analysis), commit=commit))
    (said,) = declaration_sentences(with_history(analysis, history))
    assert said.startswith(worded("declaration.declared", time="2026-11-29 14:02", code=shown))


def test_a_changed_margin_makes_verdicts_exploratory_with_its_time(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path, margin=0.5)
    now = declared_of(analysis)
    history = History.begun(replace(now, margin=1.0)).then(replace(now, time=LATER))
    analysis = with_history(analysis, history)
    (said,) = declaration_sentences(analysis)
    assert said.startswith(f"{DECLARED}. Changed since: margin from 1 to 0.5 points on 2026-11-30 09:05 UTC. ")
    assert worded("declaration.exploratory") in said
    assert exploratory_clause(analysis) == worded("declaration.clause", what="margin")
    assert verdicts_tag(analysis) == exploratory_clause(analysis)


def test_a_report_with_other_options_is_exploratory_without_a_recorded_change(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    history = History.begun(declared_of(analysis))
    other = with_history(replace(analysis, design=replace(analysis.design, margin=0.5, metric="test_loss")), history)
    (said,) = declaration_sentences(other)
    assert "metric from top1 to test_loss in this report; margin from 1 point to 0.5 nats in this report. " in said
    assert exploratory_clause(other) == worded("declaration.clause", what="metric and margin")


def with_reused(analysis: StudyAnalysis, *finished: str) -> StudyAnalysis:
    times = [datetime.fromisoformat(time).timestamp() for time in finished]
    rows = [("groups=1", replicate, "rivals", time) for replicate, time in enumerate(times)]
    reused = pd.DataFrame(rows, columns=["variant", "replicate", "origin", "finished"])
    return replace(analysis, results=replace(analysis.results, reused=reused))


def test_cells_that_another_study_trained_after_the_declaration_do_not_affect_verdicts(tmp_path: Path) -> None:
    analysis = with_reused(study_analysis(tmp_path), LATER, LATER)
    unchanged, copied = declaration_sentences(analysis)
    assert unchanged == f"{DECLARED}; unchanged since."
    assert copied == f"{worded('reuse.copied', what='2 from rivals')[:-1]}{worded('reuse.late')}"
    assert verdicts_tag(analysis) == "declared"


def test_one_cell_with_a_result_from_before_the_declaration_makes_verdicts_exploratory(tmp_path: Path) -> None:
    analysis = with_reused(study_analysis(tmp_path), LATER, "2026-11-29T14:00:00+00:00")
    assert worded("reuse.early", early="1 of them was") in declaration_sentences(analysis)[1]
    assert exploratory_clause(analysis) == worded("reuse.clause", early="1 cell was")
    other = replace(analysis, design=replace(analysis.design, margin=0.5))
    assert exploratory_clause(other).startswith(worded("declaration.clause", what="margin"))
    assert exploratory_clause(other).endswith("1 cell was trained before the declaration")


def test_the_csv_of_variants_marks_exploratory_verdicts(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    other = replace(analysis, design=replace(analysis.design, margin=0.5))
    for known, marked in ((analysis, False), (other, True)):
        column = variants_frame(known).set_index("variant")["exploratory"]
        assert (column.drop("none") == marked).all()
        assert column.isna()["none"]


def test_a_changed_question_is_reported_and_does_not_affect_verdicts(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    now = declared_of(analysis)
    analysis = with_history(analysis, History.begun(replace(now, question="Why?")).then(replace(now, time=LATER)))
    (said,) = declaration_sentences(analysis)
    assert "question from Why? to How many groups" in said
    assert said.endswith(worded("declaration.kept"))
    assert verdicts_tag(analysis) == "declared"


def test_a_study_without_a_declaration_is_exploratory(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    attributes = {name: value for name, value in analysis.attributes.items() if name != "declared"}
    analysis = replace(analysis, attributes=attributes)
    (said,) = declaration_sentences(analysis)
    assert said.startswith(worded("declaration.nothing"))
    assert exploratory_clause(analysis) == "exploratory: not declared before the first cell"
    assert declaration_rows(analysis) == {}


def test_a_search_declares_how_many_of_its_picks_it_confirms(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path, ["sweep=search", "sweep.confirm=2"])
    assert declaration_rows(analysis)["contrasts"] == "up to 2 confirmed picks, baseline none"
    assert verdicts_tag(analysis) == "declared"
    changed = replace(analysis, design=replace(analysis.design, confirm=3))
    assert verdicts_tag(changed) == "exploratory: confirmed picks changed after the first cell"


def test_the_declaration_is_reported_in_full(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    rows = declaration_rows(analysis)
    assert rows["question"] == analysis.design.question
    assert (rows["metric"], rows["margin"], rows["replicates"]) == ("Top-1", "1 point", "2")
    assert (rows["contrasts"], rows["time"]) == ("2 contrasts, baseline none", "2026-11-29 14:02 UTC")


def test_a_run_with_a_changed_declaration_reports_it_immediately() -> None:
    change = Change("margin", "1", "0.5 points", LATER)
    said = "Changed after the first cell: margin from 1 to 0.5 points on 2026-11-30 09:05 UTC."
    assert changes_sentence([change], [change]) == f"{said} Verdicts are exploratory."
    assert changes_sentence([change], []) == said
