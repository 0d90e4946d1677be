"""Insertion points, knobs and capacity of a network, from its settings `{"model": {...}, "attention": {...}}`.

The settings are those of a variant, in which `auto` is resolved. Nothing here imports torch.
"""

from __future__ import annotations

from ablations.common.settings import Settings
from sa_core.attentions.capacity import Capacity, capacity_on
from sa_core.attentions.declaration import Knobs
from sa_core.attentions.knobs import ATTENTIONS
from sa_core.backbones.insertion_points import InsertionPoint
from sa_core.backbones.registry import find_backbone

_WHERE = ("name", "stages", "position")  # module and insertion points; all other settings are knobs


def places_of(network: Settings) -> list[InsertionPoint]:
    """Returns the insertion points with attention, in the order of the network; empty without attention."""
    attention = network["attention"]
    if "position" not in attention:
        return []
    return find_backbone(network["model"]["name"]).selected_points(attention["position"], attention["stages"])


def knobs_of(network: Settings) -> Knobs:
    """Returns the knobs of the network's attention."""
    attention = network["attention"]
    return ATTENTIONS[attention["name"]](**{knob: value for knob, value in attention.items() if knob not in _WHERE})


def capacities_of(network: Settings) -> list[Capacity]:
    """Returns the capacity of attention at each width, in the order of the network."""
    knobs, widths = knobs_of(network), dict.fromkeys(point.channels for point in places_of(network))
    return [capacity_on(knobs, width) for width in widths]
