"""Builds networks by name, with attention modules by name in their blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from sa_core.attentions.knobs import ATTENTIONS, AUTO, GroupedKnobs, ShuffleAttentionKnobs, automatic_groups
from sa_core.attentions.registry import ATTENTION
from sa_core.attentions.shuffle_attention import ShuffleAttention
from sa_core.backbones.attention_block import AttentionBlock
from sa_core.backbones.insertion_points import Backbone, InsertionPoint
from sa_core.backbones.registry import find_backbone
from sa_core.errors import OptionError, needed
from sa_core.fused import FUSED
from sa_core.seeds import stream_seed


def create_model(
    name: str,
    *,
    attention: str = "none",
    num_classes: int = 10,
    in_chans: int = 3,
    stem: str | None = None,
    stages: str = "all",
    position: str = "residual",
    seed: int | None = None,
    fused: str = "auto",
    fused_block: bool = False,
    **knobs: Any,
) -> nn.Module:
    """Builds a backbone with attention in its blocks.

    The plain backbone is built first; attention has a separate random stream. Two networks with the same `seed` that
    differ only in attention therefore start from identical backbone weights.

    Args:
        name: a name from `sa_core.backbones.registry.BACKBONES` (CIFAR ResNets, torchvision's ResNets and
            ShuffleNetV2), or `timm/<name>` for a model of timm whose blocks accept `attn_layer`.
        attention: a name from `sa_core.ATTENTION`.
        num_classes: length of the logits; 0 gives pooled features.
        in_chans: channels of the images.
        stem: first layers of a torchvision model: `imagenet` (the default), or `cifar` (for images up to 64 pixels).
        stages: stages with attention: `all`, `first`, `last`, or numbers, such as `2+3`.
        position: insertion point in a block: `residual`, `pre`, `post` or `shortcut` (see `insertion_points.py`).
        seed: seed of the initial weights; None draws one from torch's global generator.
        fused: `fused` of every `ShuffleAttention`.
        fused_block: whether residual blocks compute their last batch norm, shuffle attention (or none), addition and
            ReLU in one pass where `sa_core.fused` supports it; parameters, buffers and their names stay the same.
        **knobs: options of the attention module, such as `groups=8`, or `"auto"` to scale 64 to the backbone's width.

    Raises:
        OptionError (a ValueError): if a name is unknown or the knobs do not fit an insertion point (named in the text).
        TypeError: if the attention module has no such knob.
        ImportError: if the backbone needs torchvision or timm, or the attention module timm, and it is not installed.
    """
    if attention not in ATTENTION:
        raise OptionError("attention", attention, "is not a valid choice", ATTENTION)
    backbone = find_backbone(name)
    _check_stem(backbone, stem)
    _check_fused(backbone, attention, position, fused, fused_block)
    _check_names(attention, knobs)
    insertion_points = backbone.selected_points(position, stages)
    knobs |= _automatic(attention, knobs.get("groups"), backbone, insertion_points)
    seed = int(torch.randint(2**62, (), device="cpu").item()) if seed is None else seed
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's only; torch.manual_seed would reseed GPUs, too
        model = _build_plain(backbone, num_classes, position, stem or "imagenet", in_chans)
        torch.default_generator.manual_seed(stream_seed(seed, "attention"))
        _insert(model, attention, knobs, insertion_points, name)
    for module in model.modules():
        if isinstance(module, ShuffleAttention):
            module.fuse(fused)
        elif isinstance(module, AttentionBlock):
            module.fused = fused_block
    return model


def _check_stem(backbone: Backbone, stem: str | None) -> None:
    if stem is not None and stem not in backbone.stems:
        reason = "is not a valid choice" if backbone.stems else f"is not available: {backbone.name} has its own stem"
        raise OptionError("stem", stem, reason, backbone.stems)


def _check_names(attention: str, knobs: Iterable[str]) -> None:
    known = [declared.name for declared in fields(ATTENTIONS[attention])]
    if unknown := sorted(set(knobs) - set(known)):
        raise TypeError(
            f"attention={attention} has no option {', '.join(unknown)}; its options: {', '.join(known) or 'none'}"
        )


def _automatic(
    attention: str, groups: object, backbone: Backbone, insertion_points: Sequence[InsertionPoint]
) -> dict[str, Any]:
    """Returns the knobs that groups=auto resolves to."""
    declared = ATTENTIONS[attention]
    if groups != AUTO or not issubclass(declared, GroupedKnobs):
        return {}
    usual = (point.channels for point in backbone.insertion_points())
    return automatic_groups(declared, usual, (point.channels for point in insertion_points))


def _insert(
    model: nn.Module, attention: str, knobs: dict[str, Any], insertion_points: Sequence[InsertionPoint], name: str
) -> None:
    """Fills the insertion points of a model with attention; an error names the insertion point that does not fit."""
    for point in insertion_points:
        try:
            model.set_submodule(point.path, ATTENTION[attention](point.channels, **knobs))
        except OptionError as error:
            reason = f"{error.reason} (at {point.path} of {name})"
            raise OptionError(error.option, error.value, reason, error.choices) from None


def _check_fused(backbone: Backbone, attention: str, position: str, fused: str, fused_block: bool) -> None:
    if fused not in FUSED:
        raise OptionError("fused", fused, "is not a valid choice", FUSED)
    if not fused_block:
        return
    reason = None
    if backbone.family not in ("cifar_resnet", "resnet"):
        reason = f"is not available: the blocks of {backbone.name} do not end in a batch norm, an addition and a ReLU"
    elif not issubclass(ATTENTIONS[attention], ShuffleAttentionKnobs) and attention not in ("none", "identity"):
        reason = f"is not available: there is no kernel for a block with attention={attention}"
    elif position != "residual":
        reason = f"is not available: with position={position} attention is not at the end of the residual branch"
    elif fused == "off":
        reason = "is not available with fused=off"
    if reason:
        raise OptionError("fused_block", True, reason, (False,))


def _build_plain(backbone: Backbone, num_classes: int, position: str, stem: str, in_chans: int) -> nn.Module:
    """Builds a backbone with empty insertion points; imports timm and torchvision, which take seconds, on demand."""
    if backbone.family == "cifar_resnet":
        from sa_core.backbones.cifar_resnet import CifarResNet

        return CifarResNet(backbone, num_classes, position, in_chans)
    if backbone.family == "timm":
        from sa_core.backbones import timm_models

        return timm_models.build(backbone.name, num_classes, in_chans)
    with needed("torchvision", backbone.name):
        from sa_core.backbones import torchvision_models

    return torchvision_models.build(backbone, num_classes, position, stem, in_chans)
