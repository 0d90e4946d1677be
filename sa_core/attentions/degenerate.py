"""Finds attention modules that cannot do what they are there for, by what they do with random feature maps.

    findings = find_degenerate(module, (channels, height, width))
    shapes = map_shapes(network, ["layer1.0.sa"], images)  # what a module in a network is called with

Many modules are constant at initialisation: shuffle attention starts with gates of sigmoid(1), and GC adds 0. So the
parameters are disturbed by random numbers, in a copy, and a finding is what holds under several such disturbances.
`sa_core.attentions.findings` defines the findings; a module's knobs say which of them are meant (`meant_degenerate`).
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

_DRAWS = 3  # of parameters and maps; chance alone, as a ReLU that is dead for a batch, does not repeat
SIDE = 4  # of the maps, at most: no finding depends on more positions
_IMAGES, _SAMPLES = 8, 64  # at least so many images, and so many values of each channel
_ROUNDING = 1e-11  # what float64 leaves of a difference that is 0, relative to the values
_MATCHED = 16  # values of each channel that an output channel is matched to an input channel by

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def find_degenerate(module: nn.Module, shape: tuple[int, int, int]) -> list[Finding]:
    """Returns in which ways a module is degenerate on feature maps of a shape.

    The module is copied, and left as it is; torch's random generators are, too. Maps are cut to 4 x 4 positions.

    Args:
        module: maps (B, C, H, W) to (B, C, H, W).
        shape: C, H and W of the maps that it gets.
    """
    channels, height, width = shape
    size = (channels, min(height, SIDE), min(width, SIDE))
    found = []
    with torch.random.fork_rng(devices=[]):
        draw = _Draw(module, size, seed=0)
        constant, without = draw.constant_channels, draw.without_gradient
        for seed in range(1, _DRAWS):
            if constant or without:
                other = _Draw(module, size, seed)
                constant = constant & other.constant_channels
                without = [name for name in without if name in other.without_gradient]
        if constant:
            is_all = len(constant) == channels
            found.append(Finding(INPUT_INDEPENDENT) if is_all else Finding(CONSTANT_GATE, channels=len(constant)))
        found += [Finding(SINGLE_VALUE_NORM, name) for name in draw.single_value_norms]
        found += [Finding(SINGLE_HIDDEN_UNIT, name) for name in _hidden_layers_of_one_unit(module, channels)]
        found += [Finding(NO_GRADIENT, name) for name in without]
        if not without and _is_stuck(module, size):
            found.append(Finding(NO_GRADIENT))
    return found


def map_shapes(network: nn.Module, paths: Iterable[str], images: Tensor) -> dict[str, tuple[int, int, int]]:
    """Returns C, H and W of the feature maps that the modules at these paths get when a network sees images.

    Works on the meta device, too, where it computes nothing. `images` are (B, 3, H, W).
    """
    shapes: dict[str, tuple[int, int, int]] = {}

    def note(path: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        del module
        _, channels, height, width = inputs[0].shape
        shapes[path] = channels, height, width

    handles = [network.get_submodule(path).register_forward_pre_hook(partial(note, path)) for path in paths]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


class _Draw:
    """What a module does with random maps when its parameters are disturbed at random.

    Attributes:
        constant_channels: output channels that are a fixed affine function of one input channel, for all images.
        single_value_norms: names of norms that were called with one value to normalise.
        without_gradient: names of the parameters that require a gradient and got none, or one of 0.
    """

    def __init__(self, module: nn.Module, size: tuple[int, int, int], seed: int) -> None:
        twin = _disturbed(_copied(module).double(), torch.Generator().manual_seed(seed))
        maps = _maps(size, seed)
        norms: dict[str, bool] = {}
        for name, layer in twin.named_modules():
            layer.register_forward_pre_hook(partial(_note_norm, norms, name))
        self.constant_channels: set[int] = set()
        self.without_gradient: list[str] = []
        try:
            out = twin(maps.clone())
        except ValueError:  # as some of torch's norms refuse a single value
            self.single_value_norms = [name for name, is_single in norms.items() if is_single]
            if not self.single_value_norms:
                raise
            return
        self.single_value_norms = [name for name, is_single in norms.items() if is_single]
        self.constant_channels = _constant_channels(maps, out.detach())
        self.without_gradient = _without_gradient(twin, out, _maps(size, seed + _DRAWS))


def _copied(module: nn.Module) -> nn.Module:
    """Returns a copy on the CPU, in training mode, whose layers are all called."""
    twin = copy.deepcopy(module).cpu().train()
    for part in twin.modules():
        if isinstance(part, ShuffleAttention):
            part.fuse("off")
    return twin


def _disturbed(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Adds noise to the parameters, such that what layers compute stays of the order of 1 and gates do not saturate."""
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter.numel() // len(parameter) if parameter.ndim > 1 else 1
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise / max(fan_in, 1) ** 0.5)
    return module


