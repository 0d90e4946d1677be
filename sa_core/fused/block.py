"""The end of a residual block in one pass: batch norm, shuffle attention (or none), addition, ReLU.

Batch norm is affine per channel. The sums over each channel of each image that give the batch statistics therefore also
give the means and variances of shuffle attention: the convolution's output is read once for the sums and once for the
result. A block with shuffle attention thus moves no more bytes than one without, and fewer than torch does for either.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sa_core.attentions.shuffle_attention import ShuffleAttention
from sa_core.fused.choice import can_take, is_original, is_symbolic, is_watched, prefers_eager
from sa_core.fused.form import Form, Parameters
from sa_core.fused.operator import shuffle_attention

_PLAIN = Form(1, 0, False, "none", 1)  # no gates and no shuffle


def end_of_block(x: Tensor, norm: nn.Module, attention: nn.Module, shortcut: Tensor) -> Tensor | None:
    """Returns relu(attention(norm(x)) + shortcut), or None, without side effects, if kernels do not support it.

    Updates the running statistics of the norm, as the norm does.

    Args:
        x: (B, C, H, W), the output of a block's last convolution.
        norm: an `nn.BatchNorm2d` over C channels.
        attention: `ShuffleAttention` or `nn.Identity`.
        shortcut: (B, C, H, W).
    """
    if is_symbolic(x) or prefers_eager() or is_watched(norm) or is_watched(attention):
        return None
    if not isinstance(norm, nn.BatchNorm2d) or not is_original(norm, nn.BatchNorm2d):
        return None
    if x.shape != shortcut.shape or x.dtype != shortcut.dtype or not can_take(x, norm.num_features):
        return None
    mean, variance = norm.running_mean, norm.running_var
    running = None if norm.training or mean is None or variance is None else (mean, variance)
    if running is None and x.shape[0] * x.shape[2] * x.shape[3] == 1:
        return None  # the norm raises the error
    if isinstance(attention, ShuffleAttention) and is_original(attention, type(attention)):
        form, parameters = attention.fused_form(x), attention.fused_parameters()
        permutation, strict = attention.fused_permutation(), attention.fused == "on"
    elif is_original(attention, nn.Identity):
        form, parameters, permutation, strict = _PLAIN, Parameters(), None, False
    else:
        return None
    if form is None:
        return None
    form = form._replace(norm="running" if running else "batch", bn_epsilon=norm.eps)
    parameters = parameters._replace(bn_weight=norm.weight, bn_bias=norm.bias)
    out, moments = shuffle_attention(form, parameters, x, shortcut, running, permutation, strict=strict)
    if norm.training and norm.track_running_stats:
        assert moments is not None
        _update(norm, moments, x.numel() // x.shape[1])
    return out


def _update(norm: nn.BatchNorm2d, moments: Tensor, count: int) -> None:
    """Updates the running statistics with those of a batch of `count` values per channel, as `nn.BatchNorm2d` does."""
    if norm.num_batches_tracked is None:
        return
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        if norm.running_mean is None or norm.running_var is None:
            return
        share = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
        mean, variance, _ = moments
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
        norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), share)
