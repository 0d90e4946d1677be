"""Reference implementations from the papers' formulas, image by image and channel by channel, in float64.

They share no code with the modules: NumPy, loops, and no groups folded into the batch, except for the batch norm, whose
statistics the module computes over groups and images together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPSILON = 1e-5


def sigmoid(value: Array | np.float64 | float) -> Array:
    return np.asarray(1 / (1 + np.exp(-value)))


GATES: Mapping[str, Callable[[Array], Array]] = {
    "sigmoid": sigmoid,
    "hard_sigmoid": lambda value: np.minimum(np.maximum(value + 3, 0), 6) / 6,
    "tanh1": lambda value: 1 + np.tanh(value),
    "none": lambda value: value,
}
POOLINGS: Mapping[str, Callable[[Array], np.float64]] = {
    "avg": lambda plane: plane.mean(),
    "max": lambda plane: plane.max(),
    "avg_max": lambda plane: (plane.mean() + plane.max()) / 2,
}


def groups_on(channels: int, groups: int, groups_policy: str = "strict") -> int:
    """The number of groups that shuffle attention uses on `channels` channels."""
    while groups_policy == "clamp" and channels % (2 * groups):
        groups -= 1
    return groups


def shuffle_attention(
    x: Array, parameters: Mapping[str, Array], knobs: Mapping[str, Any], permutation: Array | None = None
) -> Array:
    """Maps (B, C, H, W) to (B, C, H, W); `parameters` has arrays by their official names."""
    channels = x.shape[1]
    groups = groups_on(channels, knobs["groups"], knobs["groups_policy"])
    width = channels // groups
    out = x.copy()
    for group in range(groups):
        members = list(range(group * width, (group + 1) * width))
        shares = {"channel": members[: width // 2], "spatial": members[width // 2 :]}
        if knobs["removed"] == "reassign":
            shares = {knobs["branches"]: members}
        for branch, share in shares.items():
            if knobs["branches"] in ("both", branch):
                for b in range(x.shape[0]):
                    for channel, gate in zip(share, _gates(x, parameters, knobs, branch, b, share), strict=True):
                        out[b, channel] = x[b, channel] * gate
    return _permuted(out, knobs, permutation) if knobs["shuffle"] else out


def _gates(
    x: Array, parameters: Mapping[str, Array], knobs: Mapping[str, Any], branch: str, b: int, share: list[int]
) -> list[Array]:
    """The gates of one branch of one group of one image: a number or a map for each channel in `share`."""
    if branch == "channel":
        values = [np.asarray(POOLINGS[knobs["pooling"]](x[b, channel])) for channel in share]
    else:
        values = [_normalised(x, parameters, knobs, b, share, j) for j in range(len(share))]
    transform = knobs["transform"]
    if transform == "affine_channel":
        transform = "affine" if branch == "channel" else "none"
    if transform != "none":
        weight, bias = (parameters[f"{branch[0]}{part}"] for part in ("weight", "bias"))
        bias = bias.reshape(len(share))
    if transform == "affine":
        weight = weight.reshape(len(share))
        values = [weight[j] * value + bias[j] for j, value in enumerate(values)]
    elif transform == "conv1x1":
        weight = weight.reshape(len(share), len(share))
        rows = [sum((weight[j, i] * value for i, value in enumerate(values)), np.zeros(())) for j in range(len(share))]
        values = [row + bias[j] for j, row in enumerate(rows)]
    return [GATES[knobs["gate"]](value) for value in values]


def _normalised(
    x: Array, parameters: Mapping[str, Array], knobs: Mapping[str, Any], b: int, share: list[int], j: int
) -> Array:
    """The map of the j-th channel in `share` after the norm."""
    norm, c = knobs["norm"], len(share)
    plane: Array = x[b, share[j]]
    if norm == "none":
        return plane
    if norm == "batch":
        # All groups share the norm: its j-th statistics are over the j-th channels of all groups of all images.
        width = x.shape[1] // groups_on(x.shape[1], knobs["groups"], knobs["groups_policy"])
        peers = x[:, share[j] % width :: width]
    else:
        size = {"instance": 1, "layer": c}.get(norm) or c // int(norm.removeprefix("group:"))
        start = j // size * size
        peers = x[b, share[start : start + size]]
    scaled = (plane - peers.mean()) / np.sqrt(peers.var() + EPSILON)
    if knobs["norm_affine"]:
        scaled = scaled * parameters["gn.weight"].reshape(c)[j] + parameters["gn.bias"].reshape(c)[j]
    return np.asarray(scaled)


def _permuted(x: Array, knobs: Mapping[str, Any], permutation: Array | None) -> Array:
    out = np.empty_like(x)
    if knobs["permutation"] == "random":
        assert permutation is not None
        for channel, source in enumerate(permutation):
            out[:, channel] = x[:, int(source)]
        return out
    blocks = knobs["shuffle_groups"]
    for channel in range(x.shape[1]):
        block, place = divmod(channel, x.shape[1] // blocks)
        out[:, place * blocks + block] = x[:, channel]
    return out


def spatial_group_enhance(x: Array, weight: Array, bias: Array, groups: int) -> Array:
    """SGE as in implus/PytorchInsight, one group of one image at a time."""
    width = x.shape[1] // groups
    out = np.empty_like(x)
    for b in range(x.shape[0]):
        for group in range(groups):
            members = slice(group * width, (group + 1) * width)
            agreement = np.zeros(x.shape[2:])
            for plane in x[b, members]:
                agreement += plane * plane.mean()
            agreement -= agreement.mean()
            deviation = agreement.std(ddof=1) if agreement.size > 1 else 0.0
            gate = sigmoid(agreement / (deviation + EPSILON) * weight[group] + bias[group])
            out[b, members] = x[b, members] * gate
    return out


def two_layers(pooled: Array, parameters: Mapping[str, Array], first: str, second: str) -> Array:
    """A vector (C,) through a layer, ReLU, and a layer, with optional biases."""
    hidden = _matrix(parameters[f"{first}.weight"]) @ pooled + parameters.get(f"{first}.bias", np.zeros(()))
    excited = _matrix(parameters[f"{second}.weight"]) @ np.maximum(hidden, 0)
    return np.asarray(excited + parameters.get(f"{second}.bias", np.zeros(())))


def squeeze_excitation(x: Array, parameters: Mapping[str, Array]) -> Array:
    out = np.empty_like(x)
    for b, image in enumerate(x):
        gate = sigmoid(two_layers(image.mean((1, 2)), parameters, "fc1", "fc2"))
        out[b] = image * gate[:, None, None]
    return out


def matched_squeeze_excitation(x: Array, parameters: Mapping[str, Array], groups: int) -> Array:
    width = x.shape[1] // groups
    out = np.empty_like(x)
    for b, image in enumerate(x):
        for group in range(groups):
            members = slice(group * width, (group + 1) * width)
            gate = sigmoid(two_layers(image[members].mean((1, 2)), parameters, "squeeze", "excite"))
            out[b, members] = image[members] * gate[:, None, None]
    return out


def efficient_channel(x: Array, kernel: Array) -> Array:
    reach = len(kernel) // 2
    out = np.empty_like(x)
    for b, image in enumerate(x):
        pooled = np.pad(image.mean((1, 2)), reach)
        for channel, plane in enumerate(image):
            out[b, channel] = plane * sigmoid(kernel @ pooled[channel : channel + len(kernel)])
    return out


def cbam(x: Array, parameters: Mapping[str, Array]) -> Array:
    """CBAM in evaluation mode: the batch norm of the spatial gate uses its running statistics."""
    out = np.empty_like(x)
    kernel = parameters["spatial.conv.conv.weight"][0]
    reach = kernel.shape[1] // 2
    norm = {part: parameters[f"spatial.conv.bn.{part}"][0] for part in ("weight", "bias", "running_mean")}
    scale = norm["weight"] / np.sqrt(parameters["spatial.conv.bn.running_var"][0] + EPSILON)
    for b, image in enumerate(x):
        pooled = (image.mean((1, 2)), image.max((1, 2)))
        gate = sigmoid(sum(two_layers(vector, parameters, "channel.fc1", "channel.fc2") for vector in pooled))
        image = image * gate[:, None, None]
        maps = np.pad(np.stack([image.mean(0), image.max(0)]), ((0, 0), (reach, reach), (reach, reach)))
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                window = maps[:, row : row + kernel.shape[1], column : column + kernel.shape[2]]
                value = ((window * kernel).sum() - norm["running_mean"]) * scale + norm["bias"]
                out[b, :, row, column] = image[:, row, column] * sigmoid(value)
    return out


def global_context(x: Array, parameters: Mapping[str, Array], fusion: str, epsilon: float) -> Array:
    out = np.empty_like(x)
    layer = f"mlp_{fusion}"
    for b, image in enumerate(x):
        score = np.tensordot(parameters["conv_attn.weight"].reshape(-1), image, 1)
        attention = np.exp(score) / np.exp(score).sum()  # the softmax is invariant to the bias
        context = (image * attention).sum((1, 2))
        hidden = _matrix(parameters[f"{layer}.fc1.weight"]) @ context + parameters[f"{layer}.fc1.bias"]
        hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + epsilon)
        hidden = np.maximum(hidden * parameters[f"{layer}.norm.weight"] + parameters[f"{layer}.norm.bias"], 0)
        value = _matrix(parameters[f"{layer}.fc2.weight"]) @ hidden + parameters[f"{layer}.fc2.bias"]
        value = value[:, None, None]
        out[b] = image + value if fusion == "add" else image * sigmoid(value)
    return out


def _matrix(weight: Array) -> Array:
    """The weight of a linear layer or 1x1 convolution as a matrix."""
    return weight.reshape(weight.shape[:2])
