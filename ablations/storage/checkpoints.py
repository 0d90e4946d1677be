"""Checkpoints of cells that are being trained: whoever is stopped goes on from the last one.

    results/<study>/checkpoints/<key of the cell>.pt

There is one only while its cell is unfinished. Whoever deletes it loses time, not results.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ablations.common.files import discard_partials, write_whole
from ablations.design import Cell


@dataclass(frozen=True)
class Checkpoints:
    """Where the checkpoints of a study's cells lie, and after how many seconds an epoch ends with one."""

    folder: Path
    every: float = 0.0

    def path(self, cell: Cell) -> Path:
        """Returns the file of a cell, which need not be there."""
        return self.folder / f"{cell.key}.pt"

    def read(self, cell: Cell) -> bytes | None:
        """Returns what the file of a cell has; None where there is none that can be read."""
        try:
            return self.path(cell).read_bytes()
        except OSError:
            return None

    def write(self, cell: Cell, content: bytes) -> None:
        """Writes a cell's checkpoint, whole or not at all.

        Raises:
            OSError: if it cannot be written; then there is none, as one that is not the latest is not worth its room.
        """
        try:
            write_whole(self.path(cell), content)
        except OSError:
            self.remove(cell)
            raise

    def remove(self, cell: Cell) -> None:
        """Removes the checkpoint of a cell, and the folder with the last one."""
        self.path(cell).unlink(missing_ok=True)
        discard_partials(self.path(cell))
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
