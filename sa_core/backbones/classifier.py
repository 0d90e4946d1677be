"""The methods of timm's and torchvision's classifiers that people call: features, head, and a new head."""

# Annotations are evaluated here: torch.fx writes them into the code that it makes, which TorchScript reads.

from typing import TYPE_CHECKING

from torch import Tensor, nn

from sa_core.errors import OptionError


class Classifier(nn.Module):
    """A network that ends in global average pooling and the linear layer `fc`; methods are named as in timm.

    Attributes:
        num_classes: length of the logits; 0 where there is no `fc`, and pooled features come out.
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
        """Maps the last feature map to logits (B, num_classes), or with `pre_logits` to what `fc` gets."""
        pooled = self.pooled(x)
        if pre_logits:
            return pooled
        logits: Tensor = self.fc(pooled)
        return logits

    def pooled(self, x: Tensor) -> Tensor:
        """The mean over the positions of each channel."""
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Classifies images that were normalised to mean 0 and variance 1."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Returns the last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the last layer by an untrained one, or with 0 classes by none.

        Raises:
            OptionError: if another pooling than `avg` is asked for.
        """
        if global_pool not in (None, "avg"):
            raise OptionError("global_pool", global_pool, "is not available", ("avg",))
        where = next(self.parameters())
        layer = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.num_classes, self.fc = num_classes, layer.to(where.device, where.dtype)
