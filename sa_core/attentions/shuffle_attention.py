"""Shuffle attention (SA): channel and spatial gates on two halves of each group of channels, then a channel shuffle.

Source: Zhang and Yang, "SA-Net: Shuffle Attention for Deep Convolutional Neural Networks", ICASSP 2021,
arXiv 2102.00240, section 3; official code wofmanaf/SA-Net. `forward` is written to be read beside the paper.
Parameter names, shapes and initial values are the official layer's, so its state dicts load with `strict=True`.

The `group norm` of the paper has one group per channel: it is instance normalisation with an affine transform.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sa_core import fused as kernels
from sa_core.attentions.knobs import ShuffleAttentionKnobs, norm_groups
from sa_core.errors import OptionError, UnsupportedError

_GATES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
    "tanh1": lambda value: 1 + torch.tanh(value),
    "none": lambda value: value,
}
_POOLINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "avg": lambda x: x.mean((2, 3), keepdim=True),
    "max": lambda x: x.amax((2, 3), keepdim=True),
    "avg_max": lambda x: (x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True)) / 2,
}


class ShuffleAttention(nn.Module):
    """Shuffle attention over feature maps of shape (B, C, H, W); the output has the input's shape and memory format.

    With G groups, each branch of each group has c = C / 2G channels, and all groups share the parameters
    `cweight, cbias, sweight, sbias` of shape (1, c, 1, 1) and the affine parameters of the norm, of shape (c,).
    A variant without a part has none of that part's parameters, so none is left without a gradient.

    Args:
        channels: C, divisible by `2 * groups`.
        groups: G. The paper's 64 needs at least 128 channels. What was taken is the attribute `groups`.
        groups_policy: `strict` refuses a G that does not fit; `clamp` takes the most groups up to G that do.
        branches: which gates are there: `both`, `channel`, `spatial` or `none`.
        removed: what becomes of a removed branch's half of the channels: `identity` passes it through, `reassign`
            hands it to the other branch, whose c is then C / G.
        transform: F_c, before the gate: `affine` (the official weight and bias), `affine_channel` (in the channel
            branch alone: the spatial one has the affine of its norm), `conv1x1` (a convolution over the branch's c
            channels, weights of shape (c, c, 1, 1) that start at 0), or `none`.
        norm: what normalises the spatial branch: `instance` (the official one), `group:<k>` (k groups over the
            branch's c channels), `layer` (one group), `batch`, or `none`.
        norm_affine: whether the norm has a weight and a bias.
        pooling: `avg`, `max`, or `avg_max`, their mean.
        gate: `sigmoid`, `hard_sigmoid`, `tanh1` (1 + tanh), or `none`: the map is multiplied by F_c as it is.
        gate_bias: what `cbias` and `sbias` start at; the weights start at 0, so every gate starts as a constant.
        shuffle: whether a permutation of the channels ends the module.
        shuffle_groups: the blocks of channels that the shuffle interleaves.
        permutation: `interleave` (the official shuffle) or `random`: one order, drawn from torch's generator when the
            module is made, and kept in the buffer `permutation`.
        fused: `auto` computes it in one pass where `sa_core.fused` can, `on` insists on that (hooks of `gn` are not
            called then), `off` takes torch's own operations. The numbers are the same to the precision of the type;
            `repr` says what happens.

    Raises:
        OptionError (a ValueError): if a value is unknown, has no effect beside the others, or does not fit `channels`;
            the message says which values would. Also if `fused` is `on` and this variant has no kernel, or, when the
            module is called, what it is called with. UnsupportedError, a RuntimeError too, where `on` is traced by
            torch.jit, transformed by torch.func, exported to ONNX, or differentiated twice; TorchScript cannot compile
            the module at all.
    """

    def __init__(
        self,
        channels: int,
        groups: int = 64,
        *,
        groups_policy: str = "strict",
        branches: str = "both",
        removed: str = "identity",
        transform: str = "affine",
        norm: str = "instance",
        norm_affine: bool = True,
        pooling: str = "avg",
        gate: str = "sigmoid",
        gate_bias: float = 1.0,
        shuffle: bool = True,
        shuffle_groups: int = 2,
        permutation: str = "interleave",
        fused: str = "auto",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.knobs = knobs = ShuffleAttentionKnobs(
            groups=groups,
            groups_policy=groups_policy,
            branches=branches,
            removed=removed,
            transform=transform,
            norm=norm,
            norm_affine=norm_affine,
            pooling=pooling,
            gate=gate,
            gate_bias=gate_bias,
            shuffle=shuffle,
            shuffle_groups=shuffle_groups,
            permutation=permutation,
        )
        knobs.check(channels)
        self.channels, self.groups = channels, knobs.groups_on(channels)
        c = knobs.branch_channels(channels)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        # Weight 0 and bias 1: every gate starts as the constant sigmoid(1) = 0.731.
        weights = (c if knobs.transform == "conv1x1" else 1, c, 1, 1)
        if knobs.channel_transform != "none":
            self.cweight = nn.Parameter(torch.zeros(weights, **factory))
            self.cbias = nn.Parameter(torch.full((1, c, 1, 1), gate_bias, **factory))
        if knobs.spatial_transform != "none":
            self.sweight = nn.Parameter(torch.zeros(weights, **factory))
            self.sbias = nn.Parameter(torch.full((1, c, 1, 1), gate_bias, **factory))
        if knobs.has_spatial_branch:
            self.gn = _make_norm(norm, c, {"affine": norm_affine, **factory})
        if shuffle and permutation == "random":
            self.register_buffer("permutation", torch.randperm(channels, device=device))
        self._form = kernels.form_of(knobs, channels)
        self.fuse(fused)

    def fuse(self, fused: str) -> None:
        """Sets `fused` anew, and raises as the constructor does."""
        if fused not in kernels.FUSED:
            raise OptionError("fused", fused, "is not a valid choice", kernels.FUSED)
        if fused == "on" and isinstance(self._form, str):
            raise OptionError("fused", fused, f"is not available: {self._form}", ("auto", "off"))
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        if type(x) is not Tensor and not _is_tensor(x):
            return _recorded(self, x)
        form = self.fused_form(x)
        if form is not None:
            parameters, order, strict = self.fused_parameters(), self.fused_permutation(), self.fused == "on"
            return kernels.shuffle_attention(form, parameters, x, permutation=order, strict=strict)[0]
        x0, x1 = self._halves(x)
        # Under autocast a gate is computed in the parameters' precision and applied in that of x.
        if self.knobs.has_channel_branch:
            x0 = x0 * self._channel_gate(x0).to(x.dtype)
        if self.knobs.has_spatial_branch:
            x1 = x1 * self._spatial_gate(x1).to(x.dtype)
        if self.knobs.removed == "reassign":
            out = x0 if self.knobs.has_channel_branch else x1
        else:
            out = torch.cat([x0, x1], dim=1)
        return in_layout_of(x, self._shuffle(out.reshape(x.shape)))

    def gates(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Returns what a (B, C, H, W) map is multiplied by: the channel branch's gates and the spatial branch's.

        Of shape (B, K, 1, 1) and (B, K, H, W), where K counts a branch's channels in the order of x; None of a branch
        that is not there. They are computed by torch's operations, whatever `fused` says.
        """
        batch, _, height, width = x.shape
        x0, x1 = self._halves(x)
        by_channel = self._channel_gate(x0).reshape(batch, -1, 1, 1) if self.knobs.has_channel_branch else None
        by_space = self._spatial_gate(x1).reshape(batch, -1, height, width) if self.knobs.has_spatial_branch else None
        return by_channel, by_space

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the branches' shares of each group, (B * G, c, H, W); all of it twice where one branch has it."""
        batch, channels, height, width = x.shape
        grouped = x.reshape(batch * self.groups, channels // self.groups, height, width)
        if self.knobs.removed == "reassign":
            return grouped, grouped
        x0, x1 = grouped.chunk(2, dim=1)
        return x0, x1

    def _channel_gate(self, x: Tensor) -> Tensor:
        """Equations 1 and 2: global pooling, F_c, gate."""
        value = _POOLINGS[self.knobs.pooling](x)
        if self.knobs.channel_transform != "none":
            value = _transform(self.knobs.channel_transform, value, self.cweight, self.cbias)
        return _GATES[self.knobs.gate](value)

    def _spatial_gate(self, x: Tensor) -> Tensor:
        """Equation 3: norm, F_c, gate."""
        value = self.gn(x)
        if self.knobs.spatial_transform != "none":
            value = _transform(self.knobs.spatial_transform, value, self.sweight, self.sbias)
        return _GATES[self.knobs.gate](value)

    def _shuffle(self, x: Tensor) -> Tensor:
        if not self.knobs.shuffle:
            return x
        if self.knobs.permutation == "random":
            return x.index_select(1, self.get_buffer("permutation"))
        return channel_shuffle(x, self.knobs.shuffle_groups)

    def fused_form(self, x: Tensor) -> kernels.Form | None:
        """Returns what the fused operator is told if it is to work on x, otherwise None; raises as `forward` does."""
        form = self._form
        if self.fused == "off" or isinstance(form, str):
            return None
        if self.fused == "auto" and kernels.leaves_to_eager():
            return None
        if self.fused == "on" and (reason := kernels.reason_against_mode()):
            raise UnsupportedError("fused", "on", f"is not available: {reason}", ("auto", "off"))
        if not kernels.can_take(x, self.channels):
            if self.fused == "on" and (reason := kernels.reason_against_map(x)):
                raise OptionError("fused", "on", f"is not available: {reason}", ("auto", "off"))
            return None  # torch's operations say what is wrong with the shape
        if form.spatial_gate != "instance":
            return form
        norm: Any = self.gn
        if kernels.is_original(norm, _GroupNorm) and norm.num_groups == norm.num_channels:
            if self.fused == "auto" and kernels.is_watched(norm):
                return None
            return form if norm.eps == form.gn_epsilon else form._replace(gn_epsilon=norm.eps)
        if self.fused == "on":
            raise OptionError("fused", "on", "is not available: the norm of the module was replaced", ("auto", "off"))
        return None

    def fused_parameters(self) -> kernels.Parameters:
        """Returns what the variant has of the parameters that the fused operator knows."""
        norm = self._modules.get("gn")
        weight, bias = (None, None) if norm is None else (_own(norm, "weight"), _own(norm, "bias"))
        cweight, cbias, sweight, sbias = [_own(self, name) for name in ("cweight", "cbias", "sweight", "sbias")]
        return kernels.Parameters(cweight, cbias, sweight, sbias, weight, bias)

    def fused_permutation(self) -> Tensor | None:
        """Returns the order of the channels where a buffer keeps it."""
        return self._buffers.get("permutation")

    def __prepare_scriptable__(self) -> None:
        """Refuses torch.jit.script, which asks for this and cannot compile the module."""
        reason = "is not available in TorchScript: torch.jit.script cannot compile shuffle attention; "
        raise UnsupportedError("fused", self.fused, reason + "use torch.jit.trace or torch.export")

    def extra_repr(self) -> str:
        """Shows every knob: two variants that differ look different. Also whether the kernels take float32 maps."""
        shown = {**vars(self.knobs), "groups": self.groups, "fused": self.fused}
        reason = self.reason_against(torch.float32)
        computed = f"computed by torch: {reason}" if reason else "computed by kernels"
        return ", ".join([str(self.channels), *(f"{name}={value}" for name, value in shown.items()), computed])

    def reason_against(self, dtype: torch.dtype) -> str | None:
        """Returns why maps of a type, on the module's device, are left to torch's operations; None where kernels work.

        That is of a module as it stands: a map that is exported, or passes through torch.func, is left to them, too.
        """
        if self.fused == "off":
            return "fused=off"
        if isinstance(self._form, str):
            return self._form
        device = next((parameter.device.type for parameter in self.parameters()), "cpu")
        reason: str | None = kernels.reason_against(device, dtype)
        return reason


def _is_tensor(x: object) -> bool:
    return isinstance(x, Tensor)


def _recorded(module: ShuffleAttention, x: Any) -> Tensor:
    """Records a call of the module where torch.fx traces it symbolically, as it does with modules of torch.nn."""
    if not isinstance(x, torch.fx.Proxy):
        raise TypeError(f"shuffle attention expects a tensor, got {type(x).__name__}")
    path = x.tracer.path_of_module(module)  # type: ignore[attr-defined]
    if not path:
        reason = "cannot be the root of a symbolic trace; torch.fx records it as a leaf module of a network"
        raise UnsupportedError("fused", module.fused, reason)
    step: Any = x.tracer.create_proxy("call_module", path, (x,), {})
    return step  # type: ignore[no-any-return]


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleaves `groups` blocks of channels of a (B, C, H, W) tensor: channel i of block k goes to i * groups + k."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


def in_layout_of(x: Tensor, out: Tensor) -> Tensor:
    """Returns `out` in channels_last where `x` is: what comes after expects the layout that came in."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return out.contiguous(memory_format=torch.channels_last)
    return out


def _own(module: nn.Module, name: str) -> Tensor | None:
    """Returns a module's parameter, None where it has none; quickly where it is none that is computed."""
    parameters = module._parameters
    value: Tensor | None = parameters[name] if name in parameters else getattr(module, name, None)
    return value


def _transform(transform: str, value: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if transform == "conv1x1":
        return F.conv2d(value, weight, bias.flatten())
    return weight * value + bias


class _GroupNorm(nn.GroupNorm):
    """torch's, without its refusal of a single value, which a 1x1 map of one image in one group is: that becomes 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _make_norm(norm: str, channels: int, options: dict[str, Any]) -> nn.Module:
    groups = norm_groups(norm, channels)
    if groups is not None:
        return _GroupNorm(groups, channels, **options)
    return nn.BatchNorm2d(channels, **options) if norm == "batch" else nn.Identity()
