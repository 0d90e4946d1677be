from __future__ import annotations

import pandas as pd

from ablations.analysis.results import collect
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.reporting.figures.pairs import draw_pairs, pairs_frame
from tests.builders.cells import stored


def frame(finished: int = 8) -> pd.DataFrame:
    made = make_design(
        compose_config(["device=cpu", "sweep=backbones", "replicates=2", "sweep.factors.model=[resnet8,resnet20]"])
    )
    return pairs_frame(collect(made, stored(made, finished)).cells, made)


def test_a_variant_shares_its_row_with_its_baseline() -> None:
    rows = frame().drop_duplicates("variant").set_index("variant")
    assert rows["row"].tolist() == ["resnet8", "resnet8", "resnet20", "resnet20"]
    assert rows["series"].tolist() == ["none", "sa", "none", "sa"]
    assert rows["is_baseline"].tolist() == [True, False, True, False]


def test_the_panels_show_the_means_and_the_replicates_of_each_series() -> None:
    drawn = draw_pairs(frame(), "caption")
    assert [axes.get_xlabel() for axes in drawn.axes] == ["Top-1 (%)", "Time of a step (× plain)", "Peak memory (MiB)"]
    lines = {str(line.get_label()): list(line.get_xdata()) for line in drawn.axes[0].lines}  # type: ignore[arg-type]
    assert lines["none"] == [2.0, 4.0]  # cells 0 and 4, 2 and 6
    assert lines["sa"] == [3.0, 5.0]
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["resnet8", "resnet20"]


def test_a_partial_study_is_drawn() -> None:
    for finished in (1, 3, 5):
        rows = frame(finished)
        assert len(draw_pairs(rows.assign(value=rows["value"] + 1), "caption").axes) == 3
