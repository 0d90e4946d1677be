"""Trained weights, kept beside a study's figures: what a network learnt can be looked at later, and used elsewhere.

    results/<study>/weights/<key of the cell>.pt

is what `torch.save` makes of a dictionary with `network` (which `create_model` builds), `variant`, `replicate`,
`classes` and `state`, the state dict. They are no part of the store: whoever deletes them loses figures, not results.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.common.files import discard_partials, write_whole
from ablations.common.wording import first_line
from ablations.design import Cell

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Weights:
    """Where the weights of a study's cells lie, and of which cells they are kept.

    Args:
        folder: `results/<study>/weights`.
        kept: `first` (of each variant's first replicate), `all` or `off`.
    """

    folder: Path
    kept: str = "first"

    def path(self, cell: Cell) -> Path:
        """Returns the file of a cell, which need not be there."""
        return self.folder / f"{cell.key}.pt"

    def wants(self, cell: Cell) -> bool:
        """Whether a cell's weights are to be kept."""
        return self.kept == "all" or (self.kept == "first" and cell.replicate == 0)

    def write(self, cell: Cell, content: bytes) -> None:
        """Writes what `pack_weights` made of a trained network, whole or not at all.

        Raises:
            OSError: if it cannot be written.
        """
        discard_partials(self.path(cell))
        write_whole(self.path(cell), content)

    def load(self, cell: Cell) -> nn.Module:
        """Builds a cell's network with the weights that it learnt, in evaluation mode, on the CPU.

        Shuffle attention is computed by torch's operations, so that its parts can be watched.

        Raises:
            OSError: if the file is not there.
            ValueError: if it is not one of these.
        """
        import torch

        from ablations.training.learner import build_network

        try:
            about: dict[str, Any] = torch.load(self.path(cell), map_location="cpu", weights_only=True)
            model = build_network(about["network"], len(about["classes"]), seed=0, fused="off")
            model.load_state_dict(about["state"])
        except OSError:
            raise
        except Exception as error:  # what a damaged file makes torch and pickle raise is of many kinds
            raise ValueError(first_line(error)) from error
        return model.eval()
