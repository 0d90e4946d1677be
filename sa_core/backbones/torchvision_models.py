"""torchvision's ResNets and ShuffleNetV2 with an insertion point for attention in every block.

Blocks are subclasses of torchvision's with another `forward`, so names, shapes and initial weights are torchvision's,
and with shuffle attention those of the official SA-ResNet.

The CIFAR stem for small images has stride 1 and no pooling; in ResNets its convolution is 3x3 instead of 7x7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.shufflenetv2 import InvertedResidual, ShuffleNetV2, channel_shuffle

from sa_core.backbones.attention_block import AttentionBlock
from sa_core.backbones.classifier import Classifier
from sa_core.backbones.insertion_points import Backbone


class _ResidualBlock(AttentionBlock):
    """Common base of torchvision's two residual blocks."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        conv1: nn.Module
        bn1: nn.Module
        conv2: nn.Module
        bn2: nn.Module
        relu: nn.Module
        downsample: nn.Module | None

    def shortcut(self, x: Tensor) -> Tensor:
        """The input, projected if the shape changes."""
        if self.downsample is not None:
            x = self.downsample(x)
        return x


class AttentionBasicBlock(_ResidualBlock, BasicBlock):  # type: ignore[misc]
    """The block of ResNet-18 and ResNet-34."""

    last_norm = "bn2"

    def convolved(self, x: Tensor) -> Tensor:
        """Two 3x3 convolutions, with norm and ReLU in between."""
        result: Tensor = self.conv2(self.relu(self.bn1(self.conv1(x))))
        return result

    def residual(self, x: Tensor) -> Tensor:
        """The convolutions and the last norm."""
        result: Tensor = self.bn2(self.convolved(x))
        return result


class AttentionBottleneck(_ResidualBlock, Bottleneck):  # type: ignore[misc]
    """The block of ResNet-50 and ResNet-101."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        conv3: nn.Module
        bn3: nn.Module
    last_norm = "bn3"

    def convolved(self, x: Tensor) -> Tensor:
        """A 1x1, a 3x3 and a 1x1 convolution, with norm and ReLU in between."""
        out = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.conv3(self.relu(self.bn2(self.conv2(out))))
        return result

    def residual(self, x: Tensor) -> Tensor:
        """The convolutions and the last norm."""
        result: Tensor = self.bn3(self.convolved(x))
        return result


class AttentionUnit(AttentionBlock, InvertedResidual):  # type: ignore[misc]
    """The unit of ShuffleNetV2: convolves half of the channels; a unit with a stride convolves all on both paths."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        stride: int
        branch1: nn.Module
        branch2: nn.Module

    def paths(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the halves of the channels, or with a stride all channels twice."""
        if self.stride > 1:
            return x, x
        kept, convolved = x.chunk(2, dim=1)
        return convolved, kept

    def residual(self, x: Tensor) -> Tensor:
        """A 1x1, a depthwise 3x3 and a 1x1 convolution, each with its norm."""
        result: Tensor = self.branch2(x)
        return result

    def shortcut(self, x: Tensor) -> Tensor:
        """The half that is not convolved, or with a stride a second path of convolutions."""
        result: Tensor = self.branch1(x)
        return result

    def join(self, residual: Tensor, shortcut: Tensor) -> Tensor:
        """Concatenates both paths and shuffles the channels."""
        shuffled: Tensor = channel_shuffle(torch.cat((shortcut, residual), dim=1), 2)
        return shuffled


class AttentionResNet(Classifier, ResNet):  # type: ignore[misc]
    """torchvision's ResNet, with the `feature_info` that timm needs to extract feature maps."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        conv1: nn.Module
        bn1: nn.Module
        relu: nn.Module
        maxpool: nn.Module
        layer1: nn.Module
        layer2: nn.Module
        layer3: nn.Module
        layer4: nn.Module
        avgpool: nn.Module

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], backbone: Backbone, num_classes: int) -> None:
        super().__init__(block, [stage.blocks for stage in backbone.stages], max(num_classes, 1))
        self.feature_info = [{"num_chs": 64, "reduction": 2, "module": "relu"}] + [
            {"num_chs": stage.channels, "reduction": 2 ** (number + 1), "module": stage.name}
            for number, stage in enumerate(backbone.stages, start=1)
        ]
        _name_head(self, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps images to the feature map of the last stage, at a 32nd of their resolution."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return features

    def pooled(self, x: Tensor) -> Tensor:
        """Global average pooling, (B, C, H, W) to (B, C)."""
        return torch.flatten(self.avgpool(x), 1)


class AttentionShuffleNet(Classifier, ShuffleNetV2):  # type: ignore[misc]
    """torchvision's ShuffleNetV2."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        conv1: nn.Module
        maxpool: nn.Module
        stage2: nn.Module
        stage3: nn.Module
        stage4: nn.Module
        conv5: nn.Module

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        widths = [24, *(stage.channels for stage in backbone.stages), 1024]
        super().__init__([stage.blocks for stage in backbone.stages], widths, max(num_classes, 1), AttentionUnit)
        _name_head(self, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps images to the feature map of the last convolution, at a 32nd of their resolution."""
        x = self.maxpool(self.conv1(x))
        features: Tensor = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        return features


def _name_head(model: Classifier, num_classes: int) -> None:
    """Sets the attributes of `Classifier`; removes the last layer if `num_classes` is 0."""
    assert isinstance(model.fc, nn.Linear)
    model.num_features, model.num_classes = model.fc.in_features, num_classes
    if not num_classes:
        model.reset_classifier(0)


def build(backbone: Backbone, num_classes: int, position: str, stem: str, in_chans: int = 3) -> nn.Module:
    """Builds a torchvision backbone with empty insertion points."""
    model: nn.Module
    if backbone.family == "resnet":
        block = AttentionBottleneck if backbone.name in ("resnet50", "resnet101") else AttentionBasicBlock
        model = AttentionResNet(block, backbone, num_classes)
    else:
        model = AttentionShuffleNet(backbone, num_classes)
    for module in model.modules():
        if isinstance(module, AttentionBlock):
            module.position = position
    if stem == "cifar":
        _shorten_stem(model)
    if in_chans != 3:
        _widen_stem(model, in_chans)
    return model


def _widen_stem(model: nn.Module, in_chans: int) -> None:
    """Replaces the first convolution by one with `in_chans` input channels, initialised in the same way."""
    path = "conv1" if isinstance(model, ResNet) else "conv1.0"
    old: Any = model.get_submodule(path)
    new = nn.Conv2d(in_chans, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False)
    if isinstance(model, ResNet):
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    model.set_submodule(path, new)


def _shorten_stem(model: nn.Module) -> None:
    if isinstance(model, ResNet):
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    else:
        first = model.get_submodule("conv1.0")
        assert isinstance(first, nn.Conv2d)
        first.stride = (1, 1)
    model.maxpool = nn.Identity()
