"""Differences between supported versions of torch that tests have to expect."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def _group_norm_copies_views() -> bool:
    view = torch.ones(2, 4, 3, 3)[:, :2].requires_grad_()
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        F.group_norm(view, 2)
    return all(tensor.data_ptr() != view.data_ptr() for tensor in saved)


# Whether group norm copies its input, and saves the copy, if it is a view of some channels of a map: torch 2.11 does.
GROUP_NORM_COPIES_VIEWS = _group_norm_copies_views()
