from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from ablations.analysis.results import collect
from ablations.common.metrics import CELL_METRICS, EPOCH_METRICS, METRICS
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.storage.cell_states import CellState
from ablations.training.events import ERROR
from tests.builders.cells import design, diverged, stored


def test_finished_cells_are_rows_with_their_levels_and_metrics() -> None:
    study_design = design()
    results = collect(study_design, stored(study_design, finished=6))
    assert list(results.cells.columns) == [
        "variant",
        "replicate",
        "attention.groups",
        "attention_by",
        "micro_batches",
        *CELL_METRICS,
    ]
    row = results.cells[(results.cells["variant"] == "groups=4") & (results.cells["replicate"] == 1)].iloc[0]
    assert (row["attention.groups"], row["top1"]) == (4, 5.0)
    assert pd.isna(results.cells[results.cells["variant"] == "none"]["attention.groups"]).all()
    assert len(results.unfinished) == 0


def test_curves_count_epochs_from_one() -> None:
    study_design = design()
    curves = collect(study_design, stored(study_design, finished=6)).curves
    assert sorted(set(curves["epoch"])) == [1, 2]
    assert len(curves) == 12


def test_unfinished_cells_are_listed_with_their_state() -> None:
    study_design = design()
    cells = stored(study_design, finished=3)[:5]  # the sixth was never started
    unfinished = collect(study_design, cells).unfinished
    assert unfinished.to_dict("records") == [
        {"variant": "none", "replicate": 1, "state": "interrupted", "reason": None},
        {"variant": "groups=2", "replicate": 1, "state": "interrupted", "reason": None},
        {"variant": "groups=4", "replicate": 1, "state": "missing", "reason": None},
    ]


def test_finished_replicates_beyond_the_requested_number_are_included() -> None:
    assert len(collect(design(1), stored(design(3), finished=9)).cells) == 9


def test_variants_that_are_not_in_the_design_are_excluded() -> None:
    study_design = design()
    fewer = make_design(compose_config(["device=cpu", "replicates=2", "sweep.factors.attention.groups=[4]"]))
    assert set(collect(fewer, stored(study_design, finished=6)).cells["variant"]) == {"none", "groups=4"}


def test_a_network_is_recognized_under_another_name() -> None:
    study_design = design()
    renamed = make_design(
        compose_config(
            ["device=cpu", "replicates=2", "sweep.factors.attention.groups=[4]",
             "sweep.variants={plain:{attention:none}}", "sweep.baseline=plain"]
        )
    )  # fmt: skip
    results = collect(renamed, stored(study_design, finished=6))
    assert results.cells["variant"].tolist() == ["plain", "plain", "groups=4", "groups=4"]
    assert len(results.unfinished) == 0


def test_unfinished_cells_beyond_the_requested_number_are_not_listed() -> None:
    assert len(collect(design(1), stored(design(3), finished=3)).unfinished) == 0


def test_each_machine_is_listed_once() -> None:
    study_design = design()
    cells = stored(study_design, finished=6)[:3] + stored(study_design, finished=6, machine="two")[3:]
    assert [environment["cpu"] for environment in collect(study_design, cells).environments] == ["one", "two"]


@pytest.mark.parametrize("key", [*CELL_METRICS, *EPOCH_METRICS])
def test_every_stored_metric_is_declared(key: str) -> None:
    assert METRICS[key].axis


def test_a_diverged_cell_is_counted_and_excluded_from_results() -> None:
    study_design = design(3)
    cells = stored(study_design, finished=9)
    changed = [diverged(cell) if (cell.variant, cell.replicate) == ("groups=4", 1) else cell for cell in cells]
    results = collect(study_design, changed)
    assert len(results.cells) == 8
    assert results.diverged == {"groups=4": 1}
    (unfinished,) = results.unfinished.to_dict("records")
    assert unfinished == {"variant": "groups=4", "replicate": 1, "state": "diverged", "reason": "DivergedError: nan"}
    assert changed[5].state.is_done
    # Replicates beyond the requested number are counted, too.
    assert collect(design(1), changed).diverged == {"groups=4": 1}


def test_a_failed_cell_is_not_counted_as_diverged() -> None:
    study_design = design()
    failed = replace(
        stored(study_design, finished=0)[0], state=CellState.FAILED, failure="ValueError: no", failed_as=ERROR
    )
    assert not failed.state.is_done
    assert collect(study_design, [failed]).diverged == {}


def test_results_have_the_number_of_micro_batches() -> None:
    study_design = design()
    cells = stored(study_design, finished=6)
    split = replace(cells[1], outcome={**(cells[1].outcome or {}), "micro_batches": 2})
    results = collect(study_design, [cells[0], split, *cells[2:]])
    assert sorted(results.cells["micro_batches"]) == [1, 1, 1, 1, 1, 2]
