"""The figures of trained networks, with their explanations.

Each function raises UsageError if the study kept no weights, or its images are not available. Drawing modules are
imported late, because they need torch.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ablations.analysis.study import StudyAnalysis
from ablations.common.wording import count
from ablations.reporting.figures.sketch import Sketch

if TYPE_CHECKING:
    from ablations.analysis.networks import TrainedNetworks

_OF_EACH = "one network of each variant (replicate 0)"


def gates_sketch(analysis: StudyAnalysis) -> Sketch | str:
    """Returns the gates by stage and class, or the reason if no network has gates."""
    from ablations.reporting.figures import gates

    networks = analysis.networks
    frame = gates.gates_frame(networks)
    if frame.empty:
        return "no variant with saved weights has shuffle attention with gates"
    key = (
        "Thick line: interquartile range of the gates; thin line: 5 to 95 %; dot: median; dashed: initial value. "
        "Percentages: share of the gates' variance over images that lies between classes, corrected for chance."
    )
    draw = partial(gates.draw_gates, frame)
    return Sketch(frame, draw, key + _unread(networks), _looked_at(networks), asks=False, unread=networks.unread)


def subfeatures_sketch(analysis: StudyAnalysis) -> Sketch | str:
    """Returns the top-1 of each sub-feature, or the reason if no network has sub-features."""
    from ablations.reporting.figures import subfeatures

    networks = analysis.networks
    frame = subfeatures.subfeatures_frame(networks)
    if frame.empty:
        return "no variant with saved weights has shuffle attention in the stage before the classifier"
    key = (
        "Score of a sub-feature: top-1 accuracy of the logits that its channels alone contribute; in networks "
        "without shuffle attention, of the same channels."
    )
    draw = partial(subfeatures.draw_subfeatures, frame, len(networks.classes))
    return Sketch(frame, draw, key + _unread(networks), _looked_at(networks), asks=False, unread=networks.unread)


def cams_sketch(analysis: StudyAnalysis) -> Sketch:
    """Returns class activation maps of variants side by side."""
    from ablations.reporting.figures import cams

    networks = analysis.networks
    found = cams.cams_of(networks)
    key = (
        "Grad-CAM (Selvaraju et al. 2017) of the true class at the last feature map, for the first test image of "
        "each class shown; below each image the predicted class and the probability of the true class."
    )
    draw = partial(cams.draw_cams, found)
    return Sketch(found.frame, draw, key + _unread(networks), _OF_EACH, asks=False, unread=networks.unread)


def _unread(networks: TrainedNetworks) -> str:
    """Returns a clause on variants with unreadable weights; empty if there are none."""
    return f" Left out (unreadable files): {', '.join(networks.unread)}." if networks.unread else ""


def _looked_at(networks: TrainedNetworks) -> str:
    return f"{_OF_EACH}, {count(len(networks.sample), 'test image')}"
