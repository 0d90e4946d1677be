"""Files beside the store, one per cell: checkpoints of cells in training, weights and predictions of trained ones.

    results/<study>/checkpoints/<key of the cell>.pt
    results/<study>/weights/<key of the cell>.safetensors
    results/<study>/predictions/<key of the cell>.npz

A checkpoint exists while its cell is unfinished, which resumes from it. Weights are a state dict with the metadata to
use it elsewhere (`ablations.training.weights`). Predictions are those on the test images
(`ablations.training.predictions`). These files are not part of the store: deleting them loses time or figures, but no
results.
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
        """Returns the path of a cell's file, which may not exist."""
        return self.folder / f"{cell.key}{self.suffix}"

    def write(self, cell: Cell, content: bytes) -> None:
        """Writes the file of a cell atomically; raises OSError if it cannot be written."""
        discard_partials(self.path(cell))
        write_whole(self.path(cell), content)


@dataclass(frozen=True)
class Checkpoints(CellFiles):
    """The checkpoints of cells; `every` is the minimum number of seconds between two checkpoints of a cell."""

    every: float = 0.0

    def read(self, cell: Cell) -> bytes | None:
        """Returns the content of a cell's file; None if it cannot be read."""
        try:
            return self.path(cell).read_bytes()
        except OSError:
            return None

    def write(self, cell: Cell, content: bytes) -> None:
        """Writes a checkpoint; on OSError removes the old one, to free its space, and raises."""
        try:
            super().write(cell, content)
        except OSError:
            self.remove(cell)
            raise

    def remove(self, cell: Cell) -> None:
        """Removes the checkpoint of a cell, and the folder if it was the last one."""
        self.path(cell).unlink(missing_ok=True)
        discard_partials(self.path(cell))
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


@dataclass(frozen=True)
class Weights(CellFiles):
    """The trained weights of cells; `kept` is `first` (each variant's first replicate), `all` or `off`."""

    suffix: ClassVar[str] = ".safetensors"

    kept: str = "first"

    def wants(self, cell: Cell) -> bool:
        """Whether to keep a cell's weights: never those of cells on selection images."""
        return cell.split is Split.TEST and (self.kept == "all" or (self.kept == "first" and cell.replicate == 0))

    def load(self, cell: Cell) -> nn.Module:
        """Builds a cell's network with its trained weights; raises as `KeptNetwork.read` and `build`."""
        from ablations.training.weights import KeptNetwork

        return KeptNetwork.read(self.path(cell)).build()


@dataclass(frozen=True)
class PredictionFiles(CellFiles):
    """The predictions of trained networks on the test images; `kept` is `all` or `off`."""

    suffix: ClassVar[str] = ".npz"

    kept: str = "all"

    def wants(self, cell: Cell) -> bool:
        """Whether to keep a cell's predictions: only those on test images."""
        return cell.split is Split.TEST and self.kept == "all"

    def load(self, cell: Cell) -> Predictions:
        """Reads the predictions of a cell.

        Raises:
            OSError: if the file does not exist.
            ValueError: if it is not a predictions file.
        """
        return Predictions.from_bytes(self.path(cell).read_bytes())
