"""Shuffle attention written again from the paper's formulas, image by image and channel by channel, in float64.

It shares nothing with the module that it checks: numpy, loops, and no reshape of groups into the batch, but for the
batch norm variant, whose statistics the module takes over groups and images together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPSILON = 1e-5


def shuffle_attention(
    x: Array, parameters: dict[str, Array], groups: int, branches: str, shuffle: bool, norm: str
) -> Array:
    """Maps (B, C, H, W) to (B, C, H, W); `parameters` holds vectors of length c = C / 2G by the official names."""
    batch, channels = x.shape[:2]
    c = channels // (2 * groups)
    out = x.copy()
    for group in range(groups):
        first = group * 2 * c
        for j in range(c):
            for b in range(batch):
                if branches in ("both", "channel"):
                    plane = x[b, first + j]
                    gate = parameters["cweight"][j] * plane.mean() + parameters["cbias"][j]
                    out[b, first + j] = plane * _sigmoid(gate)
                if branches in ("both", "spatial"):
                    plane = x[b, first + c + j]
                    normed = _normalise(x, parameters, b, group, j, groups, norm)
                    gate = parameters["sweight"][j] * normed + parameters["sbias"][j]
                    out[b, first + c + j] = plane * _sigmoid(gate)
    if not shuffle:
        return out
    shuffled = np.empty_like(out)
    for channel in range(channels):
        half, position = divmod(channel, channels // 2)
        shuffled[:, 2 * position + half] = out[:, channel]
    return shuffled


def _normalise(x: Array, parameters: dict[str, Array], b: int, group: int, j: int, groups: int, norm: str) -> Array:
    c = x.shape[1] // (2 * groups)
    plane = x[b, group * 2 * c + c + j]
    if norm == "none":
        return plane
    if norm == "batch":
        peers = np.stack([x[:, g * 2 * c + c + j] for g in range(groups)])
    else:
        size = {"instance": 1, "layer": c}.get(norm) or c // int(norm.removeprefix("group:"))
        start = group * 2 * c + c + j // size * size
        peers = x[b, start : start + size]
    scaled = (plane - peers.mean()) / np.sqrt(peers.var() + EPSILON)
    return scaled * parameters["gn.weight"][j] + parameters["gn.bias"][j]


def _sigmoid(value: Array | np.float64) -> Array:
    return np.asarray(1 / (1 + np.exp(-value)))
