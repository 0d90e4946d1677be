"""torchvision's ResNets and ShuffleNetV2 with a slot for attention in every block.

Blocks are torchvision's own with another `forward`, so names, shapes and initial weights are torchvision's, and those
of the official SA-ResNet where the slot is filled.

For small images there is the CIFAR stem of common practice: in ResNets a 3x3 convolution instead of the 7x7 one, in
ShuffleNetV2 the same convolution, both without stride and without the pooling that follows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.shufflenetv2 import InvertedResidual, ShuffleNetV2, channel_shuffle

from sa_core.backbones.places import Backbone
from sa_core.backbones.slots import SlottedBlock


class _ResidualBlock(SlottedBlock):
    """What torchvision's two residual blocks share."""

    conv1: nn.Module
    bn1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    relu: nn.Module
    downsample: nn.Module | None

    def shortcut(self, x: Tensor) -> Tensor:
        """The input, projected where the shape changes."""
        projected: Tensor = x if self.downsample is None else self.downsample(x)
        return projected


class SlottedBasicBlock(_ResidualBlock, BasicBlock):  # type: ignore[misc]
    """The block of ResNet-18 and ResNet-34."""

    last_norm = "bn2"

    def convolved(self, x: Tensor) -> Tensor:
        """Two 3x3 convolutions, with a norm and a ReLU between."""
        result: Tensor = self.conv2(self.relu(self.bn1(self.conv1(x))))
        return result


class SlottedBottleneck(_ResidualBlock, Bottleneck):  # type: ignore[misc]
    """The block of ResNet-50 and ResNet-101."""

    conv3: nn.Module
    last_norm = "bn3"

    def convolved(self, x: Tensor) -> Tensor:
        """A 1x1, a 3x3 and a 1x1 convolution, with a norm and a ReLU between."""
        out = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.conv3(self.relu(self.bn2(self.conv2(out))))
        return result


class SlottedUnit(SlottedBlock, InvertedResidual):  # type: ignore[misc]
    """The unit of ShuffleNetV2: half of the channels is convolved, the other half kept; both where the map shrinks."""

    stride: int
    branch1: nn.Module
    branch2: nn.Module

    def paths(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Splits the channels, or hands all of them to both paths where the map shrinks."""
        if self.stride > 1:
            return x, x
        kept, convolved = x.chunk(2, dim=1)
        return convolved, kept

    def residual(self, x: Tensor) -> Tensor:
        """A 1x1, a depthwise 3x3 and a 1x1 convolution, each with its norm."""
        result: Tensor = self.branch2(x)
        return result

    def shortcut(self, x: Tensor) -> Tensor:
        """The kept half, convolved where the map shrinks."""
        result: Tensor = self.branch1(x)
        return result

    def join(self, residual: Tensor, shortcut: Tensor) -> Tensor:
        """Concatenates and shuffles."""
        shuffled: Tensor = channel_shuffle(torch.cat((shortcut, residual), dim=1), 2)
        return shuffled


def build(backbone: Backbone, num_classes: int, position: str, stem: str) -> nn.Module:
    """Builds a torchvision backbone with empty slots."""
    units = [stage.blocks for stage in backbone.stages]
    model: nn.Module
    if backbone.family == "resnet":
        block = SlottedBottleneck if backbone.name in ("resnet50", "resnet101") else SlottedBasicBlock
        model = ResNet(block, units, num_classes)
    else:
        widths = [24, *(stage.channels for stage in backbone.stages), 1024]
        model = ShuffleNetV2(units, widths, num_classes, SlottedUnit)
    for module in model.modules():
        if isinstance(module, SlottedBlock):
            module.position = position
    if stem == "cifar":
        _shorten_stem(model)
    return model


def _shorten_stem(model: nn.Module) -> None:
    if isinstance(model, ResNet):
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    else:
        first = model.get_submodule("conv1.0")
        assert isinstance(first, nn.Conv2d)
        first.stride = (1, 1)
    model.maxpool = nn.Identity()
