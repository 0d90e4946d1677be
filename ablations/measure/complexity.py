"""Counts the operations of a forward pass: multiply-adds as reported in papers, and the operations that papers omit.

The counter intercepts the aten operations that PyTorch executes (with a `TorchDispatchMode`). It therefore includes
functional calls and supports any module. On meta tensors nothing is computed.

Multiply-adds follow the convention of `flops_counter.py` of PytorchInsight (an early ptflops), which was used for the
papers of SGE, ECA and SA-Net:

    convolution     1 per weight and position to which it is applied, and 1 per output element if there is a bias
    matrix product  1 per weight and row; the bias of a linear layer is not counted
    batch norm      2 per element, 1 without weight and bias
    ReLU            1 per element, also for leaky ReLU, PReLU, ELU and ReLU6
    pooling         1 per element of the input, for average and maximum, global or not

That counter has hooks only on 2-d modules. Here every operation of a kind counts: functional pooling, which is any
mean or maximum over both spatial dimensions, 1-d convolutions, and products of two feature maps.

All other operations are reported as uncounted: additions, multiplications, gates and copies with 1 per output element,
reductions other than pooling with 1 per input element, group and layer norm like batch norm. An operation without a
rule is uncounted under its own name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablations.measure.memory import mode
from sa_core import ShuffleAttention

COUNTED = ("convolution", "matrix product", "batch norm", "ReLU", "pooling")


@dataclass
class LayerCount:
    """Counts of one call of a module, without the operations of its submodules.

    Args:
        path: path of the module, such as `layer1.0.conv1`; empty for the whole.
        kind: class of the module, such as `Conv2d`.
        shape: shape of its (first) output.
        operations: number of operations per image, by kind: the kinds in `COUNTED`, and all others.
        moved_bytes: bytes that the operations read and write for the whole batch.
    """

    path: str
    kind: str
    shape: tuple[int, ...] = ()
    operations: dict[str, float] = field(default_factory=dict)
    moved_bytes: int = 0

    @property
    def multiply_adds(self) -> float:
        """Multiply-adds per image, as counted in papers."""
        return sum(operations for kind, operations in self.operations.items() if kind in COUNTED)

    @property
    def uncounted(self) -> float:
        """Elementwise operations per image that papers do not count."""
        return sum(operations for kind, operations in self.operations.items() if kind not in COUNTED)


@dataclass(frozen=True)
class Complexity:
    """Counts of a forward pass: the sums over its layers.

    Args:
        layers: one entry per call of a module that executes operations itself, in order of execution.
        least_bytes: bytes to read and write for the whole batch if all operations were fused into one: inputs, outputs,
            parameters and buffers, once each.
    """

    layers: tuple[LayerCount, ...]
    least_bytes: int

    @property
    def operations(self) -> Mapping[str, float]:
        """Number of operations per image, by kind."""
        total: defaultdict[str, float] = defaultdict(float)
        for layer in self.layers:
            for kind, operations in layer.operations.items():
                total[kind] += operations
        return dict(total)

    @property
    def multiply_adds(self) -> float:
        """Multiply-adds per image; an integer unless images share work, such as operations on weights only."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def uncounted(self) -> float:
        """Elementwise operations per image that papers do not count."""
        return sum(layer.uncounted for layer in self.layers)

    @property
    def uncounted_kinds(self) -> Mapping[str, float]:
        """The uncounted operations per image, by kind."""
        return {kind: operations for kind, operations in self.operations.items() if kind not in COUNTED}

    @property
    def moved_bytes(self) -> int:
        """Bytes that the operations read and write for the whole batch, without fusion and without caches.

        Each operation reads its distinct tensors and writes its results; of an expanded tensor only the stored elements
        count. Views move nothing; an in-place operation reads and writes.
        """
        return sum(layer.moved_bytes for layer in self.layers)


def count_operations(module: nn.Module, *inputs: Tensor) -> Complexity:
    """Counts the operations of one forward pass in evaluation mode; the state of the module does not change.

    Args:
        module: any module, on the CPU, a GPU or the meta device, where nothing is computed.
        *inputs: its inputs, on the same device; the first dimension of the first input is the batch.

    Raises:
        ValueError: if the batch is empty.
    """
    if not inputs or not inputs[0].dim() or not len(inputs[0]):
        raise ValueError(f"inputs: there is no image to count for, got {[tuple(tensor.shape) for tensor in inputs]}")
    counter = _Counter()
    with ExitStack() as stack:
        for path, part in module.named_modules():
            # The first pre-hook and the last hook to run, so that operations of other hooks count for the module.
            stack.enter_context(part.register_forward_pre_hook(partial(counter.enter, path), prepend=True))
            stack.enter_context(part.register_forward_hook(counter.leave))
            if isinstance(part, ShuffleAttention):  # a fused kernel is one operation without a rule
                stack.callback(part.fuse, part.fused)
                part.fuse("off")
        stack.enter_context(mode(module, training=False))
        # In inference mode, operations are intercepted before decomposition: linear instead of addmm.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(counter)
        output = module(*inputs)
    layers = tuple(
        replace(layer, operations={kind: number / len(inputs[0]) for kind, number in layer.operations.items()})
        for layer in counter.layers
    )
    whole = [*inputs, *_tensors(output), *module.parameters(), *module.buffers()]
    return Complexity(layers, sum(_extent(tensor) for tensor in whole))


_Arguments = Sequence[Any]
_Rule = Callable[[_Arguments, Tensor], tuple[str, int]]  # positional arguments and first output to kind and operations


