"""SA-ResNet-18 to SA-ResNet-101, with the names of the official code, as classifiers or as backbones of detectors.

State dicts of the official code (wofmanaf/SA-Net) load; those of its detection backbone load with `features_only`.
Needs torchvision.
"""

# Annotations are evaluated, not strings: torch.fx copies them into the code that it generates for TorchScript.

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sa_core.attentions.knobs import AUTO
from sa_core.backbones.create import create_model
from sa_core.errors import OptionError

_LEVELS = (0, 1, 2, 3, 4)


def sa_resnet18(**options: Any) -> nn.Module:
    """Builds SA-ResNet-18, with 16 groups by default; the options are those of `sa_resnet`."""
    return sa_resnet("resnet18", **options)


def sa_resnet34(**options: Any) -> nn.Module:
    """Builds SA-ResNet-34, with 16 groups by default; the options are those of `sa_resnet`."""
    return sa_resnet("resnet34", **options)


def sa_resnet50(**options: Any) -> nn.Module:
    """Builds SA-ResNet-50, with the official 64 groups by default; the options are those of `sa_resnet`."""
    return sa_resnet("resnet50", **options)


def sa_resnet101(**options: Any) -> nn.Module:
    """Builds SA-ResNet-101, with the official 64 groups by default; the options are those of `sa_resnet`."""
    return sa_resnet("resnet101", **options)


def sa_resnet(
    name: str,
    *,
    pretrained: bool = False,
    num_classes: int = 1000,
    in_chans: int = 3,
    groups: int | str = AUTO,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    **options: Any,
) -> nn.Module:
    """Builds a ResNet with shuffle attention at the end of every residual path.

    Args:
        name: `resnet18`, `resnet34`, `resnet50` or `resnet101`.
        pretrained: must be False: there are no weights to download; `load_state_dict` accepts the official ones.
        num_classes: length of the logits; 0 gives pooled features.
        in_chans: channels of the images.
        groups: G, or `auto`: the paper's 64 where it fits, 16 in ResNet-18 and ResNet-34.
        features_only: whether the output is a list of feature maps (see `FeatureMaps`) instead of logits.
        out_indices: indices of the feature maps; by default all.
        **options: options of `create_model`: `stem`, `stages`, `fused`, `fused_block`, `seed` and knobs such as `gate`.

    Raises:
        OptionError (a ValueError): if a value is unknown or does not fit.
        ImportError: if torchvision is not installed.
    """
    if pretrained:
        reason = "is not available: there are no weights to download; load the official ones with load_state_dict"
        raise OptionError("pretrained", True, reason, (False,))
    if out_indices is not None and not features_only:
        raise OptionError("out_indices", out_indices, "has no effect without features_only")
    options |= {"num_classes": num_classes, "in_chans": in_chans, "groups": groups}
    network = create_model(name, attention="sa", **options)
    return FeatureMaps(network, _LEVELS if out_indices is None else out_indices) if features_only else network


class FeatureMaps(nn.Module):
    """A ResNet without head: maps (B, in_chans, H, W) to a list of feature maps, the input of detectors.

    Names of parameters are those of the whole network, and of timm's with `features_only`. Entries of a state dict for
    missing parts, such as the classifier, are ignored.

    Args:
        network: a ResNet; its modules are shared.
        out_indices: 0 is the output of the stem, at half of the images' resolution; 1 to 4 are those of the stages, at
            a fourth to a 32nd. Stages after the last index are removed.

    Raises:
        OptionError (a ValueError): if there is no feature map with such an index.
    """

    if TYPE_CHECKING:  # TorchScript cannot read these
        conv1: nn.Module
        bn1: nn.Module
        relu: nn.Module
        maxpool: nn.Module
        layer1: nn.Module
        layer2: nn.Module
        layer3: nn.Module
        layer4: nn.Module

    def __init__(self, network: nn.Module, out_indices: Sequence[int] = _LEVELS) -> None:
        super().__init__()
        self.out_indices = list(out_indices)
        if not self.out_indices or not set(self.out_indices) <= set(_LEVELS):
            raise OptionError("out_indices", out_indices, "is not a valid choice of feature maps", _LEVELS)
        parts = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
        for part in parts:
            is_used = not part.startswith("layer") or int(part[-1]) <= max(self.out_indices)
            self.add_module(part, network.get_submodule(part) if is_used else nn.Identity())
        self.register_load_state_dict_pre_hook(_without_unused)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the feature maps in the order of `out_indices`."""
        stem = self.relu(self.bn1(self.conv1(x)))
        first = self.layer1(self.maxpool(stem))
        second = self.layer2(first)
        third = self.layer3(second)
        maps = [stem, first, second, third, self.layer4(third)]
        return [maps[index] for index in self.out_indices]


def _without_unused(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Removes the entries of the classifier and of removed stages from a state dict that is being loaded."""
    unused = ["fc", *(name for name, part in module.named_children() if isinstance(part, nn.Identity))]
    for name in list(state_dict):
        if name.startswith(tuple(f"{prefix}{part}." for part in unused)):
            del state_dict[name]


SA_RESNETS: Mapping[str, Any] = {
    function.__name__: function for function in (sa_resnet18, sa_resnet34, sa_resnet50, sa_resnet101)
}
