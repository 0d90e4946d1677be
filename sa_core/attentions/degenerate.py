"""Detects attention modules that cannot work as intended, by running them on random feature maps.

    findings = find_degenerate(module, (channels, height, width))
    shapes = map_shapes(network, ["layer1.0.sa"], images)  # input shapes of modules in a network

Many modules are constant at initialisation: shuffle attention starts with gates of sigmoid(1), and GC adds 0. The
check therefore adds noise to the parameters of a copy, and reports what holds in several random draws.
`sa_core.attentions.findings` defines the findings; `Knobs.meant_degenerate` lists the intended ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from sa_core.attentions.findings import (
    CONSTANT_GATE,
    INPUT_INDEPENDENT,
    NO_GRADIENT,
    SINGLE_HIDDEN_UNIT,
    SINGLE_VALUE_NORM,
    Finding,
)
from sa_core.attentions.shuffle_attention import ShuffleAttention

_DRAWS = 3  # of parameters and maps; a chance event, such as a ReLU that is dead for one batch, does not repeat
SIDE = 4  # maximum height and width of the maps: no finding depends on more positions
_IMAGES, _SAMPLES = 8, 64  # minimum number of images, and of values per channel
_ROUNDING = 1e-11  # relative rounding error of float64 in a difference that is 0
_MATCHED = 16  # values per channel by which an output channel is matched to an input channel


def find_degenerate(module: nn.Module, shape: tuple[int, int, int]) -> list[Finding]:
    """Returns the ways in which a module is degenerate on feature maps of a given shape.

    Works on a copy; module and torch's random generators stay unchanged. Maps have at most 4 x 4 positions.

    Args:
        module: maps (B, C, H, W) to (B, C, H, W).
        shape: C, H and W of its input.
    """
    channels, height, width = shape
    size = (channels, min(height, SIDE), min(width, SIDE))
    found = []
    with torch.random.fork_rng(devices=[]):
        draw = _Draw(module, size, seed=0)
        constant, untrained = draw.constant_channels, draw.without_gradient
        for seed in range(1, _DRAWS):
            if constant or untrained:
                next_draw = _Draw(module, size, seed)
                constant = constant & next_draw.constant_channels
                untrained = [name for name in untrained if name in next_draw.without_gradient]
        if constant:
            is_all = len(constant) == channels
            found.append(Finding(INPUT_INDEPENDENT) if is_all else Finding(CONSTANT_GATE, channels=len(constant)))
        found += [Finding(SINGLE_VALUE_NORM, name) for name in draw.single_value_norms]
        found += [Finding(SINGLE_HIDDEN_UNIT, name) for name in _hidden_layers_of_one_unit(module, channels)]
        found += [Finding(NO_GRADIENT, name) for name in untrained]
        if not untrained and _is_stuck(module, size):
            found.append(Finding(NO_GRADIENT))
    return found


def map_shapes(network: nn.Module, paths: Iterable[str], images: Tensor) -> dict[str, tuple[int, int, int]]:
    """Returns C, H and W of the inputs of the modules at `paths` in a forward pass of `images` (B, 3, H, W).

    Works on the meta device, too, where nothing is computed.
    """
    shapes: dict[str, tuple[int, int, int]] = {}

    def record(path: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        del module
        _, channels, height, width = inputs[0].shape
        shapes[path] = channels, height, width

    handles = [network.get_submodule(path).register_forward_pre_hook(partial(record, path)) for path in paths]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


class _Draw:
    """Observations of a module with noisy parameters on random maps.

    Attributes:
        constant_channels: output channels that are a fixed affine function of one input channel, for all images.
        single_value_norms: names of norms that normalise a single value.
        without_gradient: names of the parameters that require a gradient and have none, or one of 0.
    """

    def __init__(self, module: nn.Module, size: tuple[int, int, int], seed: int) -> None:
        twin = _with_noise(_copied(module).double(), torch.Generator().manual_seed(seed))
        maps = _maps(size, seed)
        self.single_value_norms: list[str] = []
        for name, layer in twin.named_modules():
            layer.register_forward_pre_hook(partial(_record_single_value_norm, self.single_value_norms, name))
        self.constant_channels: set[int] = set()
        self.without_gradient: list[str] = []
        try:
            out = twin(maps.clone())
        except ValueError:  # some of torch's norms raise it for a single value
            if not self.single_value_norms:
                raise
            return
        self.constant_channels = _constant_channels(maps, out.detach())
        self.without_gradient = _without_gradient(twin, out, _maps(size, seed + _DRAWS))


def _copied(module: nn.Module) -> nn.Module:
    """Returns a copy on the CPU, in training mode, without kernels, so that hooks of all layers fire."""
    twin = copy.deepcopy(module).cpu().train()
    for part in twin.modules():
        if isinstance(part, ShuffleAttention):
            part.fuse("off")
    return twin


def _with_noise(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Adds noise to the parameters, scaled so that activations stay of order 1 and gates do not saturate."""
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter.numel() // len(parameter) if parameter.ndim > 1 else 1
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise / max(fan_in, 1) ** 0.5)
    return module


