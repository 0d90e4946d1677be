"""Shuffle attention (SA): channel and spatial gates on two halves of each group of channels, then a channel shuffle.

Source: Zhang and Yang, "SA-Net: Shuffle Attention for Deep Convolutional Neural Networks", ICASSP 2021,
arXiv 2102.00240, section 3; official code wofmanaf/SA-Net. Methods follow the paper's equations.
Parameter names, shapes and initial values are the official layer's, so its state dicts load with `strict=True`.

The group norm of the paper has one group per channel: it is instance normalization with an affine transform.
"""

# Annotations are evaluated, not strings: torch.fx copies them into the code that it generates for TorchScript.

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sa_core import fused as kernels
from sa_core.attentions.knobs import ShuffleAttentionKnobs, groups_of, norm_groups
from sa_core.errors import OptionError, ShapeError, UnsupportedError


class ShuffleAttention(nn.Module):
    """Shuffle attention over feature maps of shape (B, C, H, W); the output has the input's shape and memory format.

    With G groups, each branch of each group has c = C / 2G channels, and all groups share the parameters
    `cweight, cbias, sweight, sbias` of shape (1, c, 1, 1) and the affine parameters of the norm, of shape (c,).
    A variant without a part has none of that part's parameters, so every parameter has a gradient.

    Args:
        channels: C, divisible by `2 * groups`.
        groups: G. The paper's 64 needs at least 128 channels; `auto` scales it to the width: 64 from 256 channels on,
            fewer below, with four channels per group (`default_groups`). The attribute `groups` has the number used.
        groups_policy: if G does not fit, `strict` raises an error, `clamp` uses the largest number up to G that fits.
        branches: branches with a gate: `both`, `channel`, `spatial` or `none`.
        removed: channels of a removed branch: `identity` passes them through, `reassign` gives them to the other
            branch, whose c is then C / G.
        transform: F_c, before the gate: `affine` (the official weight and bias), `affine_channel` (in the channel
            branch only; the spatial branch has the affine parameters of its norm), `conv1x1` (a convolution over the
            branch's c channels, weights of shape (c, c, 1, 1), initially 0), or `none`.
        norm: norm of the spatial branch: `instance` (the official one), `group:<k>` (k groups over the branch's c
            channels), `layer` (one group), `batch`, or `none`.
        norm_affine: whether the norm has a weight and a bias.
        pooling: `avg`, `max`, or `avg_max`, their mean.
        gate: `sigmoid`, `hard_sigmoid`, `tanh1` (1 + tanh), or `none`: multiplies the map by F_c directly.
        gate_bias: initial value of `cbias` and `sbias`. Weights are initially 0, so every gate starts as a constant.
        shuffle: whether the module ends with a permutation of the channels.
        shuffle_groups: number of channel blocks that the shuffle interleaves.
        permutation: `interleave` (the official shuffle) or `random`: a fixed permutation, drawn from torch's generator
            in the constructor and stored in the buffer `permutation`.
        fused: `auto` uses the kernels of `sa_core.fused` where supported, `on` requires them (hooks of `gn` are then
            not called), `off` uses torch's operations. Results are equal up to rounding; `repr` shows which is used.

    Raises:
        OptionError (a ValueError): if a value is unknown, has no effect with the other values, or does not fit
            `channels`; the message lists valid values. Also if `fused` is `on` and there is no kernel for the variant
            or, in a call, for the input. UnsupportedError, also a RuntimeError, if a module with `on` is traced by
            torch.jit.trace, is the root of a torch.fx trace, is compiled by TorchScript, transformed by torch.func,
            exported to ONNX, or differentiated twice.
        ShapeError (a ValueError): if the input of a call is not of shape (B, channels, H, W).

    TorchScript compiles torch's operations. torch.fx records a module within a network as one step, and the module as
    the root of a trace as its operations.
    """

    # Constants for TorchScript, which does not compile the parts that a variant lacks.
    __constants__ = (
        "channels", "groups", "_has_channel_branch", "_is_reassigned", "_is_convolved", "_pooling", "_gate",
        "_shuffle_groups",
    )  # fmt: skip

    if TYPE_CHECKING:  # TorchScript cannot read these
        permutation: Tensor  # a buffer of variants with permutation="random"

    def __init__(
        self,
        channels: int,
        groups: int | str = 64,
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
            groups=groups_of(ShuffleAttentionKnobs, groups, channels),
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
        self._has_channel_branch = knobs.has_channel_branch
        self._is_reassigned, self._is_convolved = removed == "reassign", transform == "conv1x1"
        self._pooling, self._gate, self._shuffle_groups = pooling, gate, shuffle_groups if shuffle else 1
        self._form = kernels.form_of(knobs, channels)
        self.fuse(fused)

    def fuse(self, fused: str) -> None:
        """Changes `fused`; raises as the constructor does."""
        if fused not in kernels.FUSED:
            raise OptionError("fused", fused, "is not a valid choice", kernels.FUSED)
        if fused == "on" and isinstance(self._form, str):
            raise OptionError("fused", fused, f"is not available: {self._form}", ("auto", "off"))
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            check_map(x, self.channels)
            out = self._composed(x)
        else:
            out = self._computed(x)
        return out

    def _computed(self, x: Any) -> Tensor:
        """Computes the module with kernels where supported, otherwise with torch's operations."""
        if not isinstance(x, Tensor):
            return _recorded(self, x)
        form = self.fused_form(x)
        if form is not None:  # the shape was checked
            parameters, order, strict = self.fused_parameters(), self.fused_permutation(), self.fused == "on"
            return kernels.shuffle_attention(form, parameters, x, permutation=order, strict=strict)[0]
        is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if not is_traced:  # torch.jit.trace cannot record the check, and would warn
            check_map(x, self.channels)
        return self._composed(x)

    def _composed(self, x: Tensor) -> Tensor:
        """Computes the module with torch's operations. TorchScript compiles them, and torch.fx records them."""
        x0, x1 = self._halves(x)
        # Under autocast a gate is computed in the precision of the parameters and applied in that of x.
        if self._has_channel_branch:
            x0 = x0 * self._channel_gate(x0).to(x.dtype)
        if hasattr(self, "gn"):
            x1 = x1 * self._spatial_gate(x1).to(x.dtype)
        if not self._is_reassigned:
            out = torch.cat([x0, x1], dim=1)
        elif self._has_channel_branch:
            out = x0
        else:
            out = x1
        return in_layout_of(x, self._shuffle(out.reshape(x.shape)))

    def gates(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Returns the gates of the channel branch and of the spatial branch for a map of shape (B, C, H, W).

        Shapes are (B, K, 1, 1) and (B, K, H, W) for a branch with K channels in all groups, in the order of x; None
        for a missing branch. Gates are always computed by torch's operations.
        """
        check_map(x, self.channels)
        batch, _, height, width = x.shape
        x0, x1 = self._halves(x)
        by_channel = self._channel_gate(x0).reshape(batch, -1, 1, 1) if self._has_channel_branch else None
        by_space = self._spatial_gate(x1).reshape(batch, -1, height, width) if hasattr(self, "gn") else None
        return by_channel, by_space

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the channels of each branch, (B * G, c, H, W); with `removed=reassign` the whole group, twice."""
        batch, channels, height, width = x.shape
        grouped = x.reshape(batch * self.groups, channels // self.groups, height, width)
        if self._is_reassigned:
            return grouped, grouped
        x0, x1 = grouped.chunk(2, dim=1)
        return x0, x1

    def _channel_gate(self, x: Tensor) -> Tensor:
        """Equations 1 and 2: global pooling, F_c, gate."""
        value = _pooled(x, self._pooling)
        if hasattr(self, "cweight"):
            value = _transform(value, self.cweight, self.cbias, self._is_convolved)
        return _activated(value, self._gate)

    def _spatial_gate(self, x: Tensor) -> Tensor:
        """Equation 3: norm, F_c, gate."""
        value: Tensor = self.gn(x)
        if hasattr(self, "sweight"):
            value = _transform(value, self.sweight, self.sbias, self._is_convolved)
        return _activated(value, self._gate)

    def _shuffle(self, x: Tensor) -> Tensor:
        if hasattr(self, "permutation"):
            return x.index_select(1, self.permutation)
        if self._shuffle_groups > 1:
            return channel_shuffle(x, self._shuffle_groups)
        return x

    def fused_form(self, x: Tensor) -> kernels.Form | None:
        """Returns the arguments of the fused operator if it computes x, otherwise None; raises as `forward` does."""
        form = self._form
        if self.fused == "off" or isinstance(form, str):
            return None
        if self.fused == "auto" and kernels.prefers_eager():
            return None
        if self.fused == "on" and (reason := kernels.reason_against_mode()):
            raise UnsupportedError("fused", "on", f"is not available: {reason}", ("auto", "off"))
        if not kernels.can_take(x, self.channels):
            if self.fused == "on" and (reason := kernels.reason_against_map(x)):
                raise OptionError("fused", "on", f"is not available: {reason}", ("auto", "off"))
            return None  # `forward` raises the error for a wrong shape
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
        """Returns the variant's parameters for the fused operator."""
        norm = self._modules.get("gn")
        weight, bias = (None, None) if norm is None else (_parameter(norm, "weight"), _parameter(norm, "bias"))
        cweight, cbias, sweight, sbias = [_parameter(self, name) for name in ("cweight", "cbias", "sweight", "sbias")]
        return kernels.Parameters(cweight, cbias, sweight, sbias, weight, bias)

    def fused_permutation(self) -> Tensor | None:
        """Returns the permutation of a variant with `permutation="random"`, otherwise None."""
        return self._buffers.get("permutation")

    def __prepare_scriptable__(self) -> "ShuffleAttention":
        """Returns the module for torch.jit.script; raises UnsupportedError for `on`: TorchScript has no kernels."""
        if self.fused == "on":
            raise UnsupportedError("fused", "on", "is not available: TorchScript has no kernels", ("auto", "off"))
        return self

    def extra_repr(self) -> str:
        """Shows every knob, so that any two variants differ, and whether kernels compute float32 maps."""
        options = {**vars(self.knobs), "groups": self.groups, "fused": self.fused}
        reason = self.reason_against(torch.float32)
        computed = f"computed by torch: {reason}" if reason else "computed by kernels"
        return ", ".join([str(self.channels), *(f"{name}={value}" for name, value in options.items()), computed])

    def reason_against(self, dtype: torch.dtype) -> str | None:
        """Returns why torch's operations compute maps of this type on the module's device; None if kernels do.

        Does not consider modes: within an export or torch.func, torch's operations are used, too.
        """
        if self.fused == "off":
            return "fused=off"
        if isinstance(self._form, str):
            return self._form
        device = next((parameter.device.type for parameter in self.parameters()), "cpu")
        return kernels.reason_against(device, dtype)


def _recorded(module: ShuffleAttention, x: Any) -> Tensor:
    """Records a call of the module in a symbolic trace of torch.fx.

    Within a network the call is one step, as for modules of torch.nn; as the root of the trace the module is recorded
    as its operations.
    """
    if not isinstance(x, torch.fx.Proxy):
        raise TypeError(f"shuffle attention expects a tensor, got {type(x).__name__}")
    path = x.tracer.path_of_module(module)  # type: ignore[attr-defined]
    if path:
        return x.tracer.create_proxy("call_module", path, (x,), {})  # type: ignore[return-value]
    if module.fused == "on":
        reason = "is not available: torch.fx records the root of a trace as torch's operations"
        raise UnsupportedError("fused", "on", reason, ("auto", "off"))
    return module._composed(x)  # type: ignore[arg-type]


def check_map(x: Tensor, channels: int) -> None:
    """Raises ShapeError if x is not of shape (B, `channels`, H, W)."""
    if x.dim() != 4 or x.shape[1] != channels:
        raise ShapeError(f"shuffle attention expects a feature map of shape [B, {channels}, H, W], got {list(x.shape)}")


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleaves `groups` blocks of channels of a (B, C, H, W) tensor: channel i of block k goes to i * groups + k."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


@torch.fx.wrap  # records the call, not the outcome of the condition
def in_layout_of(x: Tensor, out: Tensor) -> Tensor:
    """Returns `out` in channels_last if `x` is, so that the module keeps the memory format."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return out.contiguous(memory_format=torch.channels_last)
    return out


def _parameter(module: nn.Module, name: str) -> Tensor | None:
    """Returns a parameter of a module, None if there is none. Faster than `getattr` if it is not parametrized."""
    parameters = module._parameters
    return parameters[name] if name in parameters else getattr(module, name, None)


# TorchScript cannot look functions up in a dict, hence the chains of conditions.


def _pooled(x: Tensor, pooling: str) -> Tensor:
    if pooling == "avg":
        return x.mean((2, 3), keepdim=True)
    if pooling == "max":
        return x.amax((2, 3), keepdim=True)
    return (x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True)) / 2


def _transform(value: Tensor, weight: Tensor, bias: Tensor, is_convolved: bool) -> Tensor:
    if is_convolved:
        return F.conv2d(value, weight, bias.flatten())
    return weight * value + bias


def _activated(value: Tensor, gate: str) -> Tensor:
    if gate == "sigmoid":
        return torch.sigmoid(value)
    if gate == "hard_sigmoid":
        return F.hardsigmoid(value)
    if gate == "tanh1":
        return 1 + torch.tanh(value)
    return value


class _GroupNorm(nn.GroupNorm):
    """torch's GroupNorm, but a single value (a 1x1 map of one image in one group) becomes 0 instead of an error."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _make_norm(norm: str, channels: int, options: dict[str, Any]) -> nn.Module:
    groups = norm_groups(norm, channels)
    if groups is not None:
        return _GroupNorm(groups, channels, **options)
    return nn.BatchNorm2d(channels, **options) if norm == "batch" else nn.Identity()
