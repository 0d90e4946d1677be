"""The exports: what each requires, and how the requested ones are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.common.errors import UsageError
from ablations.common.parts import Parts
from ablations.config import Config
from ablations.storage.paths import EXPORTS_FOLDER

if TYPE_CHECKING:
    from ablations.analysis.study import StudyAnalysis

# Exports that need an optional package, which is also the name of the extra that installs it.
_EXTRAS = {"tensorboard": "tensorboard", "wandb": "wandb"}


def check_exports(config: Config, *, trains: bool) -> None:
    """Checks that the exports of a configuration can be made, before training starts.

    Raises:
        UsageError: if a package is not installed, or if cards are requested and no weights will be kept.
    """
    for name in config.export:
        package = _EXTRAS.get(name)
        if package and find_spec(package) is None:
            reason = f"needs the Python package {package}, which is not installed: pip install '.[{package}]'"
            raise UsageError("export", name, reason)
    if "cards" in config.export and trains and config.weights == "off":
        raise UsageError("export", "cards", "describes networks whose weights are kept, and weights=off keeps none")


def export_study(analysis: StudyAnalysis, names: Sequence[str], parts: Parts) -> list[Path]:
    """Exports a study to `<folder>/export`, replacing earlier exports; returns the files and folders.

    Failures are recorded in `parts`.
    """
    folder = analysis.folder / EXPORTS_FOLDER
    paths: list[Path] = []
    for name in dict.fromkeys(names):
        paths += parts.make(f"export {name}", [], _exporter(name), analysis, folder)
    return paths


def _exporter(name: str) -> Callable[[StudyAnalysis, Path], list[Path]]:
    if name == "csv":
        from ablations.export.tables import export_csv

        return export_csv
    if name == "parquet":
        from ablations.export.tables import export_parquet

        return export_parquet
    if name == "tensorboard":
        from ablations.export.tensorboard import export_tensorboard

        return export_tensorboard
    if name == "wandb":
        from ablations.export.weights_and_biases import export_wandb

        return export_wandb
    from ablations.export.cards import export_cards

    return export_cards
