from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ablations.analysis.effects import Effect, effects_frame
from ablations.common.metrics import METRICS
from ablations.reporting.figures import style
from ablations.reporting.figures.forest import draw_effects, draw_forest, forest_frame
from ablations.stats import Contrast, Estimate, Reason, ReasonCode, Verdict
from tests.builders.drawings import legend_of, points, spans
from tests.wording import worded

TOP1 = METRICS["top1"]
HELPS = Contrast("groups=4", "none", Estimate(8, 1.5, 1.0, 2.0), 0.008, 1.0, Verdict.HELPS, interim=8)
HURTS = Contrast("groups=1", "none", Estimate(8, -1.0, -1.6, -0.4), 0.016, 1.0, Verdict.HURTS)
EQUIVALENT = Contrast("groups=2", "none", Estimate(8, 0.0, -0.1, 0.1), 1.0, 0.01, Verdict.EQUIVALENT)
UNDECIDED = Contrast(
    "groups=8", "none", Estimate(3, 0.5, -2, 3), None, 0.6, Verdict.UNDECIDED, Reason(ReasonCode.NO_SPREAD)
)
SINGLE = Contrast(
    "se", "none", Estimate(1, 2.0, math.nan, math.nan), None, None, Verdict.NONE, Reason(ReasonCode.ONE_REPLICATE)
)
UNPAIRED = Contrast("eca", "none", None, None, None, Verdict.NONE, Reason(ReasonCode.NO_PAIR))
ALL = [HELPS, HURTS, EQUIVALENT, UNDECIDED, SINGLE]
LONG = "position=residual, norm=instance, gate=hard_sigmoid, shuffle=off, transform=conv1x1"
TWO_BASELINES = [
    Contrast("resnet8, sa", "resnet8, none", HELPS.difference, 0.008, 1.0, Verdict.HELPS),
    Contrast(f"{LONG}, sa", f"{LONG}, none", UNDECIDED.difference, None, 0.6, Verdict.UNDECIDED),
]
MANY = [
    Contrast(f"{LONG} {number}", "none", Estimate(1000, number - 10, number - 12, number - 8), 0.5, 1.0, verdict)
    for number, verdict in enumerate(list(Verdict)[:4] * 5)
]
EFFECTS = [
    Effect(1, "shuffle=off", "shuffle=on", Estimate(3, -0.5, -1.0, 0.0), Verdict.UNDECIDED, 0.2, 0.9, True),
    Effect(1, "norm=none", "norm=instance", Estimate(3, 1.5, 1.0, 2.0), Verdict.HELPS, 0.01, 0.9, True),
    Effect(2, "shuffle=off x norm=none", "shuffle=on x norm=instance", Estimate(3, 0.25, -1.0, 1.5), Verdict.UNDECIDED),
]


def drawn_texts(drawn: Figure) -> list[Text]:
    """Every visible text of a figure, in the layout of the saved file."""
    with mpl.rc_context(style.theme()):
        FigureCanvasAgg(drawn).draw()  # type: ignore[no-untyped-call]
    return [text for text in drawn.findobj(Text) if isinstance(text, Text) and text.get_text() and text.get_visible()]


def test_a_contrast_is_a_row_with_the_statistics_of_its_verdict() -> None:
    frame = forest_frame(ALL)
    assert list(frame.columns) == [
        "variant", "baseline", "n", "mean", "low", "high", "adjusted", "p", "p_equivalence",
        "verdict", "assumes_normal", "reason", "interim", "shortfall", "unseen_failures",
    ]  # fmt: skip
    first, _, equivalent, undecided, single = frame.to_dict("records")
    assert pd.isna(first.pop("unseen_failures"))
    assert equivalent["unseen_failures"] == pytest.approx(1 - 0.05 ** (1 / 8))
    assert first == {
        "variant": "groups=4", "baseline": "none", "n": 8, "mean": 1.5, "low": 1.0, "high": 2.0,
        "adjusted": None, "p": 0.008, "p_equivalence": 1.0, "verdict": "helps",
        "assumes_normal": False, "reason": "", "interim": 8, "shortfall": None,
    }  # fmt: skip
    assert (undecided["reason"], undecided["verdict"]) == (worded("reasons.no_spread"), "undecided")
    assert pd.isna(undecided["p"])
    assert all(pd.isna(single[name]) for name in ("low", "high", "p", "p_equivalence", "interim"))


def test_a_contrast_without_a_pair_has_no_row() -> None:
    assert forest_frame([UNPAIRED, HELPS])["variant"].tolist() == ["groups=4"]
    assert list(forest_frame([UNPAIRED]).columns) == list(forest_frame(ALL).columns)


