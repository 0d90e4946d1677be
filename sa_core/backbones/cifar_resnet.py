"""CIFAR ResNets (He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2).

Three stages of 16, 32 and 64 channels, depth 6n + 2, shortcuts without parameters (option A). Module names are
torchvision's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from sa_core.backbones.attention_block import AttentionBlock
from sa_core.backbones.classifier import Classifier
from sa_core.backbones.insertion_points import Backbone


class CifarBlock(AttentionBlock):
    """Two 3x3 convolutions and a shortcut; maps (B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""

    last_norm = "bn2"

    def __init__(self, in_channels: int, channels: int, stride: int, position: str) -> None:
        super().__init__()
        self.stride, self.added_channels, self.position = stride, channels - in_channels, position
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def convolved(self, x: Tensor) -> Tensor:
        """Two convolutions, with norm and ReLU in between."""
        result: Tensor = self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return result

    def residual(self, x: Tensor) -> Tensor:
        """The convolutions and the last norm."""
        result: Tensor = self.bn2(self.convolved(x))
        return result

    def shortcut(self, x: Tensor) -> Tensor:
        """The input, subsampled, with additional channels of zeros."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.added_channels)) if self.added_channels else x


class CifarResNet(Classifier):
    """A ResNet for small images: maps (B, in_chans, H, W) to logits (B, num_classes)."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        layer1: nn.Module
        layer2: nn.Module
        layer3: nn.Module

    def __init__(self, backbone: Backbone, num_classes: int, position: str, in_chans: int = 3) -> None:
        super().__init__()
        channels = backbone.stages[0].in_channels
        self.conv1 = nn.Conv2d(in_chans, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for index, stage in enumerate(backbone.stages):
            strides = [1 if index == 0 else 2] + [1] * (stage.blocks - 1)
            blocks = []
            for stride in strides:
                blocks.append(CifarBlock(channels, stage.channels, stride, position))
                channels = stage.channels
            self.add_module(stage.name, nn.Sequential(*blocks))
        self.num_features = channels
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps images to the feature map of the last stage, at a fourth of their resolution."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        features: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return features
