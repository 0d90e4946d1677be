"""Checkpoints and trained weights as the bytes of a file, which `torch.load` reads safely."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ablations.common.wording import first_line
from ablations.design import Cell

if TYPE_CHECKING:
    from torch import nn


def pack(content: Mapping[str, Any]) -> bytes:
    """Returns a dictionary of tensors and plain values as `torch.save` writes it."""
    import torch

    written = io.BytesIO()  # into a file torch.save would write itself, and call a full disk a RuntimeError
    torch.save(dict(content), written)
    return written.getvalue()


def unpack(content: bytes, micro_batches: int) -> dict[str, Any]:
    """Reads a checkpoint.

    Raises:
        ValueError: if it is none, or was made with other micro-batches.
    """
    import torch

    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        made_with = state["micro_batches"]
    except Exception as error:  # what a damaged file makes torch and pickle raise is of many kinds
        raise ValueError(first_line(error)) from error
    if made_with != micro_batches:
        raise ValueError(f"it was made with {made_with} micro-batches")
    return state


def pack_weights(cell: Cell, model: nn.Module, classes: Sequence[str]) -> bytes:
    """Returns a trained network's weights, with what describes it, as the file of the cell has them."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    about = {"variant": cell.variant.name, "replicate": cell.replicate, "network": cell.variant.network}
    return pack(about | {"classes": list(classes), "state": state})