def test_the_figure_shows_the_values_of_the_frame() -> None:
    (axes,) = draw_forest(forest_frame(ALL), 0.2, TOP1, "caption").axes
    assert list(points(axes)) == [(1.5, 0), (-1.0, 1), (0.0, 2), (0.5, 3), (2.0, 4)]
    assert len(set(points(axes).values())) == 5  # one per verdict
    assert spans(axes) == [
        (1.0, 0, 2.0, 0),
        (-1.6, 1, -0.4, 1),
        (-0.1, 2, 0.1, 2),
        (-2, 3, 3, 3),
    ]
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((-0.2, 0.2))
    assert [label.get_text() for label in axes.get_yticklabels()] == [contrast.variant for contrast in ALL]
    assert [text.get_text() for text in axes.texts] == [
        "helps (n = 8)", "hurts (n = 8)", "equivalent (n = 8)", "undecided (n = 3)", "no verdict (n = 1)",
    ]  # fmt: skip
    assert [float(text.xy[1]) for text in axes.texts] == [0, 1, 2, 3, 4]  # type: ignore[attr-defined]
    assert axes.get_ylim() == (4.5, -0.5)
    assert axes.get_xlabel() == "Difference in top-1 to none (percentage points)"


def test_only_verdicts_that_occur_are_in_the_legend() -> None:
    drawn = draw_forest(forest_frame([HELPS, UNDECIDED]), 0.25, TOP1, "caption")
    assert legend_of(drawn) == ["within 0.25 points", "helps", "undecided"]


def test_contrasts_with_several_baselines_name_them() -> None:
    (axes,) = draw_forest(forest_frame(TWO_BASELINES), 0.2, TOP1, "caption").axes
    labels = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert labels == ["resnet8, sa against resnet8, none", f"{LONG}, sa against {LONG}, none"]
    assert axes.get_xlabel() == "Difference in top-1 to its baseline (percentage points)"


@pytest.mark.parametrize(
    "contrasts", [[HELPS], [SINGLE], ALL, TWO_BASELINES, MANY], ids=["one", "n=1", "all", "two baselines", "many"]
)
def test_no_text_is_outside_the_figure_or_overlaps_another(contrasts: list[Contrast]) -> None:
    caption = "A caption that is folded, as it is longer than the picture is wide. " * 4
    drawn = draw_forest(forest_frame(contrasts), 0.2, TOP1, caption)
    texts = drawn_texts(drawn)
    canvas = drawn.bbox
    (axes,) = drawn.axes
    for text in texts:
        box = text.get_window_extent()
        if text in axes.get_xticklabels() and not axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1:
            continue  # a tick outside the view is not drawn
        assert canvas.x0 <= box.x0 <= box.x1 <= canvas.x1, text
        assert canvas.y0 <= box.y0 <= box.y1 <= canvas.y1, text
    beside = [text.get_window_extent() for text in axes.texts]
    assert len(beside) == len(contrasts)
    assert all(box.x0 >= axes.bbox.x1 for box in beside)
    rows = sorted(beside, key=lambda box: box.y0)
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(rows))
    labels = sorted((label.get_window_extent() for label in axes.get_yticklabels()), key=lambda box: box.y0)
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in pairwise(labels))


def test_it_is_saved_beside_its_numbers(tmp_path: Path) -> None:
    frame = forest_frame(ALL)
    written = style.save(draw_forest(frame, 0.2, TOP1, "caption"), frame, tmp_path / "forest")
    assert [path.name for path in written] == ["forest.png", "forest.pdf", "forest.csv"]
    again = pd.read_csv(written[2], keep_default_na=True)
    assert again["mean"].tolist() == frame["mean"].tolist()
    assert again["p"].isna().tolist() == [False, False, False, True, True]


def test_every_effect_has_a_row_with_its_mean_and_interval() -> None:
    frame = effects_frame(EFFECTS)
    assert frame["mean"].tolist() == [-0.5, 1.5, 0.25]
    (axes,) = draw_effects(frame, 0.2, TOP1, "caption").axes
    main, other, interaction = points(axes).items()
    assert (main[0], other[0], interaction[0]) == ((-0.5, 0), (1.5, 1), (0.25, 2))
    assert main[1] == other[1] != interaction[1]
    assert spans(axes) == [(-1.0, 0, 0.0, 0), (1.0, 1, 2.0, 1), (-1.0, 2, 1.5, 2)]
    assert {"undecided †", "helps †", "undecided"} <= {text.get_text() for text in axes.texts}
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "shuffle=off against shuffle=on", "norm=none against norm=instance", "shuffle=off x norm=none",
    ]  # fmt: skip


def test_an_effect_of_one_replicate_has_no_interval() -> None:
    frame = effects_frame([Effect(1, "shuffle=off", "shuffle=on", Estimate(1, 2.0, math.nan, math.nan), Verdict.NONE)])
    (axes,) = draw_effects(frame, 0.2, TOP1, "caption").axes
    assert (list(points(axes)), spans(axes)) == ([(2.0, 0)], [])
