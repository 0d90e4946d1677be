"""The common interface of timm's classifiers: features, head, and a new head."""

# Annotations are evaluated, not strings: torch.fx copies them into the code that it generates for TorchScript.

from typing import TYPE_CHECKING

from torch import Tensor, nn

from sa_core.errors import OptionError


class Classifier(nn.Module):
    """A network that ends in global average pooling and the linear layer `fc`, with timm's names of methods.

    Attributes:
        num_classes: length of the logits; 0 for a network without `fc`, which returns pooled features.
        num_features: channels of the last feature map.
    """

    if TYPE_CHECKING:  # TorchScript cannot read these
        fc: nn.Module
        num_classes: int
        num_features: int

    def forward_features(self, x: Tensor) -> Tensor:
        """Maps images (B, in_chans, H, W) to the last feature map, (B, num_features, H', W')."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps the last feature map to logits (B, num_classes), or with `pre_logits` to the input of `fc`."""
        pooled = self.pooled(x)
        if pre_logits:
            return pooled
        logits: Tensor = self.fc(pooled)
        return logits

    def pooled(self, x: Tensor) -> Tensor:
        """Global average pooling, (B, C, H, W) to (B, C)."""
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Maps images, normalized to mean 0 and variance 1, to logits."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Returns the last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the last layer by an untrained one, or removes it if `num_classes` is 0.

        Raises:
            OptionError: if `global_pool` is neither None nor `avg`.
        """
        if global_pool not in (None, "avg"):
            raise OptionError("global_pool", global_pool, "is not available", ("avg",))
        parameter = next(self.parameters())
        layer = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.num_classes, self.fc = num_classes, layer.to(parameter.device, parameter.dtype)