@lru_cache(16)
def _maps(size: tuple[int, int, int], seed: int) -> Tensor:
    """Draws maps with a random mean per image and channel, so that pooled values differ between images."""
    (channels, height, width), generator = size, torch.Generator().manual_seed(seed)
    images = max(_IMAGES, -(-_SAMPLES // (height * width)))
    maps = torch.randn(images, channels, height, width, generator=generator, dtype=torch.float64)
    return maps + 2 * torch.randn(images, channels, 1, 1, generator=generator, dtype=torch.float64)


def _record_single_value_norm(names: list[str], name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Appends the name of a norm to `names` if it normalises over a single value."""
    is_single = False
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        is_single = torch.Size(layer.normalized_shape).numel() == 1
    elif isinstance(layer, nn.GroupNorm):
        is_single = inputs[0][0].numel() == layer.num_groups
    elif isinstance(layer, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d):
        is_single = inputs[0][0, 0].numel() == 1
    if is_single and name not in names:
        names.append(name)


def _constant_channels(maps: Tensor, out: Tensor) -> set[int]:
    """Returns the output channels that equal a x + b for an input channel x and fixed a and b."""
    x, y = (values.transpose(0, 1).flatten(1) for values in (maps, out))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    # A few values select the candidate input channel by correlation; all values decide.
    few_x, few_y = (values[:, :: max(1, values.shape[1] // _MATCHED)].float() for values in (x, y))
    few_x, few_y = (nn.functional.normalize(values - values.mean(1, keepdim=True)) for values in (few_x, few_y))
    matched = x[(few_y @ few_x.T).abs().argmax(1)]
    slope = (y * matched).sum(1, keepdim=True) / matched.square().sum(1, keepdim=True)
    rest, scale = (y - slope * matched).abs().amax(1), out.abs().amax((0, 2, 3))
    return set((rest <= _ROUNDING * scale).nonzero().flatten().tolist())


def _without_gradient(module: nn.Module, out: Tensor, upstream: Tensor) -> list[str]:
    """Returns the names of the parameters with no gradient, or one of 0, given the gradient of the output."""
    parameters = {name: value for name, value in module.named_parameters() if value.requires_grad}
    if not parameters:
        return []
    if not out.requires_grad:
        return list(parameters)
    gradients = torch.autograd.grad(out, list(parameters.values()), upstream.to(out.dtype), allow_unused=True)
    largest = max((float(gradient.abs().max()) for gradient in gradients if gradient is not None), default=0.0)
    return [
        name
        for name, gradient in zip(parameters, gradients, strict=True)
        if gradient is None or float(gradient.abs().max()) <= _ROUNDING * largest
    ]


def _is_stuck(module: nn.Module, size: tuple[int, int, int]) -> bool:
    """Returns whether no parameter has a gradient at initialisation, in the precision of the module."""
    twin = _copied(module)
    parameters = [value for value in twin.parameters() if value.requires_grad]
    if not parameters:
        return False
    try:
        out = twin(_maps(size, seed=0).to(parameters[0].dtype, copy=True))
    except ValueError:  # raised by a norm over a single value, which is reported already
        return False
    return len(_without_gradient(twin, out, _maps(size, seed=_DRAWS))) == len(parameters)


def _hidden_layers_of_one_unit(module: nn.Module, channels: int) -> list[str]:
    """Returns the names of the layers that compute one number per image and precede another layer.

    Always uses maps of 4 x 4 positions: with a single position every one-channel map would count.
    """
    twin = _copied(module).double()
    called: list[tuple[str, bool]] = []

    def record(name: str, layer: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
        del layer, inputs
        called.append((name, out.numel() == len(maps)))

    for name, layer in twin.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            layer.register_forward_hook(partial(record, name))
    maps = _maps((channels, SIDE, SIDE), seed=0).clone()
    with torch.no_grad():
        twin(maps)
    return list(dict.fromkeys(name for name, is_single in called[:-1] if is_single))
