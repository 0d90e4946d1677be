"""What lies beside the store, a file a cell: checkpoints of cells in training, weights and predictions of others.

    results/<study>/checkpoints/<key of the cell>.pt
    results/<study>/weights/<key of the cell>.safetensors
    results/<study>/predictions/<key of the cell>.npz

A checkpoint is there only while its cell is unfinished; whoever is stopped goes on from it. Weights are a state dict
with what is needed to use it elsewhere (`ablations.training.weights`). Predictions
are those on the test images (`ablations.training.predictions`). None of this is part of the store: whoever
deletes it loses time or figures, not results.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ablations.common.files import discard_partials, write_whole
from ablations.design import Cell, Split
from ablations.training.predictions import Predictions

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class CellFiles:
    """The files of a study's cells in one folder."""

    suffix: ClassVar[str] = ".pt"

    folder: Path

    def path(self, cell: Cell) -> Path:
        """Returns the file of a cell, which need not be there."""
        return self.folder / f"{cell.key}{self.suffix}"

    def write(self, cell: Cell, content: bytes) -> None:
        """Writes the file of a cell, whole or not at all; raises OSError if it cannot be written."""
        discard_partials(self.path(cell))
        write_whole(self.path(cell), content)


@dataclass(frozen=True)
class Checkpoints(CellFiles):
    """The checkpoints of cells, and after how many seconds an epoch ends with one."""

    every: float = 0.0

    def read(self, cell: Cell) -> bytes | None:
        """Returns what the file of a cell has; None where there is none that can be read."""
        try:
            return self.path(cell).read_bytes()
        except OSError:
            return None

    def write(self, cell: Cell, content: bytes) -> None:
        """Writes a checkpoint or raises OSError; then there is none, as an old one is not worth its room."""
        try:
            super().write(cell, content)
        except OSError:
            self.remove(cell)
            raise

    def remove(self, cell: Cell) -> None:
        """Removes the checkpoint of a cell, and the folder with the last one."""
        self.path(cell).unlink(missing_ok=True)
        discard_partials(self.path(cell))
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


@dataclass(frozen=True)
class Weights(CellFiles):
    """The trained weights of cells; `kept` are those of each variant's `first` replicate, `all` or `off`."""

    suffix: ClassVar[str] = ".safetensors"

    kept: str = "first"

    def wants(self, cell: Cell) -> bool:
        """Whether a cell's weights are to be kept: never those of a selection."""
        return cell.split is Split.TEST and (self.kept == "all" or (self.kept == "first" and cell.replicate == 0))

    def load(self, cell: Cell) -> nn.Module:
        """Builds a cell's network with the weights that it learnt; raises what `KeptNetwork.read` and `build` do."""
        from ablations.training.weights import KeptNetwork

        return KeptNetwork.read(self.path(cell)).build()


@dataclass(frozen=True)
class PredictionFiles(CellFiles):
    """The predictions of trained networks on the test images; `kept` is `all` or `off`."""

    suffix: ClassVar[str] = ".npz"

    kept: str = "all"

    def wants(self, cell: Cell) -> bool:
        """Whether a cell's predictions are to be kept: those on test images."""
        return cell.split is Split.TEST and self.kept == "all"

    def load(self, cell: Cell) -> Predictions:
        """Reads the predictions of a cell.

        Raises:
            OSError: if the file is not there.
            ValueError: if it is not one of these.
        """
        return Predictions.from_bytes(self.path(cell).read_bytes())
