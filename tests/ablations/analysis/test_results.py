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
    made = design()
    results = collect(made, stored(made, finished=6))
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
    made = design()
    curves = collect(made, stored(made, finished=6)).curves
    assert sorted(set(curves["epoch"])) == [1, 2]
    assert len(curves) == 12


def test_unfinished_cells_are_named_with_their_state() -> None:
    made = design()
    known = stored(made, finished=3)[:5]  # the sixth was never begun
    unfinished = collect(made, known).unfinished
    assert unfinished.to_dict("records") == [
        {"variant": "none", "replicate": 1, "state": "interrupted", "reason": None},
        {"variant": "groups=2", "replicate": 1, "state": "interrupted", "reason": None},
        {"variant": "groups=4", "replicate": 1, "state": "missing", "reason": None},
    ]


def test_replicates_beyond_those_asked_for_count_too() -> None:
    assert len(collect(design(1), stored(design(3), finished=9)).cells) == 9


def test_variants_that_the_design_does_not_have_are_left_out() -> None:
    made = design()
    fewer = make_design(compose_config(["device=cpu", "replicates=2", "sweep.factors.attention.groups=[4]"]))
    assert set(collect(fewer, stored(made, finished=6)).cells["variant"]) == {"none", "groups=4"}


def test_a_network_is_known_again_under_another_name() -> None:
    made = design()
    renamed = make_design(
        compose_config(
            ["device=cpu", "replicates=2", "sweep.factors.attention.groups=[4]",
             "sweep.variants={plain:{attention:none}}", "sweep.baseline=plain"]
        )
    )  # fmt: skip
    results = collect(renamed, stored(made, finished=6))
    assert results.cells["variant"].tolist() == ["plain", "plain", "groups=4", "groups=4"]
    assert len(results.unfinished) == 0


def test_unfinished_cells_that_were_not_asked_for_are_no_matter() -> None:
    assert len(collect(design(1), stored(design(3), finished=3)).unfinished) == 0


def test_machines_are_listed_once_each() -> None:
    made = design()
    known = stored(made, finished=6)[:3] + stored(made, finished=6, machine="two")[3:]
    assert [environment["cpu"] for environment in collect(made, known).environments] == ["one", "two"]


@pytest.mark.parametrize("key", [*CELL_METRICS, *EPOCH_METRICS])
def test_every_metric_that_is_stored_is_declared(key: str) -> None:
    assert METRICS[key].axis


def test_a_cell_that_diverged_is_counted_and_in_no_mean() -> None:
    made = design(3)
    cells = stored(made, finished=9)
    spoilt = [diverged(cell) if (cell.variant, cell.replicate) == ("groups=4", 1) else cell for cell in cells]
    results = collect(made, spoilt)
    assert len(results.cells) == 8
    assert results.diverged == {"groups=4": 1}
    (left,) = results.unfinished.to_dict("records")
    assert left == {"variant": "groups=4", "replicate": 1, "state": "diverged", "reason": "DivergedError: nan"}
    assert spoilt[5].state.is_done
    # Of replicates, too, that are not asked for any more.
    assert collect(design(1), spoilt).diverged == {"groups=4": 1}


def test_a_failed_cell_is_not_one_that_diverged() -> None:
    made = design()
    failed = replace(stored(made, finished=0)[0], state=CellState.FAILED, failure="ValueError: no", failed_as=ERROR)
    assert not failed.state.is_done
    assert collect(made, [failed]).diverged == {}


def test_a_cell_says_in_how_many_parts_its_batches_were_taken() -> None:
    made = design()
    cells = stored(made, finished=6)
    parted = replace(cells[1], outcome={**(cells[1].outcome or {}), "micro_batches": 2})
    results = collect(made, [cells[0], parted, *cells[2:]])
    assert sorted(results.cells["micro_batches"]) == [1, 1, 1, 1, 1, 2]
