"""What one forward pass does, counted operation by operation: the multiply-adds of papers, and what they leave out.

Counted is what PyTorch runs (aten operations, seen by a `TorchDispatchMode`), not what modules say of themselves, so
functional calls count as modules do, and a module of any make can be counted. On meta tensors nothing is computed.

The multiply-adds are in the convention of `flops_counter.py` of PytorchInsight (an early ptflops), which the papers of
SGE, ECA and SA-Net used:

    convolution     a multiply-add for each weight and place it is applied to, one for each output where there is a bias
    matrix product  a multiply-add for each weight and row; the bias of a linear layer is not counted
    batch norm      2 an element, 1 without weight and bias
    ReLU            1 an element, also of its relatives
    pooling         1 an element of the input, average or maximum, global or not

That counter has hooks on 2-d modules alone. Here every operation of a kind counts: functional pooling, which is any
mean or maximum over both spatial dimensions, convolutions in one dimension, and products of two feature maps.

All else is uncounted, which is not to say free: additions, multiplications, gates, copies, one for each element that
comes out; reductions other than pooling, one for each element that goes in; group and layer norm as batch norm. An
operation that no table here has is uncounted under its own name.
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
    """What the operations of one call of a module do, without those of the modules inside it.

    Args:
        path: of the module, as `layer1.0.conv1`; empty for the whole.
        kind: its class, as `Conv2d`.
        shape: of its (first) output.
        operations: how many of each kind for an image: the kinds in `COUNTED`, and all others.
        moved_bytes: what the operations read and write for the whole batch.
    """

    path: str
    kind: str
    shape: tuple[int, ...] = ()
    operations: dict[str, float] = field(default_factory=dict)
    moved_bytes: int = 0

    @property
    def multiply_adds(self) -> float:
        """Those of an image, as papers count them."""
        return sum(operations for kind, operations in self.operations.items() if kind in COUNTED)

    @property
    def uncounted(self) -> float:
        """Operations on single elements of an image that papers do not count."""
        return sum(operations for kind, operations in self.operations.items() if kind not in COUNTED)


@dataclass(frozen=True)
class Complexity:
    """What a forward pass does: the sum of what its layers do, as `LayerCount` has it.

    Args:
        layers: a row for each call of a module that has operations of its own, in the order of the first of them.
        least_bytes: what had to be read and written for the whole batch if all were one operation: inputs, outputs,
            parameters and buffers, once each.
    """

    layers: tuple[LayerCount, ...]
    least_bytes: int

    @property
    def operations(self) -> Mapping[str, float]:
        """How many of each kind for an image."""
        total: defaultdict[str, float] = defaultdict(float)
        for layer in self.layers:
            for kind, operations in layer.operations.items():
                total[kind] += operations
        return dict(total)

    @property
    def multiply_adds(self) -> float:
        """Those of an image: a whole number unless images share work, as on weights alone."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def uncounted(self) -> float:
        """Those of an image."""
        return sum(layer.uncounted for layer in self.layers)

    @property
    def uncounted_kinds(self) -> Mapping[str, float]:
        """The same, by kind."""
        return {kind: operations for kind, operations in self.operations.items() if kind not in COUNTED}

    @property
    def moved_bytes(self) -> int:
        """What the operations read and write for the whole batch, one by one, nothing fused and nothing in a cache.

        Each reads its distinct tensors and writes its results; of an expanded tensor, the elements that there are.
        Views move nothing; an operation in place reads and writes.
        """
        return sum(layer.moved_bytes for layer in self.layers)


def count_operations(module: nn.Module, *inputs: Tensor) -> Complexity:
    """Counts what one forward pass in evaluation mode does, and leaves the module as it was.

    Args:
        module: any module, on the CPU, a GPU or the meta device, where nothing is computed.
        *inputs: what it is called with, on its device; the first has the images along its first dimension.

    Raises:
        ValueError: if there is no image.
    """
    if not inputs or not inputs[0].dim() or not len(inputs[0]):
        raise ValueError(f"inputs: there is no image to count for, got {[tuple(tensor.shape) for tensor in inputs]}")
    counter = _Counter()
    with ExitStack() as stack:
        for path, part in module.named_modules():
            # The first to run on the way in, the last on the way out: what other hooks do is done within the module.
            stack.enter_context(part.register_forward_pre_hook(partial(counter.enter, path), prepend=True))
            stack.enter_context(part.register_forward_hook(counter.leave))
            if isinstance(part, ShuffleAttention):  # a kernel does the same in one operation, of which nothing is known
                stack.callback(part.fuse, part.fused)
                part.fuse("off")
        stack.enter_context(mode(module, training=False))
        # In inference mode operations arrive before they are taken apart: linear, not addmm.
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
    # A weight's first dimension is that of the outputs, or, transposed, of the inputs: each of them uses one row.
    places = x.numel() if transposed else out.numel()
    return "convolution", places * weight.shape[1:].numel() + (0 if bias is None else out.numel())


def _matrix_product(arguments: _Arguments, _: Tensor) -> tuple[str, int]:
    left, right = arguments[-2:]  # what comes before them is added
    return "matrix product", left.numel() * right.shape[-1]


def _norm(kind: str, weight: int) -> _Rule:
    """Returns the rule of a norm whose weight is the argument of that index."""
    return lambda arguments, out: (kind, out.numel() * (1 if arguments[weight] is None else 2))


def _mean_or_maximum(arguments: _Arguments, _: Tensor) -> tuple[str, int]:
    x, dims = arguments[0], arguments[1] if len(arguments) > 1 else ()
    pools = x.dim() >= 4 and {dim % x.dim() for dim in dims or ()} == {x.dim() - 2, x.dim() - 1}
    return "pooling" if pools else "reduction", x.numel()


_aten = torch.ops.aten
# Besides the map they give out statistics, which in evaluation are empty, except on the meta device.
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
# Neither read nor write, and are not known as views (`OpOverload.is_view`).
_FREE = (_aten._unsafe_view, _aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty)


class _Counter(TorchDispatchMode):
    """Sees every operation, and books it to the innermost module that runs, for the whole batch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[LayerCount] = []
        self._running: list[LayerCount] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing that is counted is compiled, so torch's compiler need not be told to keep out: importing it for that
        # takes 150 MiB and a second.
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
    """Returns the bytes of the elements that there are, which `expand` repeats without storing them."""
    stored = prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return stored * tensor.element_size()
