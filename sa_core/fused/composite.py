"""The operator as a composition of torch's operations, for derivatives that the kernels do not support."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sa_core.fused.form import Form, Parameters


def gated(form: Form, parameters: Parameters, x: Tensor, moments: Tensor | None, permutation: Tensor | None) -> Tensor:
    """Returns the operator's result in float32, before a shortcut is added: shuffle(u * gate(u)), u = batch_norm(x).

    Args:
        x: (B, C, H, W).
        moments: (3, C); the first two rows are mean and variance of a batch norm with running statistics.
    """
    u = x.float()
    if form.norm != "none":
        assert moments is not None
        mean, variance = (None, None) if form.norm == "batch" else (moments[0], moments[1])
        weight, bias = parameters.bn_weight, parameters.bn_bias
        u = F.batch_norm(u, mean, variance, weight, bias, form.norm == "batch", 0.0, form.bn_epsilon)
    batch, channels, height, width = u.shape
    grouped = u.reshape(batch * form.groups, channels // form.groups, height, width)
    first, rest = grouped[:, : form.split], grouped[:, form.split :]
    if form.channel_gate:
        first = first * _gate(first.mean((2, 3), keepdim=True), parameters.cweight, parameters.cbias)
    if form.spatial_gate != "none":
        value = rest
        if form.spatial_gate == "instance":
            # torch.nn.functional.group_norm raises an error for a single value.
            value = torch.group_norm(rest, rest.shape[1], parameters.gn_weight, parameters.gn_bias, form.gn_epsilon)
        rest = rest * _gate(value, parameters.sweight, parameters.sbias)
    out = torch.cat([first, rest], 1).reshape(u.shape)
    if permutation is not None:
        return out.index_select(1, permutation)
    blocks = out.reshape(batch, form.shuffle_groups, channels // form.shuffle_groups, height, width)
    return blocks.transpose(1, 2).reshape(u.shape)


def gradients_of(
    form: Form,
    parameters: Sequence[Tensor | None],
    grad_out: Tensor,
    x: Tensor,
    out: Tensor | None,
    moments: Tensor | None,
    permutation: Tensor | None,
) -> list[Tensor | None]:
    """Returns the gradients of x, the shortcut and the parameters; differentiable if gradients are enabled.

    `out` is the result of forward if it ends in a ReLU, otherwise None.
    """
    create_graph = torch.is_grad_enabled()
    grad_shortcut = None if out is None else grad_out * (out > 0)
    with torch.enable_grad():
        # Views, because one input may have been computed from another.
        x, views = x.view_as(x), [value if value is None else value.view_as(value) for value in parameters]
        result = gated(form, Parameters(*views), x, moments, permutation).to(grad_out.dtype)
    inputs = [x, *views]
    differentiated = [value for value in inputs if value is not None and value.requires_grad]
    grad = grad_out if grad_shortcut is None else grad_shortcut
    gradients = iter(torch.autograd.grad(result, differentiated, grad, create_graph=create_graph, allow_unused=True))
    grad_x, *rest = [next(gradients) if value is not None and value.requires_grad else None for value in inputs]
    return [grad_x, grad_shortcut, *rest]


def _gate(value: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        value = value * weight.view(1, -1, 1, 1)
    if bias is not None:
        value = value + bias.view(1, -1, 1, 1)
    return torch.sigmoid(value)
