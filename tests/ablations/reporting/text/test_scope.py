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


def test_a_whole_study_misses_nothing() -> None:
    assert missing(stored(design(), 6)) == ""


@pytest.mark.parametrize(
    ("finished", "sentence"),
    [
        (5, worded("scope.missing", pending=1, total="6 cells", named="1 of groups=4")),
        (4, worded("scope.missing", pending=2, total="6 cells", named="1 of groups=2, 1 of groups=4")),
        (2, worded("scope.missing", pending=4, total="6 cells", named="1 of none, 1 of groups=2, 2 of groups=4")),
    ],
)
def test_what_is_missing_is_counted_by_variant_in_their_order(finished: int, sentence: str) -> None:
    assert missing(stored(design(), finished)) == sentence


def test_cells_that_failed_and_those_that_were_never_enqueued_are_missing() -> None:
    known = stored(design(), 6)[:5]
    known[1] = replace(known[1], state=CellState.FAILED, outcome=None, failure="ValueError: planted")
    assert missing(known) == worded("scope.missing", pending=2, total="6 cells", named="1 of groups=2, 1 of groups=4")


def test_one_cell_is_no_cells() -> None:
    config = compose_config(["device=cpu", "replicates=1", "sweep.factors={}"])
    made = make_design(config)
    known = [replace(cell, state=CellState.FAILED, outcome=None) for cell in stored(made, 1)]
    assert missing(known, config) == worded("scope.missing", pending=1, total="1 cell", named="1 of none")


def test_replicates_beyond_those_asked_for_are_no_matter() -> None:
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
def test_a_caption_says_of_a_subset_that_it_is_one(data: dict[str, object], line: str) -> None:
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
def test_a_caption_says_whether_replicates_share_their_images(overrides: list[str], clause: str) -> None:
    made = make_design(compose_config(["device=cpu", *overrides]))
    assert replication_clause(made.protocol["data"]) == worded(clause)
    assert f", {worded(clause)}, resnet8," in protocol_line(made, collect(made, []))