def _each_output(kind: str) -> _Rule:
    return lambda _, out: (kind, out.numel())


def _each_input(kind: str) -> _Rule:
    return lambda arguments, _: (kind, arguments[0].numel())


def _convolution(arguments: _Arguments, out: Tensor) -> tuple[str, int]:
    x, weight, bias, *_, transposed, _, _ = arguments
    # The first dimension of the weight is the output channels, or, if transposed, the input channels: each element of
    # the output, or of the input, uses one row of the weight.
    places = x.numel() if transposed else out.numel()
    return "convolution", places * weight.shape[1:].numel() + (0 if bias is None else out.numel())


def _matrix_product(arguments: _Arguments, _: Tensor) -> tuple[str, int]:
    left, right = arguments[-2:]  # for addmm and baddbmm, the first argument is the added tensor
    return "matrix product", left.numel() * right.shape[-1]


def _norm(kind: str, weight: int) -> _Rule:
    """Returns the rule of a norm; `weight` is the index of the weight among its arguments."""
    return lambda arguments, out: (kind, out.numel() * (1 if arguments[weight] is None else 2))


def _mean_or_maximum(arguments: _Arguments, _: Tensor) -> tuple[str, int]:
    x, dims = arguments[0], arguments[1] if len(arguments) > 1 else ()
    pools = x.dim() >= 4 and {dim % x.dim() for dim in dims or ()} == {x.dim() - 2, x.dim() - 1}
    return "pooling" if pools else "reduction", x.numel()


_aten = torch.ops.aten
# They also return statistics, which are empty in evaluation mode, except on the meta device.
_BATCH_NORMS = (
    _aten.native_batch_norm,
    _aten.cudnn_batch_norm,
    _aten._batch_norm_no_update,
    _aten._native_batch_norm_legit_no_training,
)
_RULES: Mapping[OpOverloadPacket[..., Any], _Rule] = {
    packet: rule
    for rule, packets in (
        (_convolution, (_aten.convolution,)),
        (_matrix_product, (_aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm)),
        (_norm("batch norm", weight=1), _BATCH_NORMS),
        (_each_output("ReLU"), (_aten.relu, _aten.relu_, _aten.leaky_relu, _aten.leaky_relu_, _aten._prelu_kernel)),
        (_each_output("ReLU"), (_aten.elu, _aten.elu_, _aten.hardtanh, _aten.hardtanh_)),  # ReLU6 is a hardtanh
        (_each_input("pooling"), (_aten.avg_pool2d, _aten._adaptive_avg_pool2d)),
        (_each_input("pooling"), (_aten.max_pool2d_with_indices, _aten.adaptive_max_pool2d)),
        (_mean_or_maximum, (_aten.mean, _aten.amax)),
        (_each_input("reduction"), (_aten.sum, _aten.max, _aten.std, _aten.var, _aten.var_mean)),
        (_norm("group norm", weight=1), (_aten.native_group_norm,)),
        (_norm("layer norm", weight=2), (_aten.native_layer_norm,)),
        (_each_output("softmax"), (_aten._softmax, _aten._safe_softmax)),
        (_each_output("addition"), (_aten.add, _aten.add_, _aten.sub, _aten.sub_, _aten.rsub)),
        (_each_output("multiplication"), (_aten.mul, _aten.mul_)),
        (_each_output("division"), (_aten.div, _aten.div_)),
        (_each_output("copy"), (_aten.clone, _aten.copy_, _aten._to_copy, _aten.index, _aten.index_select)),
        (_each_output("copy"), (_aten.cat, _aten.stack, _aten.constant_pad_nd)),
    )
    for packet in packets
}
# Operations that neither read nor write, but are not marked as views (`OpOverload.is_view`).
_FREE = (_aten._unsafe_view, _aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty)


class _Counter(TorchDispatchMode):
    """Intercepts every operation and adds it to the innermost running module, for the whole batch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[LayerCount] = []
        self._running: list[LayerCount] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled while counting. True would import torch's compiler, which takes 150 MiB and a second.
        return False

    def enter(self, path: str, module: nn.Module, _inputs: object) -> None:
        self._running.append(LayerCount(path, type(module).__name__))

    def leave(self, _module: nn.Module, _inputs: object, output: object) -> None:
        self._running.pop().shape = next((tuple(tensor.shape) for tensor in _tensors(output)), ())

    def __torch_dispatch__(self, func: OpOverload[..., Any], types: object, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if func.is_view or packet in _FREE:
            return result
        read = {id(tensor): tensor for tensor in _tensors((args, kwargs))}  # x * x reads x once
        written = list(_tensors(result))[: 1 if packet in _BATCH_NORMS else None]
        if read or written:
            self._book(packet, args, [*read.values()], written)
        return result

    def _book(
        self, packet: OpOverloadPacket[..., Any], arguments: _Arguments, read: list[Tensor], written: list[Tensor]
    ) -> None:
        layer = self._running[-1]
        if not layer.operations:
            self.layers.append(layer)
        name = packet.__name__.removesuffix("_")
        rule = _RULES.get(packet, _each_output(name))
        kind, operations = rule(arguments, written[0]) if written else (name, 0)
        layer.operations[kind] = layer.operations.get(kind, 0) + operations
        layer.moved_bytes += sum(_extent(tensor) for tensor in (*read, *written))


def _tensors(tree: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _extent(tensor: Tensor) -> int:
    """Returns the bytes of the stored elements; `expand` repeats elements without storing them."""
    stored = prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return stored * tensor.element_size()
