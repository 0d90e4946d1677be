from __future__ import annotations

import math

from ablations.analysis.effects import Effect, effects_frame
from ablations.reporting.figures.effects import draw_effects
from ablations.stats import Estimate

EFFECTS = [
    Effect(1, "shuffle=off", "shuffle=on", Estimate(3, -0.5, -1.0, 0.0)),
    Effect(1, "norm=none", "norm=instance", Estimate(3, 1.5, 1.0, 2.0)),
    Effect(2, "shuffle=off x norm=none", "shuffle=on x norm=instance", Estimate(3, 0.25, -1.0, 1.5)),
]


def test_every_effect_has_a_row_with_its_mean_and_interval() -> None:
    frame = effects_frame(EFFECTS)
    assert frame["mean"].tolist() == [-0.5, 1.5, 0.25]
    (axes,) = draw_effects(frame, "caption").axes
    drawn = {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}  # type: ignore[arg-type]
    assert drawn["main effect"] == ([-0.5, 1.5], [0, 1])
    assert drawn["interaction of 2 factors"] == ([0.25], [2])
    spans = [path.vertices[:, 0].tolist() for group in axes.collections for path in group.get_paths()]
    assert spans == [[-1.0, 0.0], [1.0, 2.0], [-1.0, 1.5]]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "shuffle=off against shuffle=on", "norm=none against norm=instance", "shuffle=off x norm=none",
    ]  # fmt: skip


def test_one_replicate_has_no_interval() -> None:
    frame = effects_frame([Effect(1, "shuffle=off", "shuffle=on", Estimate(1, 2.0, math.nan, math.nan))])
    (axes,) = draw_effects(frame, "caption").axes
    assert all(math.isnan(path.vertices[0, 0]) for group in axes.collections for path in group.get_paths())
