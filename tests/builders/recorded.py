"""A graph of operations on the CPU, which behaves as a CUDA graph does: recorded once, replayed at the same addresses.

What CUDA refuses to capture is refused here, and what it silently repeats (a value that came from the CPU) is repeated.
As in a capture, nothing has been computed when the recording ends: all memory is as it was before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero")  # wait for the device


def record(step: Callable[[], None]) -> Callable[[], None]:
    """Records the operations of a step, and returns what replays them; to be used as `graphs.CAPTURES["cpu"]`.

    Raises:
        RuntimeError: if an operation needs a value of a tensor on the CPU.
    """
    random = torch.get_rng_state()
    recorder = _Recorder()
    try:
        with recorder:
            step()
    finally:
        torch.set_rng_state(random)
        for storage, content in recorder.before.values():
            storage.copy_(content)
    operations = recorder.operations

    @torch.no_grad()
    def replay() -> None:
        for function, args, kwargs, outputs in operations:
            again = tree_leaves(function(*args, **kwargs))
            for output, value in zip(outputs, again, strict=True):
                if isinstance(output, Tensor) and output is not value:
                    output.detach().copy_(value)

    return replay


class _Recorder(TorchDispatchMode):
    """Notes operations with their tensors, and what memory from outside held before."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Any]]] = []
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._made: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name in _READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        addresses = set()
        for storage in _storages((args, kwargs)):
            addresses.add(storage.data_ptr())
            if storage.data_ptr() not in self._made and storage.data_ptr() not in self.before:
                self.before[storage.data_ptr()] = storage, storage.clone()
        result = func(*args, **kwargs)
        outputs = tree_leaves(result)
        own = {storage.data_ptr(): storage for storage in _storages(outputs)}
        self._made |= {address: storage for address, storage in own.items() if address not in addresses}
        is_view = not func._schema.is_mutable and not own.keys().isdisjoint(addresses)
        if not is_view:  # a view needs no memory of its own: the one that was recorded stays valid
            self.operations.append((func, args, kwargs, outputs))
        return result


def _storages(values: Any) -> list[torch.UntypedStorage]:
    """Returns the memory of all tensors; empty ones have none."""
    tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
    return [tensor.untyped_storage() for tensor in tensors if tensor.untyped_storage().data_ptr()]