@lru_cache(16)
def _maps(size: tuple[int, int, int], seed: int) -> Tensor:
    """Draws maps, each channel of each image of which has a mean of its own: pooled values differ between images."""
    (channels, height, width), generator = size, torch.Generator().manual_seed(seed)
    images = max(_IMAGES, -(-_SAMPLES // (height * width)))
    maps = torch.randn(images, channels, height, width, generator=generator, dtype=torch.float64)
    return maps + 2 * torch.randn(images, channels, 1, 1, generator=generator, dtype=torch.float64)


def _note_norm(norms: dict[str, bool], name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Notes of a norm whether what it normalises together is a single value."""
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        norms[name] = torch.Size(layer.normalized_shape).numel() == 1
    elif isinstance(layer, nn.GroupNorm):
        norms[name] = inputs[0][0].numel() == layer.num_groups
    elif isinstance(layer, _INSTANCE_NORMS):
        norms[name] = inputs[0][0, 0].numel() == 1


def _constant_channels(maps: Tensor, out: Tensor) -> set[int]:
    """Returns the output channels that are a x + b, for fixed a and b, of an input channel x."""
    x, y = (values.transpose(0, 1).flatten(1) for values in (maps, out))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    # Which input channel that would be shows in a few values; whether it is so is asked of all.
    few_x, few_y = (values[:, :: max(1, values.shape[1] // _MATCHED)].float() for values in (x, y))
    few_x, few_y = (nn.functional.normalize(values - values.mean(1, keepdim=True)) for values in (few_x, few_y))
    matched = x[(few_y @ few_x.T).abs().argmax(1)]
    slope = (y * matched).sum(1, keepdim=True) / matched.square().sum(1, keepdim=True)
    rest, scale = (y - slope * matched).abs().amax(1), out.abs().amax((0, 2, 3))
    return set((rest <= _ROUNDING * scale).nonzero().flatten().tolist())


def _without_gradient(module: nn.Module, out: Tensor, upstream: Tensor) -> list[str]:
    """Returns the names of the parameters that get no gradient, or one of 0, from the gradient of the output."""
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
    """Returns whether no parameter gets a gradient before training, in the module's own precision."""
    twin = _copied(module)
    parameters = [value for value in twin.parameters() if value.requires_grad]
    if not parameters:
        return False
    try:
        out = twin(_maps(size, seed=0).to(parameters[0].dtype, copy=True))
    except ValueError:  # of a norm, which has been found
        return False
    return len(_without_gradient(twin, out, _maps(size, seed=_DRAWS))) == len(parameters)


def _hidden_layers_of_one_unit(module: nn.Module, channels: int) -> list[str]:
    """Returns the names of the layers that compute one number per image and are followed by another layer.

    On maps of 4 x 4 positions, whatever the module gets: on a single position every map is a number.
    """
    twin = _copied(module).double()
    called: list[tuple[str, bool]] = []

    def note(name: str, layer: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
        del layer, inputs
        called.append((name, out.numel() == len(maps)))

    for name, layer in twin.named_modules():
        if isinstance(layer, _LAYERS):
            layer.register_forward_hook(partial(note, name))
    maps = _maps((channels, SIDE, SIDE), seed=0).clone()
    with torch.no_grad():
        twin(maps)
    return list(dict.fromkeys(name for name, is_single in called[:-1] if is_single))
