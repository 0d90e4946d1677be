"""Stored studies for comparisons, with fabricated results."""

from __future__ import annotations

from pathlib import Path

from ablations.design.declaration import Declaration, History
from ablations.storage.study import open_store
from tests.builders.big_studies import make_big_study

GROUPS = ("sweep=groups", "sweep.factors.attention.groups=[2,4]", "replicates=6", "train.epochs=1")
IMAGES = ("data.train_images=32", "data.test_images=32")


def store_study(folder: Path, *overrides: str, declared: bool = True) -> None:
    """Stores a study of `GROUPS` with these overrides in the database of a results folder."""
    design = make_big_study(folder, *GROUPS, *IMAGES, *overrides, mirrored=False).design
    if declared:
        store = open_store(f"sqlite:///{folder / 'optuna.db'}", design.study, create=False)
        declaration = Declaration.of(design, commit="c0ffee", command="x", time="2026-11-30T12:00:00+00:00")
        store.remember("declared", History.begun(declaration).as_stored())
    (folder / design.study).mkdir(exist_ok=True)
