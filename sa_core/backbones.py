"""Backbones, and where in a block attention sits.

CIFAR ResNets are those of He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2: three stages of
16, 32 and 64 channels, depth 6n + 2, shortcuts without parameters (option A). Their module names are torchvision's.
Attention sits where SA-Net puts it: after a block's last norm, before the addition. Its slot is named `sa`, as in
the official SA-ResNet, so that the official state-dict names hold.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sa_core.attention import ATTENTION
from sa_core.catalog import BACKBONES, Stage
from sa_core.seeds import stream_seed


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.grown = stride, channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.sa: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Adds the block's attended residual to its shortcut."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.sa(self.bn2(self.conv2(out)))
        return F.relu(out + self._shortcut(x), inplace=True)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.grown)) if self.grown else x


class CifarResNet(nn.Module):
    """A ResNet for small images: (B, 3, H, W) to logits (B, num_classes)."""

    def __init__(self, stages: tuple[Stage, ...], num_classes: int) -> None:
        super().__init__()
        channels = stages[0].channels
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for index, stage in enumerate(stages):
            strides = [1 if index == 0 else 2] + [1] * (stage.blocks - 1)
            blocks = []
            for stride in strides:
                blocks.append(BasicBlock(channels, stage.channels, stride))
                channels = stage.channels
            self.add_module(stage.name, nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, num_classes)
        self.stages = stages
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Classifies images that were normalised to mean 0 and variance 1."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        for stage in self.stages:
            x = self.get_submodule(stage.name)(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def create_model(
    name: str, *, attention: str = "none", num_classes: int = 10, seed: int | None = None, **knobs: Any
) -> nn.Module:
    """Builds a backbone and puts attention after the last norm of each of its blocks.

    The plain backbone is built first, then attention is inserted from a random stream of its own: with the same
    `seed`, two networks that differ in attention alone start from identical backbone weights.

    Args:
        name: `resnet8`, `resnet20`, `resnet32` or `resnet56`.
        attention: a name from `sa_core.ATTENTION`.
        num_classes: length of the logits.
        seed: of the initial weights; None draws one from torch's global generator.
        **knobs: of the attention module, as `groups=8`.

    Raises:
        ValueError: if a name is unknown or the knobs do not fit a stage's channels; the message names the stage.
        TypeError: if the attention module has no such knob.
    """
    if name not in BACKBONES:
        raise ValueError(f"there is no model {name!r}; valid: {', '.join(BACKBONES)}")
    if attention not in ATTENTION:
        raise ValueError(f"there is no attention {attention!r}; valid: {', '.join(ATTENTION)}")
    if seed is None:
        seed = int(torch.randint(2**62, ()).item())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone; torch.manual_seed would reseed GPUs too
        model = CifarResNet(BACKBONES[name], num_classes)
        torch.default_generator.manual_seed(stream_seed(seed, "attention"))
        _insert_attention(model, attention, knobs)
    return model


def _insert_attention(model: CifarResNet, attention: str, knobs: dict[str, Any]) -> None:
    for stage in model.stages:
        for block in model.get_submodule(stage.name).children():
            try:
                block.sa = ATTENTION[attention](stage.channels, **knobs)
            except ValueError as error:
                raise ValueError(f"stage {stage.name}: {error}") from None
