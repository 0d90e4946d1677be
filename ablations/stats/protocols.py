"""Verdicts over several protocols whose studies were judged separately, each with interim analyses.

`judge_together` judges protocols as one family. With interim analyses each study decides separately when a contrast
gets no more replicates, so a joint analysis is not possible. Instead the p-values of the studies, which are valid under
their interim analyses, are corrected for the number of protocols (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ablations.stats.family import Inference
from ablations.stats.verdicts import Contrast, Verdict, decide, sign_of


def corrected_for_protocols(contrasts: Sequence[Contrast], protocols: int, metric: str) -> list[Contrast]:
    """Returns the contrasts of one study with p-values corrected for the number of protocols (Bonferroni).

    `metric` is a key of `METRICS`. A verdict that does not survive the correction becomes undecided.
    """
    better = sign_of(metric)
    return [_corrected(contrast, protocols, better) for contrast in contrasts]


def _corrected(contrast: Contrast, protocols: int, better: float) -> Contrast:
    p, p_equivalence = (
        None if known is None else min(1.0, protocols * known) for known in (contrast.p, contrast.p_equivalence)
    )
    contrast = replace(contrast, p=p, p_equivalence=p_equivalence)
    if contrast.verdict not in (Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT):
        return contrast
    tested = Inference(
        np.empty(0),
        contrast.difference,
        1.0 if p is None else p,
        1.0 if p_equivalence is None else p_equivalence,
        0.0,
        contrast.assumes_normal,
    )
    verdict = decide(tested, better, contrast.lost + sum(one.strays for one in contrast.stabilities))
    return replace(contrast, verdict=verdict)
