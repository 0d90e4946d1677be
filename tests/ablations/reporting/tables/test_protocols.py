from __future__ import annotations

import math

from ablations.common.metrics import METRICS
from ablations.reporting.tables.protocols import protocols_table
from tests.builders.multiverses import protocol_frame

TOP1 = METRICS["top1"]
MARGINS = {"common recipe": 1.0, "best recipe of each": 1.0}
FRAME = protocol_frame(
    {
        "common recipe": {"sa": "undecided", "gc": "hurts"},
        "best recipe of each": {"sa": "helps", "gc": "equivalent"},
    }
)


def test_a_contrast_is_a_row_with_a_column_per_protocol_and_the_agreement_of_verdicts() -> None:
    table = protocols_table(FRAME, MARGINS, TOP1)
    assert table.headers == ("contrast", "common recipe", "best recipe of each", "verdicts")
    assert table.rows == [
        ["sa", "+0.40 [-0.10, +0.90] undecided", "+1.00 [+0.50, +1.50] helps", "compatible"],
        ["gc", "-1.00 [-1.50, -0.50] hurts", "+0.00 [-0.50, +0.50] equivalent", "contradict"],
    ]
    assert "n = 8." in table.note


def test_missing_contrasts_are_a_dash_and_missing_pairs_are_named() -> None:
    frame = FRAME.iloc[:3].copy()
    frame.loc[0, ["n", "mean", "low", "high", "verdict"]] = [0, math.nan, math.nan, math.nan, "no verdict"]
    table = protocols_table(frame, MARGINS, TOP1)
    assert [row[1:3] for row in table.rows] == [
        ["no pair", "+1.00 [+0.50, +1.50] helps"],
        ["-1.00 [-1.50, -0.50] hurts", "–"],
    ]
    assert "n = 0 to 8 (common recipe), 8 (best recipe of each)." in table.note


def test_several_baselines_and_assumptions_are_named() -> None:
    frame = FRAME.assign(assumes_normal=True, baseline=["none", "sa", "none", "sa"])
    table = protocols_table(frame, MARGINS | {"common recipe": 0.2}, TOP1)
    assert [row[0] for row in table.rows] == ["sa against none", "gc against sa"]
    assert table.rows[0][1].endswith("undecided †")
    assert "†" in table.note
    assert "0.2 points (common recipe), 1 point (best recipe of each)" in table.note


def test_a_single_protocol_has_no_agreement() -> None:
    table = protocols_table(FRAME.iloc[:2], MARGINS, TOP1)
    assert table.headers == ("contrast", "common recipe")
