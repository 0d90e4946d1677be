from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
from optuna.trial import TrialState

from ablations.analysis.results import collect
from ablations.analysis.study import Findings, findings_of, read_findings, read_study
from ablations.common.errors import UsageError
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.measure.complexity import count_operations
from ablations.storage.study import StoredCell
from ablations.training.learner import build_network
from tests.ablations.analysis.test_results import configuration, design, stored
from tests.ablations.execution.schedules.test_search import FormulaLauncher
from tests.ablations.execution.schedules.test_search import Study as SearchStudy
from tests.ablations.execution.test_driver import Launcher, Study
from tests.ablations.reporting.test_report import ATTRIBUTES


def findings(folder: Path, known: Iterable[StoredCell], config: Config | None = None, **attributes: Any) -> Findings:
    config = config or configuration()
    made = make_design(config)
    return Findings(config, made, collect(made, known), ATTRIBUTES | attributes, folder)


def test_a_whole_study_misses_nothing(tmp_path: Path) -> None:
    assert findings(tmp_path, stored(design(), 6)).missing == ""


@pytest.mark.parametrize(
    ("finished", "sentence"),
    [
        (5, "Not finished: 1 of 6 cells (1 of groups=4)."),
        (4, "Not finished: 2 of 6 cells (1 of groups=2, 1 of groups=4)."),
        (2, "Not finished: 4 of 6 cells (1 of none, 1 of groups=2, 2 of groups=4)."),
    ],
)
def test_what_is_missing_is_counted_by_variant_in_their_order(tmp_path: Path, finished: int, sentence: str) -> None:
    assert findings(tmp_path, stored(design(), finished)).missing == sentence


def test_cells_that_failed_and_those_that_were_never_enqueued_are_missing(tmp_path: Path) -> None:
    known = stored(design(), 6)[:5]
    known[1] = replace(known[1], state=TrialState.FAIL, outcome=None, failure="ValueError: planted")
    assert findings(tmp_path, known).missing == "Not finished: 2 of 6 cells (1 of groups=2, 1 of groups=4)."


def test_one_cell_is_no_cells(tmp_path: Path) -> None:
    config = compose_config(["device=cpu", "replicates=1", "sweep.factors={}"])
    made = make_design(config)
    known = [replace(cell, state=TrialState.FAIL, outcome=None) for cell in stored(made, 1)]
    assert findings(tmp_path, known, config).missing == "Not finished: 1 of 1 cell (1 of none)."


def test_what_a_search_gave_up_is_not_missing(tmp_path: Path) -> None:
    known = stored(design(), 6)
    outcome = {"pruned": "below the median"}
    known[1] = replace(known[1], state=TrialState.PRUNED, outcome=outcome)
    known = [cell for cell in known if (cell.variant, cell.replicate) != ("groups=2", 1)]
    assert findings(tmp_path, known).missing == ""
    known[2] = replace(known[2], state=TrialState.WAITING, outcome=None)
    assert findings(tmp_path, known).missing == "Not finished: 1 of 4 cells (1 of groups=4)."


def test_replicates_beyond_those_asked_for_are_no_matter(tmp_path: Path) -> None:
    assert findings(tmp_path, stored(design(3), 8)).missing == ""
    assert len(findings(tmp_path, stored(design(3), 8)).results.cells) == 8


def test_multiply_adds_are_those_that_are_counted_of_a_real_network(tmp_path: Path) -> None:
    config = compose_config(["device=cpu", "replicates=1", "sweep=backbones", "sweep.factors.model=[resnet8,resnet20]"])
    made = make_design(config)
    seven = ATTRIBUTES["data"] | {"classes": list("abcdefg")}
    known = findings(tmp_path, stored(made, 3), config, data=seven)
    names = [variant.name for variant in made.variants]
    assert list(known.multiply_adds) == names[:3]  # the fourth is not finished
    assert list(known.plain_adds) == names
    pixels = torch.zeros(1, 3, 32, 32)
    for variant in made.variants:
        counted = count_operations(build_network(variant.network, 7, 0, fused="off").eval(), pixels).multiply_adds
        plain = {"model": variant.model, "attention": {"name": "none"}}
        assert (
            known.plain_adds[variant.name] == count_operations(build_network(plain, 7, 0).eval(), pixels).multiply_adds
        )
        if variant.name in known.multiply_adds:
            assert known.multiply_adds[variant.name] == counted
        assert (counted > known.plain_adds[variant.name]) == (variant.attention["name"] != "none")


