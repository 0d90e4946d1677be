"""TensorBoard event files, one folder per cell: epochs as scalars, settings and results as hyperparameters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.export.cells import finished_cells

if TYPE_CHECKING:
    from ablations.analysis.study import StudyAnalysis


def export_tensorboard(analysis: StudyAnalysis, folder: Path) -> list[Path]:
    """Writes `tensorboard/<variant>/r<replicate>`, which `tensorboard --logdir` reads.

    Raises:
        OSError: if a file cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    place = folder / "tensorboard"
    shutil.rmtree(place, ignore_errors=True)  # TensorBoard would also show files of an earlier export
    for cell in finished_cells(analysis):
        with SummaryWriter(str(place / cell.folder / f"r{cell.replicate}")) as writer:
            for epoch, metrics in cell.epochs.items():
                for key, value in metrics.items():
                    writer.add_scalar(key, value, epoch)
            named = {"variant": cell.variant, "replicate": cell.replicate, **cell.settings}
            results = {f"result/{key}": value for key, value in cell.results.items()}
            writer.add_hparams(named, results, run_name=".")
    return [place]
