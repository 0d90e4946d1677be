"""Stored studies that can be compared: finished cells that no network was trained for."""

from __future__ import annotations

from pathlib import Path

from ablations.design.declaration import Declaration, History
from ablations.storage.study import open_store
from tests.builders.big_studies import make_big_study

GROUPS = ("sweep=groups", "sweep.factors.attention.groups=[2,4]", "replicates=6", "train.epochs=1")
IMAGES = ("data.train_images=32", "data.test_images=32")


def store_study(folder: Path, *overrides: str, declared: bool = True) -> None:
    """Stores a study of `GROUPS` with these options in the database of a results folder."""
    made = make_big_study(folder, *GROUPS, *IMAGES, *overrides, mirrored=False)
    if declared:
        design = made.design
        store = open_store(f"sqlite:///{folder / 'optuna.db'}", design.study, create=False)
        asked = Declaration.of(design, commit="c0ffee", command="x", time="2026-11-30T12:00:00+00:00")
        store.remember("declared", History.begun(asked).as_stored())
    (folder / made.design.study).mkdir(exist_ok=True)