def test_multiply_adds_are_those_of_the_images_that_networks_see(tmp_path: Path) -> None:
    root = [f"data.root={tmp_path}", "device=cpu", "replicates=1", "sweep.factors={}", "model=resnet18"]
    small, large = (
        compose_config(["data=imagenet_subset", f"data.resolution={side}", *root, "sweep.variants={none: {}}"])
        for side in (128, 224)
    )
    adds = [
        findings(tmp_path, stored(make_design(config), 1), config).multiply_adds["none"] for config in (small, large)
    ]
    assert adds[1] == pytest.approx(adds[0] * (224 / 128) ** 2, rel=0.01)


def test_a_stored_study_is_read_by_what_was_typed_to_run_it(tmp_path: Path) -> None:
    study = Study(tmp_path, "replicates=1", "train.epochs=1", "measure=off", f"results_dir={tmp_path}")
    launcher = Launcher(study.config)
    study.drive(launcher)
    typed = ["sweep.factors.attention.groups=[1,4]", "train.epochs=1", "train.batch_size=8", "data.train_images=24",
             "data.test_images=20", "device=cpu", f"results_dir={tmp_path}"]  # fmt: skip
    read = read_study(*typed, "replicates=2")
    assert read.folder == tmp_path / "groups-digits-resnet8"
    assert read.design == make_design(compose_config([*typed, "replicates=2"]))
    outcomes = {cell.variant: (cell.outcome or {})["result"] for cell in study.store.cells()}
    assert read.results.cells["variant"].tolist() == ["none", "groups=1", "groups=4"]
    assert read.results.cells["top1"].tolist() == [outcomes[name]["top1"] for name in ("none", "groups=1", "groups=4")]
    assert read.missing == "Not finished: 3 of 6 cells (1 of none, 1 of groups=1, 1 of groups=4)."
    assert read.attributes["data"]["classes"] == [str(digit) for digit in range(10)]
    assert [summary.variant for summary in read.summaries] == ["none", "groups=1", "groups=4"]
    assert [contrast.baseline for contrast in read.contrasts] == ["none", "none"]
    assert read.looks is None
    assert not read.folder.exists()  # who reads writes nothing
    with pytest.raises(UsageError, match=r"is stored with another protocol; it was made by .*\n  train.epochs: 1 is"):
        read_study(*typed, "train.epochs=2")


def test_a_search_is_read_with_the_variants_that_it_picked(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, "sweep.trials=3", f"results_dir={tmp_path}")
    study.drive(FormulaLauncher(study.config))
    read = read_findings(study.config)
    assert [variant.name for variant in read.design.variants] == ["none", *study.picked()]
    assert set(read.results.cells["variant"]) == {"none", *study.picked()}
    assert len(study.picked()) == 3
    assert read.missing == ""


def test_nothing_stored_is_one_message_that_names_the_study(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^study=groups-digits-resnet8: nothing is stored under this name in sqlite"):
        read_study("sweep=groups", f"results_dir={tmp_path}")
    assert list(tmp_path.iterdir()) == []
    assert Study(tmp_path, "study=mine").store.cells() == []
    with pytest.raises(UsageError, match=r"^study=mime: nothing is stored .*did you mean mine\?"):
        read_study("study=mime", f"results_dir={tmp_path}")


def test_a_study_of_which_nothing_was_tried_is_nothing_to_report(tmp_path: Path) -> None:
    study = Study(tmp_path)
    store = study.store
    store.enqueue(study.design.cells())
    message = "no cell of this sweep is finished yet; `run` trains them"
    with pytest.raises(UsageError, match=rf"^study=groups-digits-resnet8: {message}"):
        findings_of(study.config, study.design, store, tmp_path)
    cell = next(study.design.cells())
    store.claim(cell)
    store.fail(cell, "error", "ValueError: planted")
    read = findings_of(study.config, study.design, store, tmp_path)
    assert read.results.cells.empty
    assert read.summaries == []
    assert read.missing == "Not finished: 6 of 6 cells (2 of none, 2 of groups=1, 2 of groups=4)."


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    study = Study(tmp_path, f"results_dir={tmp_path}")
    identity = study.store.attributes["identity"]
    made = optuna.load_study(study_name=study.design.study, storage=study.url)
    made.set_user_attr("identity", identity | {"version": identity["version"] - 1})
    with pytest.raises(UsageError, match=r"^study=groups-digits-resnet8: is stored in format \d+; this version of"):
        read_findings(study.config)


def test_findings_are_computed_once(tmp_path: Path) -> None:
    known = findings(tmp_path, stored(design(), 6))
    assert known.contrasts is known.contrasts
    assert known.summaries is known.summaries
    assert known.multiply_adds is known.multiply_adds
    assert isinstance(known.results.cells, pd.DataFrame)


def test_looks_are_those_that_are_stored(tmp_path: Path) -> None:
    looks = findings(tmp_path, stored(design(), 6), looks=[9, 12, 16]).looks
    assert looks is not None
    assert looks.sizes == (9, 12, 16)
