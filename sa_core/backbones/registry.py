"""Backbones by name, from the tables of their papers. Imports torch only for the models of timm."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sa_core.backbones.insertion_points import STEMS, TIMM, Backbone, Stage
from sa_core.errors import OptionError, needed


def _cifar_resnet(depth: int) -> Backbone:
    """Returns a CIFAR ResNet of depth 6n + 2 (He et al. 2015, section 4.2)."""
    blocks = (depth - 2) // 6
    widths = ((16, 16), (16, 32), (32, 64))
    stages = tuple(Stage(f"layer{i}", *width, blocks) for i, width in enumerate(widths, start=1))
    return Backbone(f"resnet{depth}", "cifar_resnet", stages)


def _resnet(depth: int, blocks: tuple[int, ...], expansion: int) -> Backbone:
    """Returns a ResNet for ImageNet (He et al. 2015, table 1)."""
    widths = [64, *(64 * 2**stage * expansion for stage in range(4))]
    stages = tuple(Stage(f"layer{i + 1}", widths[i], widths[i + 1], count) for i, count in enumerate(blocks))
    return Backbone(f"resnet{depth}", "resnet", stages, STEMS)


def _shufflenet(name: str, widths: tuple[int, int, int]) -> Backbone:
    """Returns a ShuffleNetV2 (Ma et al. 2018, table 5)."""
    ins = (24, *widths[:2])
    rows = zip((2, 3, 4), ins, widths, (4, 8, 4), strict=True)
    stages = tuple(Stage(f"stage{i}", before, after, units) for i, before, after, units in rows)
    return Backbone(name, "shufflenet", stages, STEMS)


BACKBONES: Mapping[str, Backbone] = MappingProxyType(
    {
        backbone.name: backbone
        for backbone in (
            *(_cifar_resnet(depth) for depth in (8, 20, 32, 56)),
            _resnet(18, (2, 2, 2, 2), 1),
            _resnet(34, (3, 4, 6, 3), 1),
            _resnet(50, (3, 4, 6, 3), 4),
            _resnet(101, (3, 4, 23, 3), 4),
            _shufflenet("shufflenet_v2_x0_5", (48, 96, 192)),
            _shufflenet("shufflenet_v2_x1_0", (116, 232, 464)),
        )
    }
)


def find_backbone(name: str) -> Backbone:
    """Returns a backbone by name; for `timm/<name>`, a model of timm, it imports timm, which takes seconds.

    Raises:
        OptionError: if the name is unknown, or the blocks of the timm model do not accept `attn_layer`.
    """
    if name.startswith(TIMM):
        with needed("timm", name):
            from sa_core.backbones.timm_models import find_timm_backbone

        return find_timm_backbone(name)
    if name not in BACKBONES:
        raise OptionError("model", name, "unknown backbone", (*BACKBONES, f"{TIMM}<name>"))
    return BACKBONES[name]
