"""Checks whether kernels may access the memory of a tensor directly.

Two conditions must hold. The memory must contain the values of the tensor, which is not so for subclasses, batches of
torch.func, functional, fake and sparse tensors, and tensors with a pending negation. And no mode may record or
transform operations, as it would not see the kernels. Both follow from torch's dispatch keys, which are the same for
all ordinary tensors and threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Dispatch keys of an ordinary tensor, and of a thread without tracers, transforms and modes, apart from those of
# autograd and autocast, which have been handled before.
_OF_TENSORS = {"CPU", "CUDA", "ADInplaceOrView"}
_OF_THREADS = {"BackendSelect", "ADInplaceOrView"}
_dense_keys: dict[int, bool] = {}  # results by the bits of the dispatch keys
_unobserved_keys: dict[int, bool] = {}


def is_dense(x: Tensor) -> bool:
    """Whether the memory of a tensor contains its values."""
    keys = torch._C._dispatch_keys(x)
    bits = keys.raw_repr()
    result = _dense_keys.get(bits)
    if result is None:
        result = _dense_keys[bits] = _names(keys) <= _OF_TENSORS
    return result


def is_unobserved(x: Tensor) -> bool:
    """Whether the memory of a tensor contains its values, and no tracer, transform or mode is active."""
    keys = torch._C._dispatch_tls_local_include_set()
    bits = keys.raw_repr()
    result = _unobserved_keys.get(bits)
    if result is None:
        result = _unobserved_keys[bits] = _names(keys) <= _OF_THREADS
    return result and is_dense(x)


def _names(keys: torch._C.DispatchKeySet) -> set[str]:
    """Returns the names of dispatch keys, without those of autograd and autocast."""
    names = str(keys).partition("(")[2].rstrip(")").split(", ")
    return {name for name in names if name and not name.startswith(("Autograd", "Autocast"))}
