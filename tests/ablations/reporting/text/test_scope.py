from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from ablations.analysis.results import collect
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.reporting.text.scope import data_line, missing_sentence, protocol_line, replication_clause
from ablations.storage.cell_states import CellState, StoredCell
from tests.builders.cells import configuration, design, stored
from tests.wording import worded


def missing(known: Iterable[StoredCell], config: Config | None = None) -> str:
    return missing_sentence(collect(make_design(config or configuration()), known))


def test_a_complete_study_has_no_missing_cells() -> None:
    assert missing(stored(design(), 6)) == ""


@pytest.mark.parametrize(
    ("finished", "sentence"),
    [
        (5, worded("scope.missing", pending=1, total="6 cells", named="1 of groups=4")),
        (4, worded("scope.missing", pending=2, total="6 cells", named="1 of groups=2, 1 of groups=4")),
        (2, worded("scope.missing", pending=4, total="6 cells", named="1 of none, 1 of groups=2, 2 of groups=4")),
    ],
)
def test_missing_cells_are_counted_by_variant_in_order(finished: int, sentence: str) -> None:
    assert missing(stored(design(), finished)) == sentence


def test_failed_and_never_started_cells_are_missing() -> None:
    known = stored(design(), 6)[:5]
    known[1] = replace(known[1], state=CellState.FAILED, outcome=None, failure="ValueError: planted")
    assert missing(known) == worded("scope.missing", pending=2, total="6 cells", named="1 of groups=2, 1 of groups=4")


def test_a_single_cell_is_singular() -> None:
    config = compose_config(["device=cpu", "replicates=1", "sweep.factors={}"])
    made = make_design(config)
    known = [replace(cell, state=CellState.FAILED, outcome=None) for cell in stored(made, 1)]
    assert missing(known, config) == worded("scope.missing", pending=1, total="1 cell", named="1 of none")


def test_replicates_beyond_the_design_are_ignored() -> None:
    assert missing(stored(design(3), 8)) == ""
    assert len(collect(make_design(configuration()), stored(design(3), 8)).cells) == 8


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"name": "digits"}, "digits"),
        ({"name": "cifar10", "train_per_class": 0, "val_per_class": 0}, "cifar10"),
        (
            {"name": "cifar10", "train_per_class": 5000, "val_per_class": 50},
            "cifar10 (5,000 training images of each class, 50 test images of each class)",
        ),
        ({"name": "imagenet_subset", "classes": 0, "resolution": 64}, "imagenet_subset (64x64 pixels)"),
        ({"name": "imagenet_subset", "classes": 100, "resolution": 64}, "imagenet_subset (100 classes, 64x64 pixels)"),
        ({"name": "imagenette", "classes": ["a", "b"], "resolution": 128}, "imagenette (2 classes, 128x128 pixels)"),
        ({"name": "x", "classes": "my.txt", "resolution": 64}, "x (the classes of my.txt, 64x64 pixels)"),
    ],
)
def test_a_caption_describes_a_subset(data: dict[str, object], line: str) -> None:
    assert data_line(data) == line


@pytest.mark.parametrize(
    ("overrides", "clause"),
    [
        (["data.seed=3"], "scope.one_scenes"),
        (["data.seed=replicate"], "scope.own_scenes"),
        (["data=cifar10"], "scope.official"),
        (["data=cifar10", "data.train_per_class=50"], "scope.one_subset"),
        (["data=cifar10", "data.val_per_class=50", "data.seed=replicate"], "scope.own_subset"),
    ],
)
def test_a_caption_states_whether_replicates_share_their_images(overrides: list[str], clause: str) -> None:
    made = make_design(compose_config(["device=cpu", *overrides]))
    assert replication_clause(made.protocol["data"]) == worded(clause)
    assert f", {worded(clause)}, resnet8," in protocol_line(made, collect(made, []))
