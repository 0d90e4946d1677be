"""Weights & Biases runs, written offline; `wandb sync` uploads them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.export.cells import finished_cells

if TYPE_CHECKING:
    from ablations.analysis.study import StudyAnalysis


def export_wandb(analysis: StudyAnalysis, folder: Path) -> list[Path]:
    """Writes a run to `wandb` for each finished cell: the study is the project, the variant the group.

    Nothing is uploaded, whatever the environment variables are. A run's id is its cell's key, so that exporting and
    uploading it again updates the same run.

    Raises:
        OSError: if a file cannot be written.
    """
    import wandb

    place = folder / "wandb"
    shutil.rmtree(place, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, disable_code=True, disable_job_creation=True, x_disable_stats=True
    )
    for cell in finished_cells(analysis):
        run = wandb.init(
            project=analysis.design.study,
            group=cell.variant,
            name=f"{cell.variant} r{cell.replicate}",
            id=cell.key,
            dir=str(folder),
            config={"variant": cell.variant, "replicate": cell.replicate, **cell.settings},
            mode="offline",
            reinit="create_new",
            settings=settings,
        )
        for epoch, metrics in cell.epochs.items():
            run.log(metrics, step=epoch)
        run.summary.update(cell.results)
        run.finish()
    if wandb.run is None:  # otherwise it would also end a run of the caller
        wandb.teardown()  # `finish` returns before W&B's service has written the file
    return [place]
