"""Which tensors the kernels can be handed by their addresses, and whether anything would have to know of that.

A kernel reads and writes memory. So a tensor must be what its memory holds: not a subclass, a batch of torch.func, a
functional or fake tensor, a sparse one, or one whose sign is yet to be changed. And nothing may be recording or
transforming operations: it would not see the kernels, and take a result for memory that was never written. Both are
read from torch's dispatch keys, which are the same for all that is ordinary.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Of a tensor that is what its memory holds, and of a thread in which nothing observes operations; the rest is that of
# gradients and autocast, which are dealt with before.
_OF_TENSORS = {"CPU", "CUDA", "ADInplaceOrView"}
_OF_THREADS = {"BackendSelect", "ADInplaceOrView"}
_known_tensors: dict[int, bool] = {}  # by dispatch keys, as a number
_known_threads: dict[int, bool] = {}


def is_dense(x: Tensor) -> bool:
    """Whether a tensor is what its memory holds."""
    keys = torch._C._dispatch_keys(x)
    number = keys.raw_repr()
    known = _known_tensors.get(number)
    if known is None:
        known = _known_tensors[number] = _names(keys) <= _OF_TENSORS
    return known


def is_unobserved(x: Tensor) -> bool:
    """Whether a tensor is what its memory holds, and no tracer, transform or mode observes operations here."""
    keys = torch._C._dispatch_tls_local_include_set()
    number = keys.raw_repr()
    known = _known_threads.get(number)
    if known is None:
        known = _known_threads[number] = _names(keys) <= _OF_THREADS
    return known and is_dense(x)


def _names(keys: torch._C.DispatchKeySet) -> set[str]:
    """Returns the names of dispatch keys, without those of gradients and autocast."""
    listed = str(keys).partition("(")[2].rstrip(")").split(", ")
    return {name for name in listed if name and not name.startswith(("Autograd", "Autocast"))}
