from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from ablations.reporting.figures.edf import draw_edf, edf_frame
from ablations.reporting.figures.registry import draw_figures
from tests.builders.analyses import search_analysis
from tests.builders.drawings import cut, legend_of, overlapping

VALUES = [60.0, 62.0, 62.0, 50.0, 71.5]
NONE = pd.DataFrame(columns=["variant", "objective", "value"])


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_shares_agree_with_optuna() -> None:
    study = optuna.create_study(study_name="s")
    study.add_trials([optuna.trial.create_trial(value=value) for value in VALUES])
    (line,) = optuna.visualization.matplotlib.plot_edf(study).lines
    frame = edf_frame(pd.DataFrame({"top1": VALUES}), ["top1"])
    known = frame["value"].to_numpy()
    for x, share in zip(*line.get_data(), strict=True):
        reached = frame["share"][known <= x + 1e-9]
        assert np.isclose(share, reached.max() if len(reached) else 0)


def test_trials_without_a_result_are_left_out_and_groups_are_separate() -> None:
    trials = pd.DataFrame({"variant": ["a", "a", "b"], "top1": [1.0, float("nan"), 2.0]})
    frame = edf_frame(trials, ["top1"], "variant")
    assert frame[["group", "value", "share"]].to_numpy().tolist() == [["a", 1.0, 1.0], ["b", 2.0, 1.0]]


def test_every_objective_has_a_panel_and_every_group_a_curve() -> None:
    trials = pd.DataFrame(
        {"variant": ["none", "none", "sa"], "top1": [1.0, 3.0, 2.0], "peak_memory_mib": [5.0, 6.0, 7.0]}
    )
    frame = edf_frame(trials, ["top1", "peak_memory_mib"], "variant")
    named = pd.DataFrame({"variant": ["plain"], "objective": ["top1"], "value": [2.5]})
    drawn = draw_edf(frame, named, ["none", "sa"], ["none"], "A caption.")
    assert [axes.get_xlabel().rpartition(", ")[2] for axes in drawn.axes] == ["right is better", "left is better"]
    assert [len(axes.lines) for axes in drawn.axes] == [3, 2]
    assert legend_of(drawn) == ["none", "sa", "plain"]
    assert cut(drawn) == overlapping(drawn) == []


def test_a_search_has_the_figure_and_its_caption_has_the_number_of_variants(tmp_path: Path) -> None:
    (figure,) = draw_figures(search_analysis(tmp_path, given_up=1), ["edf"]).drawn
    assert "n = 5 variants, 1 cell each" in figure.caption
    assert len(pd.read_csv(tmp_path / "figures" / "edf.csv")) == 5
