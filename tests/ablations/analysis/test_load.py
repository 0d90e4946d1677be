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


def test_a_stored_study_is_read_by_the_overrides_of_its_run(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, "replicates=1", "train.epochs=1", "measure=off", f"results_dir={tmp_path}")
    launcher = Launcher(study.config)
    study.drive(launcher)
    typed = ["sweep.factors.attention.groups=[1,4]", "train.epochs=1", "train.batch_size=8", "data.train_images=24",
             "data.test_images=20", "device=cpu", f"results_dir={tmp_path}"]  # fmt: skip
    analysis = load_study(*typed, "replicates=2")
    assert analysis.folder == tmp_path / "groups-digits-resnet8"
    assert analysis.design == make_design(compose_config([*typed, "replicates=2"]))
    outcomes = {cell.variant: (cell.outcome or {})["result"] for cell in study.store.cells()}
    assert analysis.results.cells["variant"].tolist() == ["none", "groups=1", "groups=4"]
    assert analysis.results.cells["top1"].tolist() == [
        outcomes[name]["top1"] for name in ("none", "groups=1", "groups=4")
    ]
    assert missing_sentence(analysis.results) == "Not finished: 3 of 6 cells (1 of none, 1 of groups=1, 1 of groups=4)."
    assert analysis.attributes["data"]["classes"] == [str(digit) for digit in range(10)]
    assert [summary.variant for summary in analysis.summaries] == ["none", "groups=1", "groups=4"]
    assert [contrast.baseline for contrast in analysis.contrasts] == ["none", "none"]
    assert analysis.interims is None
    assert not analysis.folder.exists()  # reading does not write files
    with pytest.raises(StudyMismatchError, match=r"with a different protocol; it .*\n  train.epochs: stored 1"):
        load_study(*typed, "train.epochs=2")


def test_a_search_is_read_with_its_sampled_and_confirmed_variants(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, "sweep.trials=3", f"results_dir={tmp_path}")
    study.drive(FormulaLauncher(study.config))
    analysis = load_configured(study.config)
    assert analysis.selection is not None
    assert [variant.name for variant in analysis.tried.variants] == ["none", *study.picked()]
    assert set(analysis.selection.results.cells["variant"]) == {"none", *study.picked()}
    assert len(study.picked()) == 3
    assert [variant.name for variant in analysis.design.variants] == ["none", *study.confirmed()]
    assert set(analysis.results.cells["variant"]) == {"none", *study.confirmed()}
    assert [contrast.variant for contrast in analysis.contrasts] == study.confirmed()
    assert missing_sentence(analysis.results) == ""


def test_a_search_interrupted_in_its_selection_phase_has_no_results(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, f"results_dir={tmp_path}")
    study.drive(FormulaLauncher(study.config), stop_after=4)
    analysis = load_configured(study.config)
    assert analysis.selection is not None
    assert analysis.selection.picked == 3
    assert analysis.results.cells.empty
    assert analysis.contrasts[0].difference is None


def test_a_missing_study_is_one_message_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^study=groups-digits-resnet8: no such study in sql"):
        load_study("sweep=groups", f"results_dir={tmp_path}")
    assert list(tmp_path.iterdir()) == []
    assert DrivenStudy(tmp_path, *TINY, "study=mine").store.cells() == []
    with pytest.raises(StorageError, match=r"^study=mime: no such study .*did you mean mine\?"):
        load_study("study=mime", f"results_dir={tmp_path}")


def test_a_study_without_ended_cells_is_refused(tmp_path: Path) -> None:
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
    analysis = analyze_stored(study.config, study.design, store, tmp_path)
    assert analysis.results.cells.empty
    assert analysis.summaries == []
    assert missing_sentence(analysis.results) == "Not finished: 6 of 6 cells (2 of none, 2 of groups=1, 2 of groups=4)."


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, f"results_dir={tmp_path}")
    identity = study.store.attributes["identity"]
    stored = optuna.load_study(study_name=study.design.study, storage=study.url)
    stored.set_user_attr("identity", identity | {"version": identity["version"] - 1})
    with pytest.raises(StorageError, match=r"^study=groups-digits-resnet8: is stored in format \d+, but this version"):
        load_configured(study.config)
