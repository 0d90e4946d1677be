"""Shuffle attention (SA): channel and spatial gates on two halves of each group of channels, then a channel shuffle.

Source: Zhang and Yang, "SA-Net: Shuffle Attention for Deep Convolutional Neural Networks", ICASSP 2021,
arXiv 2102.00240, section 3; official code wofmanaf/SA-Net. `forward` is written to be read beside the paper.
Parameter names, shapes and initial values are the official layer's, so its state dicts load with `strict=True`.

The `group norm` of the paper has one group per channel: it is instance normalisation with an affine transform.
"""

# Annotations are evaluated here: torch.fx writes them into the code that it makes, which TorchScript reads.

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
    A variant without a part has none of that part's parameters, so none is left without a gradient.

    Args:
        channels: C, divisible by `2 * groups`.
        groups: G. The paper's 64 needs at least 128 channels; `auto` scales it to the width: 64 from 256 channels on,
            fewer below, such that a group has four channels (`default_groups`). What was taken is the attribute
            `groups`.
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
            torch.jit.trace or by itself by torch.fx, compiled by TorchScript, transformed by torch.func, exported to
            ONNX, or differentiated twice.
        ShapeError (a ValueError): if the module is called with a map that is not of shape (B, channels, H, W).

    TorchScript compiles torch's operations. torch.fx records a module within a network as one step, and the operations
    of a module that is traced by itself.
    """

    # What TorchScript knows of a variant; of parts that are not there, it compiles nothing.
    __constants__ = (
        "channels", "groups", "_has_channel_branch", "_is_reassigned", "_is_convolved", "_pooling", "_gate",
        "_shuffle_groups",
    )  # fmt: skip

    if TYPE_CHECKING:  # TorchScript cannot read these
        permutation: Tensor  # a buffer, of variants that have one

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
        """Sets `fused` anew, and raises as the constructor does."""
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

    def _computed(self, x: Tensor) -> Tensor:
        """Computes it by kernels where they can be had, otherwise by torch's operations."""
        if type(x) is not Tensor and not _is_tensor(x):
            return _recorded(self, x)
        form = self.fused_form(x)
        if form is not None:  # which is of maps of the right shape alone
            parameters, order, strict = self.fused_parameters(), self.fused_permutation(), self.fused == "on"
            return kernels.shuffle_attention(form, parameters, x, permutation=order, strict=strict)[0]
        is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if not is_traced:  # torch.jit.trace would not record the check, and warns of that
            check_map(x, self.channels)
        return self._composed(x)

    def _composed(self, x: Tensor) -> Tensor:
        """The module in torch's operations. TorchScript compiles them, and torch.fx records them."""
        x0, x1 = self._halves(x)
        # Under autocast a gate is computed in the parameters' precision and applied in that of x.
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
        """Returns what a (B, C, H, W) map is multiplied by: the channel branch's gates and the spatial branch's.

        Of shape (B, K, 1, 1) and (B, K, H, W), where K counts a branch's channels in the order of x; None of a branch
        that is not there. They are computed by torch's operations, whatever `fused` says.
        """
        check_map(x, self.channels)
        batch, _, height, width = x.shape
        x0, x1 = self._halves(x)
        by_channel = self._channel_gate(x0).reshape(batch, -1, 1, 1) if self._has_channel_branch else None
        by_space = self._spatial_gate(x1).reshape(batch, -1, height, width) if hasattr(self, "gn") else None
        return by_channel, by_space

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the branches' shares of each group, (B * G, c, H, W); all of it twice where one branch has it."""
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
        """Returns what the fused operator is told if it is to work on x, otherwise None; raises as `forward` does."""
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
            return None  # `forward` says what is wrong with the shape
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

    def __prepare_scriptable__(self) -> "ShuffleAttention":
        """Returns what torch.jit.script compiles, and refuses `on`: there are no kernels in TorchScript."""
        if self.fused == "on":
            raise UnsupportedError("fused", "on", "is not available: TorchScript has no kernels", ("auto", "off"))
        return self

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
    """Records a call of the module where torch.fx traces it symbolically.

    That is one step of a network, as torch.fx has it of modules of torch.nn, and the operations of a module that is
    traced by itself.
    """
    if not isinstance(x, torch.fx.Proxy):
        raise TypeError(f"shuffle attention expects a tensor, got {type(x).__name__}")
    path = x.tracer.path_of_module(module)  # type: ignore[attr-defined]
    if path:
        step: Any = x.tracer.create_proxy("call_module", path, (x,), {})
        return step  # type: ignore[no-any-return]
    if module.fused == "on":
        reason = "is not available: torch.fx records the root of a trace as torch's operations"
        raise UnsupportedError("fused", "on", reason, ("auto", "off"))
    out: Tensor = module._composed(x)  # type: ignore[arg-type]
    return out


def check_map(x: Tensor, channels: int) -> None:
    """Checks that x is a map of so many channels.

    Raises:
        ShapeError: if it is not.
    """
    if x.dim() != 4 or x.shape[1] != channels:
        raise ShapeError(f"shuffle attention expects a feature map of shape [B, {channels}, H, W], got {list(x.shape)}")


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleaves `groups` blocks of channels of a (B, C, H, W) tensor: channel i of block k goes to i * groups + k."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


@torch.fx.wrap  # which records the call, and not the decision
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


# TorchScript has no tables of functions, hence the ladders.


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
    """torch's, without its refusal of a single value, which a 1x1 map of one image in one group is: that becomes 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _make_norm(norm: str, channels: int, options: dict[str, Any]) -> nn.Module:
    groups = norm_groups(norm, channels)
    if groups is not None:
        return _GroupNorm(groups, channels, **options)
    return nn.BatchNorm2d(channels, **options) if norm == "batch" else nn.Identity()
