from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from ablations.analysis.load import analyze_stored, load_configured, load_study
from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.reporting.text.scope import missing_sentence
from ablations.storage.errors import StorageError, StudyMismatchError
from tests.builders.driven import DrivenStudy
from tests.builders.launchers import Launcher
from tests.builders.searches import FormulaLauncher
from tests.builders.searches import Study as SearchStudy
from tests.conftest import TINY


def test_a_stored_study_is_read_by_what_was_typed_to_run_it(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, "replicates=1", "train.epochs=1", "measure=off", f"results_dir={tmp_path}")
    launcher = Launcher(study.config)
    study.drive(launcher)
    typed = ["sweep.factors.attention.groups=[1,4]", "train.epochs=1", "train.batch_size=8", "data.train_images=24",
             "data.test_images=20", "device=cpu", f"results_dir={tmp_path}"]  # fmt: skip
    read = load_study(*typed, "replicates=2")
    assert read.folder == tmp_path / "groups-digits-resnet8"
    assert read.design == make_design(compose_config([*typed, "replicates=2"]))
    outcomes = {cell.variant: (cell.outcome or {})["result"] for cell in study.store.cells()}
    assert read.results.cells["variant"].tolist() == ["none", "groups=1", "groups=4"]
    assert read.results.cells["top1"].tolist() == [outcomes[name]["top1"] for name in ("none", "groups=1", "groups=4")]
    assert missing_sentence(read.results) == "Not finished: 3 of 6 cells (1 of none, 1 of groups=1, 1 of groups=4)."
    assert read.attributes["data"]["classes"] == [str(digit) for digit in range(10)]
    assert [summary.variant for summary in read.summaries] == ["none", "groups=1", "groups=4"]
    assert [contrast.baseline for contrast in read.contrasts] == ["none", "none"]
    assert read.interims is None
    assert not read.folder.exists()  # who reads writes nothing
    with pytest.raises(StudyMismatchError, match=r"with a different protocol; it .*\n  train.epochs: stored 1"):
        load_study(*typed, "train.epochs=2")


def test_a_search_is_read_with_the_variants_that_it_picked(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, "sweep.trials=3", f"results_dir={tmp_path}")
    study.drive(FormulaLauncher(study.config))
    read = load_configured(study.config)
    assert read.selection is not None
    assert [variant.name for variant in read.tried.variants] == ["none", *study.picked()]
    assert set(read.selection.results.cells["variant"]) == {"none", *study.picked()}
    assert len(study.picked()) == 3
    assert [variant.name for variant in read.design.variants] == ["none", *study.confirmed()]
    assert set(read.results.cells["variant"]) == {"none", *study.confirmed()}
    assert [contrast.variant for contrast in read.contrasts] == study.confirmed()
    assert missing_sentence(read.results) == ""


def test_a_search_that_is_cut_off_while_it_selects_has_no_results_yet(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, f"results_dir={tmp_path}")
    study.drive(FormulaLauncher(study.config), stop_after=4)
    read = load_configured(study.config)
    assert read.selection is not None
    assert read.selection.picked == 3
    assert read.results.cells.empty
    assert read.contrasts[0].difference is None


def test_nothing_stored_is_one_message_that_names_the_study(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^study=groups-digits-resnet8: no such study in sql"):
        load_study("sweep=groups", f"results_dir={tmp_path}")
    assert list(tmp_path.iterdir()) == []
    assert DrivenStudy(tmp_path, *TINY, "study=mine").store.cells() == []
    with pytest.raises(StorageError, match=r"^study=mime: no such study .*did you mean mine\?"):
        load_study("study=mime", f"results_dir={tmp_path}")


def test_a_study_of_which_nothing_was_tried_is_nothing_to_report(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY)
    store = study.store
    store.start(next(study.design.cells()))
    store.interrupt(next(study.design.cells()))
    message = "no cell of this sweep is finished yet; train them with `run`"
    with pytest.raises(UsageError, match=rf"^study=groups-digits-resnet8: {message}"):
        analyze_stored(study.config, study.design, store, tmp_path)
    cell = next(study.design.cells())
    store.start(cell)
    store.fail(cell, "error", "ValueError: planted")
    read = analyze_stored(study.config, study.design, store, tmp_path)
    assert read.results.cells.empty
    assert read.summaries == []
    assert missing_sentence(read.results) == "Not finished: 6 of 6 cells (2 of none, 2 of groups=1, 2 of groups=4)."


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, f"results_dir={tmp_path}")
    identity = study.store.attributes["identity"]
    made = optuna.load_study(study_name=study.design.study, storage=study.url)
    made.set_user_attr("identity", identity | {"version": identity["version"] - 1})
    with pytest.raises(StorageError, match=r"^study=groups-digits-resnet8: is stored in format \d+, but this version"):
        load_configured(study.config)
