"""The options of the backbone."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.common.sizes import SMALL_SIDE
from ablations.config.option import option
from sa_core.backbones.places import STEMS


@dataclass
class ModelConfig:
    """The backbone."""

    name: str = option("resnet8", "Backbone.")
    stem: str = option(
        "auto",
        "First layers of a torchvision backbone; auto is cifar (no stride, no pooling) for images of up to "
        f"{SMALL_SIDE} pixels.",
        choices=("auto", *STEMS),
    )
